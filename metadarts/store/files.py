"""Files that are written atomically."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from metadarts.core.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and move it into place, so that no reader ever sees half a file.

    Raises RunError when it cannot be written; what stood at ``path`` still stands then.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:  # a signal may end the program here
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def make_folder(folder: Path) -> None:
    """``folder`` with its parents, where they are missing. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def require_place(path: Path) -> None:
    """Require that ``path`` can be made, without making anything: before the work whose result it is to take.

    Raises:
        RunError: where a name is too long, a parent is no folder, the nearest folder that is there takes no files, or
            a link that leads nowhere stands there, which is not ours to replace.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise cannot_write(path, error) from error
    if path.is_symlink() and not is_there(path):
        raise RunError(f"cannot write {path}: it is a link that leads nowhere; choose another place, or remove it")
    folder = path if path.is_dir() else path.parent
    while not is_there(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise RunError(f"cannot write {path}: {folder} is no folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"cannot write {path}: its folder is missing or not writable; choose another place")


def sync(path: Path) -> None:
    """Have the content of ``path`` on disk, if it exists. Raises RunError."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(path: Path, text: str) -> None:
    """Append ``text`` and a newline; a write that stops half-way is taken back. Raises RunError."""
    try:
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                _write_all(file.fileno(), text.encode() + b"\n")
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """The one sentence for every file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    advice = "free some space, or raise the limit" if full else "choose another place, or make this one writable"
    return RunError(f"cannot write {path}: {error.strerror or error}; {advice}")


def _write_all(descriptor: int, content: bytes) -> None:
    """A file-size limit lets the system write a part of ``content`` and report no error until the next write."""
    while content:
        content = content[os.write(descriptor, content) :]


def sync_folder(folder: Path) -> None:
    """Have the folder's own entries on disk, so that a renamed file survives a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_there(path: Path) -> bool:
    """Whether something is at ``path``; a name that the system cannot even look up is not."""
    try:
        return path.exists()
    except OSError:
        return False


def is_utf8(path: Path) -> bool:
    """Whether the name of ``path`` is UTF-8, which a file system need not ask for."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def default_cache() -> Path:
    """The environment variable METADARTS_CACHE, else XDG_CACHE_HOME/metadarts, else ~/.cache/metadarts."""
    if chosen := os.environ.get("METADARTS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metadarts"
