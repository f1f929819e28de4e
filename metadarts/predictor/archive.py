"""The archive of task records: adapted tasks in one SQLite file, to which several processes append at once.

When `Archive.add` returns, its records are on disk: all of them are written in one transaction, and the call returns
after the commit (synchronous=FULL; a write-ahead log, so that readers do not wait). A killed process leaves complete
records or none. Records are never changed. The name of a record is the hash of its content, so a record that is added
twice, or is in two merged archives, is stored once.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from metadarts.core.errors import DataError, MetadartsError
from metadarts.spaces import SearchSpace

from .archive_rows import Row, decode, encode, read_space, space_text
from .task_record import Origin, TaskRecord

APPLICATION = int.from_bytes(b"mdar", "big")
"""SQLite's application_id of our files."""
VERSION = 1
WAIT = 60.0
"""Seconds to wait for another process's transaction."""
TABLE = """
CREATE TABLE experience (
    id TEXT NOT NULL PRIMARY KEY,
    origin_sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    split TEXT NOT NULL,
    origin TEXT NOT NULL,
    space TEXT NOT NULL,
    alphas BLOB NOT NULL,
    genotype TEXT NOT NULL,
    accuracy_before REAL NOT NULL,
    accuracy_after REAL NOT NULL,
    role TEXT NOT NULL,
    seed INTEGER NOT NULL,
    run TEXT NOT NULL,
    settings TEXT NOT NULL
)
"""
INDEX = "CREATE INDEX by_task ON experience (origin_sha256, id)"
SCHEMA = {("table", TABLE.strip()), ("index", INDEX)}
COLUMNS = ", ".join(Row._fields)
ORDER = "ORDER BY origin_sha256, id"
BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
FOREIGN = ("SQLITE_NOTADB",)
DAMAGED = ("SQLITE_CORRUPT",)
FULL = ("SQLITE_FULL", "SQLITE_IOERR")
CLOSED = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")


