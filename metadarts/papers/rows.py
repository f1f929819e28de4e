"""What a table of a paper holds once it was measured here, as a file that another machine can read and check.

A table is one JSON file. Whoever wrote it, it is read with care: what is missing, unknown or out of its range is
refused by name, and the file carries the hash of what it says was measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.stats import Estimate
from metadarts.store.described import number, read_json, truth, whole

Value = TypeVar("Value")
FORMAT, VERSION = "metadarts.table", 1
BUDGETS = ("smoke", "hour", "full")
PROTOCOLS = {
    "A": "the soft supernet after K inner steps, all candidates still mixed",
    "B": "discretised: the derived cell with the weights that it inherits from the supernet",
    "C": "discretised and meta-trained from scratch: the derived cell as an ordinary network",
    "": "a network without architecture search",
}
HEADLINE, SHORT, MAML = "headline", "headline-10", "maml"
META_CELL, TASK_CELL, RANDOM_CELL = "meta-cell", "task-cell", "random-cell"
"""Names of rows that a page has sentences about. A name with a hyphen and more behind it counts as the same: `SHORT`
as `HEADLINE`, and "maml-first", "maml-equal" and "maml-ours" as `MAML`."""

REPRODUCED, MISSED, TOO_SMALL, NO_VERDICT = "reproduced", "not reproduced", "budget too small to say", "no verdict"
SLACK = 0.02
"""How far the lower end of an interval may lie below what `verdict` asks of it: two points of accuracy."""

DIGEST = "sha256"
"""Where the file keeps `ResultTable.digest`."""

MOST, MOST_TEXT, MOST_FILE = 10**12, 10_000, 2**24
"""Of a count, of the letters of a text, and of those of a file."""


@dataclass(frozen=True)
class Paper:
    """A value as printed in a paper.

    Args:
        method: the method's name there.
        accuracy: from 0 to 1.
        interval: half of the 95 % interval that is printed with it, from 0 to 1; None where there is none.
    """

    method: str
    accuracy: float
    interval: float | None


@dataclass(frozen=True)
class Row:
    """One method, measured in one setting.

    Args:
        setting: ways and shots, e.g. "5-way 5-shot".
        name: a short key, unique in its setting, e.g. `HEADLINE`.
        method: what a reader reads.
        protocol: a key of `PROTOCOLS`.
        paper: the value to reach; None where the paper has none.
        estimate: mean accuracy from 0 to 1 over seeds and test tasks, with its 95 % interval.
        seeds: of the trainings, each once.
        tasks: number of test tasks.
        bn: batch-norm policy.
        selection: how the checkpoint was chosen.
        weights: number of weights of the network at test time.
        alphas: number of architecture parameters there.
        steps: inner steps at test time.
        meta_steps: meta-updates of each training.
        search_seconds: of all trainings behind the row.
        device: in words.
        note: what else a reader must know, e.g. the cell.
        unlike: a few words why the paper's value is of something else, e.g. "another protocol"; "" where it is not.
        covers: how much of what the row is called it stands for, e.g. "596 of 600 tasks have one of the 1 trained
            cells"; "" where that is all.
        measure_seconds: of measuring all its trainings on the test tasks.
    """

    setting: str
    name: str
    method: str
    protocol: str
    paper: Paper | None
    estimate: Estimate
    seeds: tuple[int, ...]
    tasks: int
    bn: str
    selection: str
    weights: int
    alphas: int
    steps: int
    meta_steps: int
    search_seconds: float
    device: str
    note: str = ""
    unlike: str = ""
    covers: str = ""
    measure_seconds: float = 0.0

    @property
    def gap(self) -> float | None:
        """The mean less the paper's value, from -1 to 1; None where the paper has none."""
        return None if self.paper is None else self.estimate.mean - self.paper.accuracy

    @property
    def reaches(self) -> bool:
        """Whether the mean is at least the paper's value less the interval printed with it."""
        return self.paper is not None and self.estimate.mean >= self.paper.accuracy - (self.paper.interval or 0.0)


