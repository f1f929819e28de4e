"""Run a kernel over its work items on torch's own threads.

A kernel is a Numba function ``kernel(block)``; its block of 64-bit integers begins with

    0: the next free item (taken atomically)   1: how many items there are   2: the next free thread number

and goes on with the kernel's own addresses and sizes. Work items never write to the same place and each is computed by
one thread in one order, so results are the same bits for any number of threads.

torch's threads are those of its OpenMP runtime. Borrowing them, rather than keeping a pool of our own, means that
``torch.set_num_threads`` governs kernels too and that no two pools spin on the same cores.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.store.files import default_cache

FIRST = 3
"""Where a kernel's own arguments begin."""

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_LOG = logging.getLogger("metadarts.kernels")


class Kernel:
    """A kernel that compiles itself for a precision when first run in it; the machine code is kept on disk.

    Args:
        function: the kernel.
        name: for messages; "operator.step".
    """

    def __init__(self, function: Callable[[Any], None], name: str) -> None:
        self.function = function
        self.name = name
        self._addresses: dict[torch.dtype, int] = {}
        self._compiled: list[Any] = []  # owns the machine code

    def __call__(self, dtype: torch.dtype, items: int, arguments: Sequence[Tensor | int | float | None]) -> None:
        """Run over ``items`` work items; tensors are passed by address and must outlive the call."""
        values = [_word(argument) for argument in arguments]
        block = (ctypes.c_int64 * (FIRST + len(values)))(0, items, 0, *values)
        address = self._addresses.get(dtype) or self._compile(dtype)
        threads = min(items, torch.get_num_threads())
        parallel = _openmp() if threads > 1 else None
        if parallel is None:
            _ENTRY(address)(ctypes.addressof(block))
        else:
            parallel(address, ctypes.addressof(block), threads, 0)

    def _compile(self, dtype: torch.dtype) -> int:
        from numba import cfunc, types

        keep_freed_memory()
        number = {torch.float32: types.float32, torch.float64: types.float64}[dtype]
        signature, start = types.void(types.CPointer(number)), time.perf_counter()
        with _compiling():
            if dtype in self._addresses:  # by another thread, while this one waited
                return self._addresses[dtype]
            try:
                compiled = self._cached(signature)
            except Exception as error:  # a cache that cannot be written or read, in whatever way, is no reason to stop
                _LOG.warning("kernel cache unusable (%s): compiling %s without it", error, self.name)
                compiled = cfunc(signature)(self.function)
        if not compiled.cache_hits:
            seconds = time.perf_counter() - start
            _LOG.info("compiled %s for %s in %.1f s", self.name, str(dtype).removeprefix("torch."), seconds)
            _spent().append(seconds)
        self._compiled.append(compiled)
        return self._addresses.setdefault(dtype, compiled.address)

    def _cached(self, signature: Any) -> Any:
        """From the cache, or compiled into it; a damaged one is made anew. Raises what Numba and the system do."""
        from numba import cfunc

        def compiled() -> Any:
            with _cache_folder(self.function):
                return cfunc(signature, cache=True)(self.function)

        try:
            return compiled()
        except (OSError, ImportError, RecursionError, MemoryError):  # not of a damaged cache: of its place or of Python
            raise
        except Exception as error:
            _LOG.warning("kernel cache damaged (%s): made anew", str(error) or type(error).__name__)
            shutil.rmtree(_cache_place(self.function), ignore_errors=True)
            return compiled()


@functools.cache
def _spent() -> list[float]:
    """Seconds of each compilation, one list for the process."""
    return []


def compile_seconds() -> float:
    """Seconds that this process has spent on compiling kernels; what was found in the cache does not count."""
    return sum(_spent())


def _word(argument: Tensor | int | float | None) -> int:
    """64 bits: an address (0 for nothing), an integer, or the bits of a float64."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return int(struct.unpack("q", struct.pack("d", argument))[0])
    return argument or 0


def _cache_place(function: Callable[..., None]) -> Path:
    return default_cache() / "kernels" / _fingerprint(Path(function.__code__.co_filename))


@contextmanager
def _cache_folder(function: Callable[..., None]) -> Iterator[None]:
    """Numba's cache in a folder of its own for each state of the sources: it knows a kernel's file, not its pieces."""
    from numba import config

    folder = _cache_place(function)
    known = folder.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_private(folder)
    if not known:
        _LOG.warning("compiling CPU kernels of %s for this machine, once; kept in %s", _operator(function), folder)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


@functools.cache
def _compiling() -> threading.Lock:
    """Numba's cache folder is a setting of the whole process: one compilation at a time."""
    return threading.Lock()


def _require_private(folder: Path) -> None:
    """Refuse a folder that others may write to: what lies there will be run. Raises PermissionError."""
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionError(f"{folder} belongs to another user or others may write to it")


def _operator(function: Callable[..., None]) -> str:
    """The folder of a kernel's file."""
    return Path(function.__code__.co_filename).parent.name


@functools.cache
def _fingerprint(kernel: Path) -> str:
    sources = [kernel, *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


@functools.cache
def _openmp() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP runtime that torch itself uses, or None."""
    for library in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        function = ctypes.CDLL(str(library)).GOMP_parallel
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GLIBC_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
LARGEST_KEPT = 32 << 20
"""glibc's own limit for M_MMAP_THRESHOLD."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next meta-step, rather than hand it back and be given it again, zeroed.

    A meta-step frees and takes gigabytes; having each page mapped again costs up to a quarter of its time. The process
    then stays at its peak size. METADARTS_KEEP_MEMORY=0, or any of glibc's own settings (`GLIBC_SETTINGS`), leaves
    things alone.

    Returns:
        Whether it was done.
    """
    if os.environ.get("METADARTS_KEEP_MEMORY") == "0" or any(name in os.environ for name in GLIBC_SETTINGS):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, -1))  # -1: never
