"""The records of a run as series over its steps, whatever of them there is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metadarts.spaces import Genotype, SearchSpace
from metadarts.store.schema import fitting_file
from metadarts.training.lenient import as_alphas, as_number, as_numbers, as_step
from metadarts.training.records import RunFolder
from metadarts.viz import Series

if TYPE_CHECKING:
    from torch import Tensor

    from metadarts.relaxations import Relaxation


KINDS = {"normal": "normal cell", "reduce": "reduction cell"}


@dataclass(frozen=True)
class AlphaRecord:
    """The alphas at one meta-step, and the cell that they stand for.

    Args:
        alphas: decision -> [rows, candidates].
        progress: how far the run was, 0 to 1; None where that is not recorded.
        stability: share of the cell's choices that were in the record before; None where that is not recorded.
    """

    step: int
    alphas: dict[str, Tensor]
    genotype: Genotype
    progress: float | None = None
    stability: float | None = None


@dataclass(frozen=True)
class Records:
    """What metrics.jsonl holds, by kind, in ascending order of the step; of several with one step, the last.

    Args:
        train: records of meta-steps.
        validate: records of validations.
        alphas: those "alphas" records that fit the space.
        misfits: how many do not.
        committed: the step at which the run was left with one cell; 0 for never.
    """

    train: list[dict[str, Any]]
    validate: list[dict[str, Any]]
    alphas: list[AlphaRecord]
    misfits: int
    committed: int = 0

    @property
    def last_step(self) -> int:
        """The last meta-step that left a record; 0 when none did."""
        steps = [record["step"] for record in (*self.train, *self.validate)]
        return max([*steps, *(record.step for record in self.alphas)], default=0)

    @property
    def compared(self) -> int:
        """Validations among which the best checkpoint was chosen."""
        return sum(record["step"] >= self.committed for record in self.validate)

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the highest validation accuracy, the latest of equals as the search keeps it; of a run
        that committed, one of its cell."""
        known = [record for record in self.validate if finite(record.get("accuracy"))]
        known = [record for record in known if record["step"] >= self.committed]
        return max(known, key=lambda record: (record["accuracy"], record["step"]), default=None)


def read_records(run: RunFolder, space: SearchSpace, relaxation: Relaxation) -> Records:
    """Read the records of ``run``. Raises RunError when metrics.jsonl is damaged before its last line."""
    from metadarts.derive import derive_genotype

    recorded = _by_step(run.records("alphas"))
    fit = [
        AlphaRecord(
            record["step"], alphas, derive_genotype(alphas, space, relaxation), _share(record.get("progress")),
            _share(record.get("stability")),
        )
        for record in recorded
        if (alphas := as_alphas(record, space))
    ]  # fmt: skip
    committed = [record["step"] for record in _by_step(run.records("commit")) if "genotype" in record]
    return Records(
        _by_step(run.records("train")), _by_step(run.records("validate")), fit, len(recorded) - len(fit),
        max(committed, default=0),
    )  # fmt: skip


def _by_step(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In ascending order of a whole-numbered step; records without one are left out."""
    by_step = {}
    for record in records:
        step = as_step(record)
        if step is not None:
            by_step[step] = record | {"step": step}
    return [by_step[step] for step in sorted(by_step)]


def finite(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    number = as_number(value)
    return number is not None and math.isfinite(number)


def _share(value: Any) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = as_number(value)
    return number if number is not None and 0.0 <= number <= 1.0 else None


def series(records: list[dict[str, Any]], name: str, *, interval: str = "", noisy: bool = False) -> Series | None:
    """The field ``name`` over the steps of ``records``; None when no record has a finite one."""
    found = [(record["step"], as_number(record.get(name)), as_number(record.get(interval))) for record in records]
    kept = [(step, value, half or 0.0) for step, value, half in found if value is not None]
    if not any(math.isfinite(value) for _, value, _ in kept):
        return None
    halves = [half for _, _, half in kept] if interval else []
    return Series([step for step, _, _ in kept], [value for _, value, _ in kept], halves, noisy)


def lists(records: list[dict[str, Any]], name: str) -> list[tuple[int, list[float]]]:
    """(step, values) of the records whose field ``name`` is a list of numbers, at least one of them finite."""
    found = [(record["step"], as_numbers(record.get(name))) for record in records]
    return [(step, values) for step, values in found if any(map(math.isfinite, values))]


def rates(records: list[dict[str, Any]]) -> dict[str, Series]:
    """The learned inner rates by name; one that is learned per inner step has one series for each."""
    points: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        learned = record.get("rates")
        for name, value in learned.items() if isinstance(learned, dict) else ():
            single = as_number(value)
            named = {name: single} if single is not None else _per_step(name, as_numbers(value))
            for label, rate in named.items():
                if rate is not None and math.isfinite(rate):
                    points.setdefault(label, []).append((record["step"], rate))
    return {name: Series([step for step, _ in found], [rate for _, rate in found]) for name, found in points.items()}


def _per_step(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}, inner step {index}": value for index, value in enumerate(values, 1)}


def read_results(run: RunFolder) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Measurements beside the run (results.json of the demo, evaluation*.json) by file name, and unreadable ones."""
    results, unreadable = [], []
    for path in [run.path / "results.json", *sorted(run.path.glob("evaluation*.json"))]:
        if path.is_file():
            facts = fitting_file(path, dict) or {}
            if finite(facts.get("accuracy")):
                results.append((path.name, facts))
            else:
                unreadable.append(path.name)
    return results, unreadable
