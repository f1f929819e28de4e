"""Hidden folders in which a result is made beside its place, to be moved there whole."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

SUFFIX, LOCK = ".partial", ".lock"
LETTERS = 50
"""Of the result's name in that of its draft: a longer one could exceed what a file system takes."""
YOUNG_S = 1.0
"""A draft of this age may not have its lock yet."""


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Where to make what is to be moved to ``path``: a name of the same end in a new folder beside it.

    The folder is removed at the end, and first what killed processes left of theirs: a lock tells these from drafts
    that others are at work on. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    folder = Path(tempfile.mkdtemp(suffix=SUFFIX, prefix=_prefix(path), dir=path.parent))
    lock = FileLock(folder / LOCK)
    try:
        with suppress(OSError, NotImplementedError):  # where files cannot be locked, nobody clears them either
            lock.acquire(timeout=0)
        yield folder / path.name
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:LETTERS]}."


def _clear(path: Path) -> None:
    """Remove drafts of ``path`` that nobody is at work on. What cannot be looked at or locked stays."""
    drawn = re.compile(f"{re.escape(_prefix(path))}[a-z0-9_]{{8}}{re.escape(SUFFIX)}")
    with suppress(OSError):
        for left in path.parent.iterdir():
            if drawn.fullmatch(left.name):
                with suppress(OSError, NotImplementedError):
                    _clear_one(left)


def _clear_one(left: Path) -> None:
    ours = not left.is_symlink() and (left / LOCK).is_file() and not (left / LOCK).is_symlink()
    if ours and time.time() - left.stat().st_mtime > YOUNG_S:
        lock = FileLock(left / LOCK)
        lock.acquire(timeout=0)  # a Timeout is an OSError
        try:
            for own in left.iterdir():
                if own.name != LOCK:
                    shutil.rmtree(own) if own.is_dir() and not own.is_symlink() else own.unlink()
        finally:
            lock.release()
        shutil.rmtree(left)
