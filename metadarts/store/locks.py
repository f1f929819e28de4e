"""Locks of folders for one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metadarts.core.errors import RunError

from .files import cannot_write


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file at ``path``, whose folder is made when missing; the system lets go when the process dies.

    Raises RunError: ``busy`` when another process holds it, or why it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(busy) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()
