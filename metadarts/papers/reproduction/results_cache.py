"""What was measured, on disk: a row's accuracies by task, and those of a row that was stopped half-way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import RunError
from metadarts.store.described import number, read_json, whole
from metadarts.store.files import append_line, write_atomically

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
Facts = dict[str, Any]
"""What was measured on what; a file of something else is not taken for it."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What one row of one seed came to.

    Args:
        accuracies: [T] query accuracies, 0 to 1, in the order of the episodes.
        steps: inner steps of the supernet or the network; a cell of protocol B takes as many again.
        bn: batch-norm policy; empty where there is no network.
        seconds: of wall time.
        genotypes: [T] the tasks' own cells, where cells were derived.
    """

    accuracies: NDArray[np.float64]
    steps: int
    bn: str
    seconds: float
    genotypes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """A row's tasks ``first`` to ``last`` (exclusive)."""

    first: int
    last: int
    accuracies: list[float]
    genotypes: list[str]
    seconds: float


class Shares:
    """A row that is being measured, share by share, so that a stop loses no more than one.

    Line 1 says what is measured on what; each further line is a share. A line that a kill cut short is dropped.
    """

    def __init__(self, path: Path, of: Facts) -> None:
        self.path = path
        lines = self._read(of)
        self.done = [_share(line) for line in lines[1:]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in lines or [{"of": of}]).encode())

    def add(self, share: Share) -> None:
        """Write one share down. Raises RunError."""
        append_line(self.path, json.dumps(vars(share)))
        self.done.append(share)

    def _read(self, of: Facts) -> list[Any]:
        """The lines that fit, the first included; none where the file is of something else or begins with nonsense."""
        try:
            texts = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if read_json(texts[0]) != {"of": of}:
                return []
        except UNREADABLE:
            return []
        kept: list[Any] = [{"of": of}]
        for text in texts[1:]:
            try:
                line = read_json(text)
                share = _share(line)
            except UNREADABLE:
                break
            if not text.endswith("\n") or share.first != (_share(kept[-1]).last if len(kept) > 1 else 0):
                break
            kept.append(line)
        return kept


def _share(line: Any) -> Share:
    """Raises one of `UNREADABLE`."""
    first, last = whole(line["first"], 0, 10**9), whole(line["last"], 1, 10**9)
    accuracies, genotypes = [number(value) for value in line["accuracies"]], [str(text) for text in line["genotypes"]]
    if len(accuracies) != last - first or not all(0 <= value <= 1 for value in accuracies):
        raise ValueError("a share of other tasks")
    return Share(first, last, accuracies, genotypes, number(line["seconds"]))


def save_measured(path: Path, measured: Measured, of: Facts) -> None:
    """Write what `load_measured` reads. Raises RunError."""
    body = {
        "of": of,
        "accuracies": measured.accuracies.tolist(),
        "steps": measured.steps,
        "bn": measured.bn,
        "seconds": measured.seconds,
        "genotypes": list(measured.genotypes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(body | {"sha256": _digest(body)}) + "\n").encode())


def load_measured(path: Path, of: Facts, tasks: int) -> Measured | None:
    """What was measured already; None where it was not. Raises RunError when the file is of something else."""
    if not path.exists():
        return None
    try:
        told = read_json(path.read_text(encoding="utf-8"))
        vouched, known = told.pop("sha256"), dict(told["of"])
        accuracies = np.array([number(value) for value in told["accuracies"]])
        measured = Measured(
            accuracies,
            whole(told["steps"], 0, 10_000),
            str(told["bn"]),
            number(told["seconds"]),
            tuple(map(str, told["genotypes"])),
        )
    except UNREADABLE as error:
        raise RunError(f"{path} cannot be read ({error}); remove it, and the row is measured again") from error
    if _digest(told) != vouched or len(accuracies) != tasks or not ((accuracies >= 0) & (accuracies <= 1)).all():
        raise RunError(f"{path} was changed since it was written; remove it, and the row is measured again")
    if odd := [name for name in of | known if known.get(name) != of.get(name)]:
        raise RunError(
            f"{path} was measured on something else: its {odd[0]} is {str(known.get(odd[0]))[:60]!r}, expected "
            f"{str(of.get(odd[0]))[:60]!r}; give another --out, or remove it"
        )
    return measured


def _digest(body: Facts) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
