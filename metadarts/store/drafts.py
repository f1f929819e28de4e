"""Hidden folders in which a result is made beside its place, to be moved there whole."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

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
    try:
        with FileLock(folder / LOCK):
            yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:LETTERS]}."


def _clear(path: Path) -> None:
    for left in path.parent.iterdir():
        if left.name.startswith(_prefix(path)) and left.name.endswith(SUFFIX) and left.is_dir():
            with suppress(OSError, Timeout):
                if time.time() - left.stat().st_mtime > YOUNG_S:
                    with FileLock(left / LOCK, timeout=0):
                        shutil.rmtree(left)
