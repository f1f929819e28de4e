"""What a table of a paper holds once it was measured here, as a file that another machine can read and check.

A table is one JSON file. What in it is unknown or out of its range is refused by name, and the file carries the hash of
what it says was measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.stats import Estimate
from metadarts.store.fields import MOST, Count, Digest, Fraction, NotNegative, Positive, Text, one_of
from metadarts.store.schema import Schema

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

Difference = Annotated[float, Meta(ge=-1, le=1)]
Seed = Annotated[int, Meta(ge=-MOST, le=MOST)]


@dataclass(frozen=True)
class Paper:
    """A value as printed in a paper.

    Args:
        method: the method's name there.
        accuracy: from 0 to 1.
        interval: half of the 95 % interval that is printed with it, from 0 to 1; None if there is none.
    """

    method: Text
    accuracy: Fraction
    interval: Fraction | None


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

    setting: Text
    name: Text
    method: Text
    protocol: Annotated[str, one_of(*PROTOCOLS)]
    paper: Paper | None
    estimate: Estimate
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    tasks: Positive
    bn: Text
    selection: Text
    weights: Count
    alphas: Count
    steps: Count
    meta_steps: Count
    search_seconds: NotNegative
    device: Text
    note: Text = ""
    unlike: Text = ""
    covers: Text = ""
    measure_seconds: NotNegative = 0.0

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

    setting: Text
    first: Text
    second: Text
    about: Text
    difference: Estimate
    overlaps: bool
    seconds: tuple[NotNegative, NotNegative]
    meta_steps: tuple[Count, Count]
    paper: Difference | None = None
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

    name: Text
    title: Text
    paper: Text
    budget: Annotated[str, one_of(*BUDGETS)]
    source: Text
    split: Text
    episodes: dict[str, Digest]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    notes: tuple[Text, ...] = ()

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
    def from_json(text: str | Path, name: str = "") -> ResultTable:
        """The table that `to_json` wrote, or the one in such a file. Raises DataError naming the field that is wrong.

        Args:
            name: what messages call a text.
        """
        name = name or (str(text) if isinstance(text, Path) else "")
        told = TABLE.loads(text, name)
        vouched = told.pop(DIGEST, None) if isinstance(told, dict) else None
        table = TABLE.convert(told, name)
        with TABLE.refusing(name):
            if vouched != table.digest:
                raise ValueError(f"{DIGEST}: the table was changed since it was measured")
        return table


def verdict(row: Row, budget: str) -> str:
    """The verdict of the row about the paper's value.

    Only the mean can reach a value: a wide interval, from few tasks or trainings, never helps. It can only fail the
    row, so that no imprecise measurement passes: its lower end may be below the value by the printed interval, or by
    `SLACK` if that is more, and by another `SLACK`, but not further.

    Args:
        row: its mean is compared with the paper's value minus the interval printed with it.
        budget: one of `BUDGETS`.

    Returns:
        "" if the paper has no value; otherwise `TOO_SMALL` below the full budget, whatever the result. At the full
        budget, `NO_VERDICT` with the reason if the paper's value is of something else; otherwise `REPRODUCED` or
        `MISSED`.

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


def _check(table: ResultTable) -> None:
    """Require figures that agree. Raises ValueError."""
    if fault := next(_faults(table), ""):
        raise ValueError(fault)


def _faults(table: ResultTable) -> Iterator[str]:
    """Intervals that miss their means, rows of one name, comparisons of rows that are not there or of other tasks."""
    tasks: dict[tuple[str, str], int] = {}
    for place, row in enumerate(table.rows):
        yield from _estimate_faults(f"rows[{place}].estimate", row.estimate, 0.0)
        if len(set(row.seeds)) < len(row.seeds):
            yield f"rows[{place}].seeds: expected each seed once, got {str(row.seeds)[:40]}"
        if (row.setting, row.name) in tasks:
            yield f"rows[{place}].name: {row.name[:40]!r} is there twice in {row.setting[:40]!r}: name each row apart"
        if row.setting not in table.episodes:
            yield f"episodes: expected the hash of the test tasks of {row.setting[:40]!r}, got none"
        tasks[row.setting, row.name] = row.tasks
    for place, comparison in enumerate(table.comparisons):
        yield from _estimate_faults(f"comparisons[{place}].difference", comparison.difference, -1.0)
        yield from (f"comparisons[{place}]{fault}" for fault in _comparison_faults(comparison, tasks))


def _estimate_faults(where: str, found: Estimate, least: float) -> Iterator[str]:
    bounds = {"mean": (least, 1.0), "low": (least, found.mean), "high": (found.mean, 1.0)}
    for name, (low, high) in bounds.items():
        if not low <= (value := getattr(found, name)) <= high:
            yield f"{where}.{name}: expected a number from {low:g} to {high:g}, got {value!r}"


def _comparison_faults(comparison: Comparison, tasks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Args: ``tasks``: of each (setting, row), how many test tasks it is of."""
    setting = comparison.setting
    for side, name in (("first", comparison.first), ("second", comparison.second)):
        if (setting, name) not in tasks:
            known = [own for of, own in tasks if of == setting]
            yield f".{side}: no row is called {name[:40]!r} in {setting[:40]!r}; {nearest(name[:40], known)}"
    first, second = (tasks[setting, name] for name in (comparison.first, comparison.second))
    if first != second:
        yield f": expected two rows on the same tasks, got {first} and {second}"


TABLE = Schema(
    ResultTable, DataError, "give a table.json that reproduce wrote, or reproduce the table anew", (FORMAT, VERSION),
    limit=2**24, check=_check,
)  # fmt: skip