@dataclass(frozen=True)
class Selection:
    """A selection of records; None matches any.

    Args:
        role: "adapted" or "trained".
        kind: of the origin.
        source: name of the data.
        split: of the data.
        space: search space of the architectures.
        run: the adapted checkpoint.
    """

    role: str | None = None
    kind: str | None = None
    source: str | None = None
    split: str | None = None
    space: SearchSpace | None = None
    run: str | None = None

    @property
    def where(self) -> tuple[str, list[str]]:
        """The condition in SQL and its values; no user input is part of its text."""
        given = {
            "role": self.role,
            "kind": self.kind,
            "source": self.source,
            "split": self.split,
            "space": None if self.space is None else space_text(self.space),
            "run": self.run,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        if not chosen:
            return "", []
        return "WHERE " + " AND ".join(f"{name} = ?" for name in chosen), list(chosen.values())


EVERYTHING = Selection()


@dataclass(frozen=True)
class Group:
    """Records alike in the first six fields, as `Archive.groups` counts them.

    Args:
        records: how many.
        tasks: how many different tasks among them.
        genotypes: how many different architectures.
        before: mean accuracy before the first step.
        after: mean accuracy after the last.
    """

    source: str
    split: str
    kind: str
    space: SearchSpace
    role: str
    run: str
    records: int
    tasks: int
    genotypes: int
    before: float
    after: float


class Archive:
    """An open archive; use it in a ``with`` statement, or `close` it. One per process and thread.

    Iteration gives every `TaskRecord`, task by task, in an order that depends only on the content.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, writable: bool) -> None:
        self.path, self._connection, self._writable = path, connection, writable

    @classmethod
    def open(cls, path: Path, write: bool = False) -> Archive:
        """Open an archive; with ``write``, open it for adding and create it if it is missing.

        Raises:
            DataError: when it is missing, is another file, has a later version, is damaged, or cannot be written.
        """
        try:
            there = path.is_file()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot open {path} ({error}); give another place") from error
        if not there and not write:
            raise DataError(f"there is no archive {path}; `metadarts archive add` makes one")
        with _explained(path):
            connection = _connected(path, write)
            try:
                _require_ours(path, connection, write)
                if write:
                    _ask_for_log(connection)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, write)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, records: Iterable[TaskRecord]) -> list[str]:
        """Add all records or, if one is rejected or the process ends, none; returns when they are on disk.

        Returns:
            Their names, in order; an existing record keeps its name and is not written again.

        Raises:
            DataError: for a record that `archive_rows.check` rejects, or when it cannot be written.
        """
        rows = [encode(record) for record in records]
        self._insert(rows)
        return [row.id for row in rows]

    def merge(self, other: Archive) -> int:
        """Add the records of ``other``: all of them or, if one is damaged, none.

        Returns:
            The number of new records.
        """
        return self._insert([encode(record) for record in other])

    def _insert(self, rows: list[Row]) -> int:
        if not self._writable:
            raise DataError(f"{self.path} was opened to be read: open it with write=True to add to it")
        marks = ", ".join("?" * len(Row._fields))
        statement = f"INSERT INTO experience ({COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"
        before = self._connection.total_changes
        if rows:
            with _explained(self.path), _transaction(self._connection):
                self._connection.executemany(statement, rows)
        return self._connection.total_changes - before

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[TaskRecord]:
        return self.records()

    def count(self, chosen: Selection = EVERYTHING) -> int:
        """The number of records."""
        where, values = chosen.where
        with _explained(self.path):
            (number,) = self._connection.execute(f"SELECT count(*) FROM experience {where}", values).fetchone()
        return int(number)

    def records(self, chosen: Selection = EVERYTHING) -> Iterator[TaskRecord]:
        """Records in the order of their tasks' hashes and their own. Raises DataError at a damaged one."""
        return map(decode, self.rows(chosen))

    def rows(self, chosen: Selection = EVERYTHING) -> Iterator[Row]:
        """The stored rows, unchecked."""
        where, values = chosen.where
        with _explained(self.path):
            for found in self._connection.execute(f"SELECT {COLUMNS} FROM experience {where} {ORDER}", values):
                yield Row(*found)

    def tasks(self, chosen: Selection = EVERYTHING) -> Iterator[tuple[Origin, tuple[TaskRecord, ...]]]:
        """Each task with its records, in the same order. Raises DataError at a damaged record."""
        for _, group in itertools.groupby(self.rows(chosen), lambda row: row.origin_sha256):
            found = tuple(map(decode, group))
            yield found[0].origin, found

    def known_tasks(self, role: str, run: str, settings: str) -> set[str]:
        """`Origin.sha256` of the tasks of ``run`` that are recorded under these settings, see `json_text`."""
        statement = "SELECT DISTINCT origin_sha256 FROM experience WHERE role = ? AND run = ? AND settings = ?"
        with _explained(self.path):
            return {task for (task,) in self._connection.execute(statement, (role, run, settings))}

    def groups(self) -> list[Group]:
        """Numbers of records by data, space, role and run."""
        names = "source, split, kind, space, role, run"
        counted = (
            "count(*), count(DISTINCT origin_sha256), count(DISTINCT genotype), avg(accuracy_before), "
            "avg(accuracy_after)"
        )
        with _explained(self.path):
            found = self._connection.execute(f"SELECT {names}, {counted} FROM experience GROUP BY {names}").fetchall()
        try:
            return [_group(*row) for row in found]
        except (MetadartsError, TypeError) as error:
            raise DataError(f"{self.path} is damaged: {error}; see `metadarts archive verify`") from error

    @property
    def sha256(self) -> str:
        """Hash of the whole content: equal for archives with equal records, whatever their order."""
        return self.digest()

    def digest(self, chosen: Selection = EVERYTHING) -> str:
        """`sha256` of a part: over the sorted names of its records."""
        where, values = chosen.where
        digest = hashlib.sha256(b"metadarts archive 1")
        with _explained(self.path):
            for (name,) in self._connection.execute(f"SELECT id FROM experience {where} ORDER BY id", values):
                digest.update(str(name).encode())
        return digest.hexdigest()

    def integrity_faults(self) -> list[str]:
        """Faults that SQLite itself finds in the file; empty if there are none."""
        try:
            found = [str(line) for (line,) in self._connection.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            return [str(error)]
        return [line for line in found if line != "ok"]


def _group(source: Any, split: Any, kind: Any, space: Any, role: Any, run: Any, *figures: Any) -> Group:
    """Raises TypeError where a column does not hold what it is for: SQLite would keep anything in any."""
    for value in (source, split, kind, space, role, run):
        if not isinstance(value, str):
            raise TypeError(f"a record with a {type(value).__name__} in place of text")
    if not all(isinstance(figure, int | float) for figure in figures):
        raise TypeError("a record with no number in place of an accuracy")
    return Group(source, split, kind, read_space(space), role, run, *figures)


def _connected(path: Path, write: bool) -> sqlite3.Connection:
    mode = "rwc" if write else "rw"  # a reader that may not write leaves the log's two files behind
    path = path.resolve()  # the log lies beside the file itself, not beside a link to it
    if not write and path.exists() and not os.access(path.parent, os.W_OK):
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise DataError(f"{path} has a log, {log.name}, of records not merged yet: copy both to a writable folder")
        # SQLite would make the log's files even to read. Who may write elsewhere must not do so meanwhile.
        mode = "ro&immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", timeout=WAIT, isolation_level=None, uri=True
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
        connection.execute("PRAGMA trusted_schema = OFF")  # the file may come from anyone
    except BaseException:
        connection.close()
        raise
    return connection


def _require_ours(path: Path, connection: sqlite3.Connection, write: bool) -> None:
    """Require an archive of our version; an empty file becomes one when it is opened to be written."""
    if _is_empty(connection) and write:
        with _transaction(connection):
            if _is_empty(connection):  # another process may have been quicker
                connection.execute(TABLE)
                connection.execute(INDEX)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
    if _pragma(connection, "application_id") != APPLICATION:
        raise DataError(
            f"{path} is not an archive of task records: give what `metadarts archive add` made, or a new name"
        )
    version = _pragma(connection, "user_version")
    if version != VERSION:
        raise DataError(
            f"{path} is an archive of version {version}, this metadarts reads version {VERSION}: "
            f"{'use a later metadarts' if version > VERSION else 'it was damaged, restore it'}"
        )
    found = [name for _, name, *_ in connection.execute("PRAGMA table_info(experience)")]
    if found != list(Row._fields):
        raise DataError(f"{path} is damaged: its table has the columns {', '.join(found) or 'none'}; restore it")
    strange = set(connection.execute("SELECT type, sql FROM sqlite_master WHERE sql NOT NULL")) ^ SCHEMA
    if strange:  # a trigger or a view would run with our statements
        raise DataError(f"{path} does not have an archive's schema ({min(strange)[0]}); it is not opened, restore it")


def _is_empty(connection: sqlite3.Connection) -> bool:
    (entries,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not entries and not _pragma(connection, "application_id") and not _pragma(connection, "user_version")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _ask_for_log(connection: sqlite3.Connection) -> None:
    """Have the write-ahead log, where the file system can. SQLite does not wait by itself for the one that switches."""
    end = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(BUSY) or time.monotonic() > end:
                raise
        time.sleep(0.01)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside are committed together; on an error none is."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # an error of the disk has rolled back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite raises, as a DataError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        advice = next(
            (advice for signs, advice in ADVICE.items() if name.startswith(signs)), "see `metadarts archive verify`"
        )
        raise DataError(f"archive {path}: {error}; {advice}") from error


ADVICE = {
    BUSY: "another process is writing: wait for it, or stop it",
    FOREIGN: "it is not an archive of task records: give what `metadarts archive add` made, or a new name",
    DAMAGED: "it is damaged: restore it, or merge what is whole into a new one",
    FULL: "free some space, or mend the disk; what was acknowledged before is kept",
    CLOSED: "its folder must be there, and both must be readable and writable",
}