@dataclass(frozen=True)
class Comparison:
    """Two rows of one setting on the same test tasks.

    Args:
        setting: that of both rows.
        first: the name of one row.
        second: the name of the other.
        about: what was held equal, e.g. "equal wall-clock".
        difference: mean accuracy of the first less the second, paired by task, from -1 to 1.
        overlaps: whether the intervals of the two rows overlap.
        seconds: of the trainings behind the first and the second.
        meta_steps: meta-updates of each training of the first and the second.
        paper: the paper's own difference, from -1 to 1; None where it has none.
        same: whether both rows are one trained network, so that there is nothing to compare.
        recipes_differ: whether the two were also trained by different recipes.
    """

    setting: str
    first: str
    second: str
    about: str
    difference: Estimate
    overlaps: bool
    seconds: tuple[float, float]
    meta_steps: tuple[int, int]
    paper: float | None = None
    same: bool = False
    recipes_differ: bool = False


@dataclass(frozen=True)
class ResultTable:
    """A table of a paper as measured here.

    Args:
        name: a short key.
        title: what a reader reads.
        paper: its citation.
        budget: one of `BUDGETS`; only "full" can fail to reproduce a value.
        source: the data set.
        split: how its classes were split, in words.
        episodes: for each setting the SHA-256 of its test tasks.
        rows: in the order in which they are shown.
        comparisons: of rows.
        environment: JSON: versions, device, commit.
        notes: sentences for the reader. They count as measured: no times here.
    """

    name: str
    title: str
    paper: str
    budget: str
    source: str
    split: str
    episodes: dict[str, str]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of what the same command and seed must give again: all but times, device and environment."""
        told = asdict(self)
        del told["environment"]
        for row in told["rows"]:
            del row["search_seconds"], row["measure_seconds"], row["device"]
        for comparison in told["comparisons"]:
            del comparison["seconds"]
        return hashlib.sha256(json.dumps(_as_floats(told), sort_keys=True).encode()).hexdigest()

    def row(self, setting: str, name: str) -> Row:
        """The row called ``name`` of ``setting``. Raises ConfigError when there is none."""
        for row in self.rows:
            if (row.setting, row.name) == (setting, name):
                return row
        names = [row.name for row in self.rows if row.setting == setting]
        raise ConfigError(f"table {self.name!r} has no row {name!r} in {setting!r}; {nearest(name, names)}")

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the rows, each once, in their order."""
        return tuple(dict.fromkeys(row.setting for row in self.rows))

    def to_json(self) -> str:
        """The content of table.json. Raises DataError where `from_json` would refuse it."""
        told = {"format": FORMAT, "version": VERSION, **asdict(self), DIGEST: self.digest}
        text = json.dumps(told, indent=1) + "\n"
        ResultTable.from_json(text)  # what is written can be read
        return text

    @staticmethod
    def from_json(text: str) -> ResultTable:
        """The table that `to_json` wrote. Raises DataError naming the field that is wrong."""
        if len(text) > MOST_FILE:
            raise DataError(f"expected a table of at most {MOST_FILE} letters, got {len(text)}: no table of ours")
        try:
            told = read_json(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"expected the JSON of a table, got something else ({error}): write it anew") from error
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise DataError(f"expected a table, whose format is {FORMAT!r}: give a table.json that reproduce wrote")
        if told.get("version") != VERSION or type(told["version"]) is not int:
            given = repr(told.get("version"))[:40]
            raise DataError(f"version: expected {VERSION}, got {given}: update metadarts, or reproduce the table anew")
        table = _table(_Fields(told, "", (*ResultTable.__dataclass_fields__, "format", "version", DIGEST)))
        _check_names(table)
        if told[DIGEST] != table.digest:
            raise DataError(f"{DIGEST}: the table was changed since it was measured: reproduce it anew")
        return table


