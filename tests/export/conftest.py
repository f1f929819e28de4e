"""What the tests of shipped models share: a small model, written once in every format."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from metadarts.export import SUFFIXES, ShippedModel
from metadarts.export.formats import write
from metadarts.networks import supernet
from metadarts.spaces import darts


def load(name: str) -> ModuleType:
    """A script beside this file; tests/ is no package, so it has no name to import it by."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    return load("cases")


@pytest.fixture(scope="session")
def own() -> ModuleType:
    return load("own")


@pytest.fixture(scope="session")
def case(cases):
    """A supernet of one node: every operation at both strides, and quick to export."""
    return cases.make_case(supernet(darts(nodes=1), cases.spec()), 16, invert=True, mean=0.4, std=0.3)


@pytest.fixture(scope="session")
def model(cases, case) -> ShippedModel:
    return cases.ship(case, invert=True, mean=0.4, std=0.3)


@pytest.fixture(scope="session")
def shipped(model, tmp_path_factory) -> dict[str, Path]:
    """Format -> a file of ``model``, to be read and not written."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    paths = {}
    for format, suffix in SUFFIXES.items():
        paths[format] = tmp_path_factory.mktemp(format) / f"model{suffix}"
        write(model, paths[format])
    return paths
