"""What was measured, on disk: a row's accuracies by task, and those of a row that was stopped half-way."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from metadarts.core.errors import RunError
from metadarts.store.fields import Count, Digest, Fraction, Number
from metadarts.store.files import append_line, write_atomically
from metadarts.store.schema import Schema, content

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

    first: Count
    last: Count
    accuracies: list[Fraction]
    genotypes: list[str]
    seconds: Number


@dataclass(frozen=True)
class SharesOf:
    """The line before the shares."""

    of: Facts


@dataclass(frozen=True)
class MeasuredFile:
    """A `Measured` in JSON, of what, and the hash of all that."""

    of: Facts
    accuracies: list[Fraction]
    steps: Annotated[int, Meta(ge=0, le=10_000)]
    bn: str
    seconds: Number
    genotypes: list[str]
    sha256: Digest


def _check(share: Share) -> None:
    if len(share.accuracies) != share.last - share.first:
        raise ValueError("accuracies: expected one for each of its tasks")


SHARE = Schema(Share, RunError, check=_check)
SHARES_OF = Schema(SharesOf, RunError)
MEASURED = Schema(MeasuredFile, RunError, "remove it, and the row is measured again")


class Shares:
    """A row that is being measured, share by share, so that a stop loses no more than one.

    Line 1 says what is measured on what; each further line is a share. A line that a kill cut short is dropped.
    """

    def __init__(self, path: Path, of: Facts) -> None:
        self.path = path
        self.done = self._read(of)
        lines = [{"of": of}, *map(vars, self.done)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())

    def add(self, share: Share) -> None:
        """Write one share down. Raises RunError."""
        append_line(self.path, json.dumps(vars(share)))
        self.done.append(share)

    def _read(self, of: Facts) -> list[Share]:
        """The shares that are whole and follow one another; none where the file is of something else or nonsense."""
        found: list[Share] = []
        with suppress(OSError, ValueError, RunError):
            first, *lines = content(self.path).decode().splitlines(keepends=True)
            for line in lines if SHARES_OF.read(first).of == of else ():
                share = SHARE.read(line)
                if not line.endswith("\n") or share.first != (found[-1].last if found else 0):
                    break
                found.append(share)
        return found


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
    told = MEASURED.loads(path)
    found = MEASURED.convert(told, str(path))
    del told["sha256"]
    if _digest(told) != found.sha256 or len(found.accuracies) != tasks:
        raise RunError(f"{path} was changed since it was written; remove it, and the row is measured again")
    known = found.of
    if odd := [name for name in of | known if known.get(name) != of.get(name)]:
        raise RunError(
            f"{path} was measured on something else: its {odd[0]} is {str(known.get(odd[0]))[:60]!r}, expected "
            f"{str(of.get(odd[0]))[:60]!r}; give another --out, or remove it"
        )
    return Measured(np.array(found.accuracies), found.steps, found.bn, found.seconds, tuple(found.genotypes))


def _digest(body: Facts) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
