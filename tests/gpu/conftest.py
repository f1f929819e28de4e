"""Every test in this folder is a GPU test: it carries the marker `gpu` by living here.

`make gpu` runs them with the Python of the machine: they need pytest, torch, triton and numpy alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# So that cuBLAS sums in one order on every stream; read when it is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark before `-m gpu` selects and before tests/conftest.py skips."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> str:
    """The device under test."""
    return "cuda"


@pytest.fixture(autouse=True)
def true_float32():
    """Float32 means float32 while a test compares numbers: TensorFloat-32 keeps 10 of its 23 mantissa bits."""
    import torch

    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
