"""Measurements as lines of benchmarks/results/NAME.csv: what was measured, on what, how long it took, with what.

A file is only ever added to, so that figures of earlier commits stay beside later ones.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from metadarts.core.errors import DataError
from metadarts.core.machine import commit, device_name, version
from metadarts.store.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "numba", "higher", "learn2learn", "numpy")
GPU_PACKAGES = ("triton",)
"""Besides those, in rows of a GPU."""


@dataclass(frozen=True)
class Row:
    """One measurement; see `columns` for the line it becomes.

    Args:
        what: what was measured, e.g. "W1" or "normal backward".
        sizes: as `said` writes them, "tasks=4 edges=1".
        engine: the engine, implementation or contestant.
        order: "second" or "first"; empty where there is no such thing.
        checkpoint: inner steps that were recomputed rather than stored; None where there is no such thing.
        seconds: of every repetition.
        peak_mb: the most memory held, in MB of 10^6 bytes; None where not measured.
        threads: of torch and of our kernels.
        device: "cpu" or "cuda".
        extra: columns that this benchmark has besides; the same ones in all rows of a file.
    """

    what: str
    sizes: str
    engine: str
    order: str
    checkpoint: int | None
    seconds: Sequence[float]
    peak_mb: float | None
    threads: int
    device: str = "cpu"
    extra: Mapping[str, str | int | float | None] = field(default_factory=dict)

    @property
    def percentiles(self) -> tuple[float, float, float]:
        """p20, p50 and p80 of the seconds."""
        return percentiles(self.seconds)

    def columns(self) -> dict[str, Any]:
        """Column -> value, with this machine, the packages' versions, the commit and the time (UTC)."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("seconds", "device", "extra")}
        peak, threads = given.pop("peak_mb"), given.pop("threads")
        times = {f"p{p}": f"{value:.6g}" for p, value in zip((20, 50, 80), self.percentiles, strict=True)}
        memory = {"repetitions": len(self.seconds), "peak_mb": None if peak is None else round(peak, 1)}
        return {**given, **times, **memory, **self.extra, "threads": threads, **_machine(self.device), "date": _now()}


@cache
def _machine(device: str) -> dict[str, str | None]:
    packages = PACKAGES + (GPU_PACKAGES if device == "cuda" else ())
    return {"device": device_name(device), **{name: version(name) for name in packages}, "commit": commit()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p20, p50 and p80, between neighbours where they fall between two values; of one value, itself."""
    cuts = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else list(values) * 9
    return cuts[1], cuts[4], cuts[7]


def said(**sizes: int | str) -> str:
    """Sizes in one column: "tasks=4 edges=1"."""
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def heard(sizes: str) -> dict[str, int]:
    """The inverse of `said` for whole numbers; other sizes are left out."""
    pairs = (part.split("=", 1) for part in sizes.split())
    return {name: int(value) for name, value in pairs if value.isdigit()}


def append(file: Path, rows: Sequence[Row]) -> None:
    """Add a line per row to ``file``, whole or not at all; a file that is not there is begun with a header.

    Raises:
        DataError: when the rows differ in their columns, or the file has others or a damaged line; it is left as it is.
        RunError: when the file cannot be written.
    """
    if not rows:
        return
    lines = [row.columns() for row in rows]
    header = list(lines[0])
    if other := next((line for line in lines if list(line) != header), None):
        raise DataError(f"rows for {file.name}: expected all to have columns {header}, got one with {list(other)}")
    _check(file, header)
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    if not file.exists():
        writer.writeheader()
    writer.writerows(lines)
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes() if file.exists() else b""
    write_atomically(file, before + text.getvalue().encode())


def read(file: Path) -> list[dict[str, str]]:
    """The rows of ``file``, oldest first. Raises DataError when it is not there or damaged."""
    if not file.exists():
        raise DataError(f"no measurements at {file}: expected a file that a benchmark has written; run it first")
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(
                f"{file}: row {number} has another number of fields than the header ({len(reader.fieldnames or [])}); "
                "mend or remove that line"
            )
    return rows


def _check(file: Path, header: list[str]) -> None:
    if not file.exists():
        return
    with file.open(encoding="utf-8", newline="") as stream:
        found = next(csv.reader(stream), [])
    if found != header:
        raise DataError(
            f"{file} has other columns: expected {','.join(header)}, found {','.join(found)}; "
            "write to another file, or move this one away"
        )
    if not file.read_bytes().endswith(b"\n"):
        raise DataError(f"{file} ends in the middle of a line: mend or remove that line, or write to another file")
    read(file)