def verdict(row: Row, budget: str) -> str:
    """What the row says about the paper's value.

    The mean alone reaches a value: an interval that is wide, as few tasks or trainings make it, never helps. It can
    only harm, so that no sloppy measurement passes: its lower end may lie below the value by the printed interval, or
    by `SLACK` where that is more, and by another `SLACK`, but no further.

    Args:
        row: its mean is held against the paper's value less the interval printed with it.
        budget: one of `BUDGETS`.

    Returns:
        "" where the paper has no value; else `TOO_SMALL` below the full budget, whatever was measured. At the full
        budget `NO_VERDICT` and why, where the paper's value is of something else; else `REPRODUCED` or `MISSED`.

    Raises:
        ConfigError: for another budget.
    """
    if budget not in BUDGETS:
        raise ConfigError(f"budget {budget!r}: expected one of them; {nearest(budget, BUDGETS)}")
    if row.paper is None:
        return ""
    if budget != "full":
        return TOO_SMALL
    if row.unlike:
        return f"{NO_VERDICT}: {row.unlike}"
    least = row.paper.accuracy - max(SLACK, row.paper.interval or 0.0) - SLACK
    return REPRODUCED if row.reaches and row.estimate.low >= least else MISSED


def _as_floats(value: Any) -> Any:
    """``value`` with every number a float: 1 and 1.0 are the same measurement."""
    if isinstance(value, dict):
        return {name: _as_floats(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class _Fields:
    """A JSON object whose fields are taken by name; an error says where the field stands."""

    def __init__(self, told: Any, place: str, names: tuple[str, ...]) -> None:
        self._place = place
        if not isinstance(told, dict):
            raise DataError(f"{place or 'the table'}: expected an object, got {repr(told)[:40]}")
        self.told = told
        for name in names:
            if name not in told:
                raise DataError(f"{self.at(name)}: expected a value, got none: the table is damaged, reproduce it anew")
        for name in told:
            if name not in names:
                raise DataError(f"{self.at(name[:40])}: a field that version {VERSION} does not have: update metadarts")

    def at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def take(self, name: str, read: Callable[[Any], Value]) -> Value:
        try:
            return read(self.told[name])
        except (ValueError, OverflowError) as error:  # of an integer with hundreds of digits
            raise DataError(f"{self.at(name)}: {error}") from error

    def text(self, name: str) -> str:
        return self.take(name, _text)

    def count(self, name: str, least: int = 0) -> int:
        return self.take(name, lambda value: whole(value, least, MOST))

    def between(self, name: str, low: float, high: float = math.inf) -> float:
        return self.take(name, lambda value: _between(value, low, high))

    def perhaps(self, name: str, low: float) -> float | None:
        return None if self.told[name] is None else self.between(name, low, 1.0)

    def choice(self, name: str, valid: tuple[str, ...]) -> str:
        return self.take(name, lambda value: _choice(value, valid))

    def many(self, name: str, read: Callable[[Any, str], Value]) -> tuple[Value, ...]:
        """``read``(item, where it stands) of every item of a list."""
        items = self.take(name, _list)
        return tuple(read(item, f"{self.at(name)}[{index}]") for index, item in enumerate(items))

    def pair(self, name: str, read: Callable[[Any], Value]) -> tuple[Value, Value]:
        first, second = self.take(name, lambda value: [read(item) for item in _list(value, length=2)])
        return first, second

    def estimate(self, name: str, low: float) -> Estimate:
        fields = _Fields(self.told[name], self.at(name), ("mean", "low", "high"))
        mean = fields.between("mean", low, 1.0)
        return Estimate(mean, fields.between("low", low, mean), fields.between("high", mean, 1.0))


def _table(fields: _Fields) -> ResultTable:
    return ResultTable(
        name=fields.text("name"),
        title=fields.text("title"),
        paper=fields.text("paper"),
        budget=fields.choice("budget", BUDGETS),
        source=fields.text("source"),
        split=fields.text("split"),
        episodes=fields.take("episodes", _hashes),
        rows=fields.many("rows", _row),
        comparisons=fields.many("comparisons", _comparison),
        environment=fields.take("environment", _object),
        notes=fields.take("notes", lambda value: tuple(_text(item) for item in _list(value))),
    )


def _row(told: Any, place: str) -> Row:
    fields = _Fields(told, place, tuple(Row.__dataclass_fields__))
    return Row(
        setting=fields.text("setting"),
        name=fields.text("name"),
        method=fields.text("method"),
        protocol=fields.choice("protocol", tuple(PROTOCOLS)),
        paper=None if fields.told["paper"] is None else _paper(fields.told["paper"], fields.at("paper")),
        estimate=fields.estimate("estimate", low=0.0),
        seeds=fields.take("seeds", _seeds),
        tasks=fields.count("tasks", least=1),
        bn=fields.text("bn"),
        selection=fields.text("selection"),
        weights=fields.count("weights"),
        alphas=fields.count("alphas"),
        steps=fields.count("steps"),
        meta_steps=fields.count("meta_steps"),
        search_seconds=fields.between("search_seconds", 0.0),
        device=fields.text("device"),
        note=fields.text("note"),
        unlike=fields.text("unlike"),
        covers=fields.text("covers"),
        measure_seconds=fields.between("measure_seconds", 0.0),
    )


def _paper(told: Any, place: str) -> Paper:
    fields = _Fields(told, place, tuple(Paper.__dataclass_fields__))
    return Paper(fields.text("method"), fields.between("accuracy", 0.0, 1.0), fields.perhaps("interval", low=0.0))


def _comparison(told: Any, place: str) -> Comparison:
    fields = _Fields(told, place, tuple(Comparison.__dataclass_fields__))
    return Comparison(
        setting=fields.text("setting"),
        first=fields.text("first"),
        second=fields.text("second"),
        about=fields.text("about"),
        difference=fields.estimate("difference", low=-1.0),
        overlaps=fields.take("overlaps", truth),
        seconds=fields.pair("seconds", lambda value: _between(value, 0.0, math.inf)),
        meta_steps=fields.pair("meta_steps", lambda value: whole(value, 0, MOST)),
        paper=fields.perhaps("paper", low=-1.0),
        same=fields.take("same", truth),
        recipes_differ=fields.take("recipes_differ", truth),
    )


def _check_names(table: ResultTable) -> None:
    """Require that rows are told apart by name, and that a comparison has both of its rows, on equally many tasks."""
    tasks: dict[tuple[str, str], int] = {}
    for index, row in enumerate(table.rows):
        if (row.setting, row.name) in tasks:
            raise DataError(f"rows[{index}].name: {row.name!r} is there twice in {row.setting!r}: name each row apart")
        if row.setting not in table.episodes:
            raise DataError(f"episodes: expected the hash of the test tasks of {row.setting!r}, got none")
        tasks[row.setting, row.name] = row.tasks
    for index, comparison in enumerate(table.comparisons):
        for side in ("first", "second"):
            name = getattr(comparison, side)
            if (comparison.setting, name) not in tasks:
                raise DataError(
                    f"comparisons[{index}].{side}: no row is called {name[:40]!r} in {comparison.setting!r}; "
                    f"{nearest(name, [row.name for row in table.rows if row.setting == comparison.setting])}"
                )
        first, second = (tasks[comparison.setting, name] for name in (comparison.first, comparison.second))
        if first != second:
            raise DataError(f"comparisons[{index}]: expected two rows on the same tasks, got {first} and {second}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ValueError(f"expected a text of at most {MOST_TEXT} letters, got {repr(value)[:40]}")
    return value


def _between(value: Any, low: float, high: float) -> float:
    if not low <= number(value) <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _choice(value: Any, valid: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"expected one of {', '.join(map(repr, valid))}, got {repr(value)[:40]}")
    return value


def _list(value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"expected a list{'' if length is None else f' of {length}'}, got {repr(value)[:40]}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {repr(value)[:40]}")
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = tuple(whole(seed, -MOST, MOST) for seed in _list(value))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected at least one seed and each once, got {repr(value)[:40]}")
    return seeds


def _hashes(value: Any) -> dict[str, str]:
    for setting, told in _object(value).items():
        if not isinstance(told, str) or len(told) != 64 or set(told) - set("0123456789abcdef"):
            raise ValueError(f"expected the SHA-256 of {setting[:40]!r}, 64 hexadecimal digits, got {repr(told)[:70]}")
    return dict(value)
