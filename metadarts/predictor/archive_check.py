"""Whether an archive is what it says: every record whole and valid, every episode to be built again from its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metadarts.core.errors import DataError, MetadartsError
from metadarts.core.progress import Watch, tell
from metadarts.tasks import Source

from .archive import Archive, Selection
from .archive_rows import Row, check, decode
from .rebuild import read_episode, require_rows
from .task_record import EPISODE, TaskRecord

OpenSource = Callable[["Data"], Source]


@dataclass(frozen=True)
class Data:
    """Which data episodes are of, as far as their records say.

    Args:
        source: the name of the `Source`.
        opened: the name it was opened by, a key of `metadarts.tasks.SOURCES`; the source's where that is not recorded.
        size: side in pixels that was asked for, 0 for the source's own.
        channels: that were asked for, 0 for the source's own.
    """

    source: str
    opened: str
    size: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Findings:
    """What `check_records` or `check_origins` found.

    Args:
        checked: how many records, or tasks.
        faults: one line each.
        unchecked: tasks that no source is opened for, such as a person's own images.
    """

    checked: int
    faults: tuple[str, ...]
    unchecked: int = 0


def check_records(archive: Archive, progress: Watch | None = None) -> Findings:
    """SQLite's own check; then of every record its name, its form and that its parts fit each other."""
    faults = [f"SQLite: {fault}" for fault in archive.integrity_faults()]
    checked = 0
    try:
        total = len(archive)
        for row in archive.rows():
            faults += _faults(row)
            checked += 1
            tell(progress, checked, total)
    except DataError as error:  # SQLite cannot go on reading
        faults.append(str(error))
    return Findings(checked, tuple(faults))


def _faults(row: Row) -> list[str]:
    try:
        record = decode(row)
    except DataError as error:
        return [str(error)]
    try:
        check(record)
    except MetadartsError as error:
        return [f"record {row.id[:12]}: {error}"]
    return []


def check_origins(archive: Archive, open_source: OpenSource, progress: Watch | None = None) -> Findings:
    """Whether every episode can be built again: its data hash to what was recorded, its rows are of its classes.

    Args:
        open_source: opens what a `Data` names; raises MetadartsError where it cannot. Called once for each.
    """
    origins = {
        record.origin.sha256: (data_of(record), record.origin) for record in archive.records(Selection(kind=EPISODE))
    }
    everyone = sum(1 for _ in archive.tasks())
    faults: list[str] = []
    done = 0
    for data in sorted({data for data, _ in origins.values()}, key=repr):
        own = [origin for of, origin in origins.values() if of == data]
        try:
            source = open_source(data)
        except MetadartsError as error:
            faults.append(f"{len(own)} tasks of {data.source} cannot be built: {error}")
            continue
        for origin in own:
            try:
                require_rows(read_episode(origin), source)
            except MetadartsError as error:
                faults.append(f"task {origin.sha256[:12]}: {error}")
            done += 1
            tell(progress, done, len(origins))
    return Findings(done, tuple(faults), everyone - len(origins))


def data_of(record: TaskRecord) -> Data:
    """The data of an episode, as far as its record says."""
    name = str(record.origin.facts.get("source"))
    told: Any = record.settings.get("data")
    known = told if isinstance(told, dict) else {}
    size, channels = known.get("size"), known.get("channels")
    return Data(
        name,
        str(known.get("source") or name),
        size if type(size) is int else 0,
        channels if type(channels) is int else 0,
    )
