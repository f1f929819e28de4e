"""Running a kernel: on torch's own threads or the caller's, from the cache or without one, and with memory kept."""

from __future__ import annotations

import logging
import platform

import pytest
import torch

from metadarts.ops.vector import launch
from metadarts.ops.vector.launch import FIRST, Kernel

pytest.importorskip("numba", reason="Numba is not installed")

import numba

from metadarts.ops.vector.lanes import argument, pointer, put_number, take_a_number

GUARD = -77.0


def _mark(block):
    """Write 1 at the number of each thread that comes by: every one takes a number, whether or not items are left."""
    put_number(pointer(block, FIRST), take_a_number(block, 2), 1.0)


def _echo(block):
    """Write down the arguments after the first: the item count, and an integer."""
    put_number(pointer(block, FIRST), 0, float(argument(block, 1)))
    put_number(pointer(block, FIRST), 1, float(argument(block, FIRST + 1)))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own for each test."""
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def marks(items: int) -> list[float]:
    """Which thread numbers a kernel of ``items`` items gives out."""
    out = torch.zeros(4, dtype=torch.float64)
    Kernel(_mark, "test.mark")(torch.float64, items, [out])
    return out.tolist()


@pytest.mark.skipif(platform.system() != "Linux", reason="torch brings libgomp along only on Linux")
@pytest.mark.usefixtures("two_threads")
def test_torchs_own_openmp_is_found_and_lends_as_many_threads_as_torch_uses():
    assert launch._openmp() is not None
    assert marks(items=5) == [1.0, 1.0, 0.0, 0.0]
    assert marks(items=1) == [1.0, 0.0, 0.0, 0.0]
    torch.set_num_threads(1)
    assert marks(items=5) == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.usefixtures("two_threads")
def test_without_openmp_a_kernel_runs_in_the_calling_thread(monkeypatch):
    monkeypatch.setattr(launch, "_openmp", lambda: None)
    assert marks(items=5) == [1.0, 0.0, 0.0, 0.0]


def test_a_torch_without_libgomp_has_no_entry(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert launch._openmp.__wrapped__() is None


def test_what_is_passed_arrives():
    out = torch.full((3,), GUARD, dtype=torch.float32)
    Kernel(_echo, "test.echo")(torch.float32, 7, [out, -12])
    assert out.tolist() == [7.0, -12.0, GUARD]


def test_the_second_process_finds_what_the_first_compiled(cache, caplog):
    """Two Kernel objects stand for two processes: neither knows the other's machine code."""
    caplog.set_level(logging.INFO, logger="metadarts.kernels")
    before = launch.compile_seconds()
    marks(items=1)
    spent = launch.compile_seconds()
    assert spent > before
    (folder,) = (cache / "kernels").iterdir()
    said = [record.getMessage().split(" in ")[0] for record in caplog.records]
    assert said == ["compiling CPU kernels of ops for this machine, once; kept", "compiled test.mark for float64"]
    assert list(folder.rglob("*.nbi"))
    assert folder.stat().st_mode & 0o077 == 0  # nobody else may put code there
    marks(items=1)
    assert launch.compile_seconds() == spent
    assert len(caplog.records) == 2


def test_a_cache_that_cannot_be_written_stops_no_kernel(cache, caplog):
    cache.write_text("a file where a folder should be")
    assert marks(items=1) == [1.0, 0.0, 0.0, 0.0]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[-1].startswith("kernel cache unusable (")
    assert said[-1].endswith("without it")


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda _: b"x" * 99]
)
def test_a_damaged_cache_is_made_anew(cache, caplog, suffix, damage):
    marks(items=1)
    for path in (cache / "kernels").rglob(f"*.{suffix}"):
        path.write_bytes(damage(path.read_bytes()))
    assert marks(items=1) == [1.0, 0.0, 0.0, 0.0]
    spent = launch.compile_seconds()
    assert marks(items=1) == [1.0, 0.0, 0.0, 0.0]
    assert launch.compile_seconds() == spent, "found in the cache again"
    assert "without it" not in caplog.text


def test_numbas_own_cache_folder_is_left_as_it_was():
    before = numba.config.CACHE_DIR
    marks(items=1)
    assert numba.config.CACHE_DIR == before


def test_a_change_in_any_source_is_another_cache(monkeypatch, tmp_path):
    """Numba looks only at the file of the kernel itself, not at the pieces that it is put together from."""
    vector, kernel = tmp_path / "vector", tmp_path / "cpu.py"
    vector.mkdir()
    for source in (vector / "launch.py", vector / "pieces.py", kernel):
        source.write_text("one")
    monkeypatch.setattr(launch, "__file__", str(vector / "launch.py"))
    fingerprint = launch._fingerprint.__wrapped__
    seen = [fingerprint(kernel)]
    assert fingerprint(kernel) == seen[0]
    for source in (kernel, vector / "pieces.py", vector / "launch.py"):
        source.write_text("two")
        seen.append(fingerprint(kernel))
    (vector / "new.py").write_text("")
    (vector / "new.py").write_text("three")
    seen.append(fingerprint(kernel))
    assert len(set(seen)) == 5


@pytest.fixture
def settings(monkeypatch):
    """What was said to glibc's mallopt, which is not really told."""
    said = []

    class Libc:
        @staticmethod
        def mallopt(*given):
            said.append(given)
            return 1

    monkeypatch.setattr(launch.ctypes, "CDLL", lambda _: Libc)
    monkeypatch.setattr(launch.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("METADARTS_KEEP_MEMORY", raising=False)
    for name in launch.GLIBC_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return said


def test_freed_memory_is_kept(settings):
    assert launch.keep_freed_memory.__wrapped__()
    assert settings == [(-3, 32 << 20), (-1, -1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("METADARTS_KEEP_MEMORY", "0"), *((name, "1") for name in launch.GLIBC_SETTINGS)],
)
def test_freed_memory_is_let_go_where_the_user_says_so(settings, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not launch.keep_freed_memory.__wrapped__()
    assert settings == []


def test_another_c_library_is_left_alone(settings, monkeypatch):
    monkeypatch.setattr(launch.platform, "libc_ver", lambda: ("", ""))
    assert not launch.keep_freed_memory.__wrapped__()
    assert settings == []
