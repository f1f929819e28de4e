"""What every test shares: one thread, the data folder, and the rule that a GPU test skips where there is no GPU."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "METADARTS_DATA_DIR"

# Triton decides at its import whether kernels are compiled or interpreted: those tests have a process of their own.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One thread: tests work on tiny tensors, on which two threads that share busy cores wait for each other."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of benchmark data sets: $METADARTS_DATA_DIR, else shared/data beside the checkout; skips without."""
    folder = Path(os.environ.get(DATA_VARIABLE) or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no benchmark data at {folder}; set {DATA_VARIABLE} to their folder")
    return folder


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to CI what `sampled` says; skip the tests marked gpu where torch sees no CUDA device."""
    _leave_cases_to_ci(items)
    waiting = [item for item in items if item.get_closest_marker("gpu")]
    if waiting and not _cuda_available():
        reason = "needs a CUDA device: torch.cuda.is_available() is False"
        for item in waiting:
            item.add_marker(pytest.mark.skip(reason=reason))


def _leave_cases_to_ci(items: list[pytest.Item]) -> None:
    """Mark all but one of every n cases of a test marked sampled(n) as thorough, chosen by their names' hashes."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        marker = found[0].get_closest_marker("sampled")
        assert marker is not None
        found.sort(key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
        for item in found[-(-len(found) // marker.args[0]) :]:
            item.add_marker(pytest.mark.thorough)


def _cuda_available() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured with record_property: figures that are reported and not asserted."""
    reports = terminalreporter.getreports("passed")
    figures = [f"{report.nodeid}: {name} = {value}" for report in reports for name, value in report.user_properties]
    if figures:
        terminalreporter.write_sep("-", "measured, not asserted")
        terminalreporter.write_line("\n".join(figures))
