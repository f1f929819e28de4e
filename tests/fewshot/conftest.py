"""What these tests share: two small starts that no training made, and a task for each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from metadarts.fewshot import FewShotClassifier, Start
from metadarts.fewshot.task import Support


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    """The script beside this file; tests/ is no package, so it has no name to import it by."""
    spec = importlib.util.spec_from_file_location("api_cases", Path(__file__).with_name("cases.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start(cases) -> Start:
    """Of grey 16x16 images."""
    return cases.make_start(1)


@pytest.fixture(scope="session")
def grey(cases, start, tmp_path_factory) -> str:
    """The name of ``start``'s file."""
    return cases.save_start(start, tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="session")
def dark(cases, tmp_path_factory) -> str:
    """The name of a start of grey images that are light on dark."""
    return cases.save_start(cases.make_start(1, "dark"), tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="session")
def colour(cases, tmp_path_factory) -> str:
    """The name of a start of 16x16 images in colour."""
    return cases.save_start(cases.make_start(3), tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="session")
def support(cases, start) -> Support:
    """Three classes of 4, 2 and 5 images."""
    return cases.support_of(start, (4, 2, 5))


@pytest.fixture(scope="session")
def learnt(cases, grey) -> FewShotClassifier:
    """Fitted to three classes, to be looked at and not changed."""
    return FewShotClassifier(grey, steps=2).fit(*cases.images((4, 2, 5)))


@pytest.fixture(scope="session")
def others(cases):
    """Images of the same classes that nothing was learnt from: (images, labels)."""
    return cases.images((6, 6, 6), seed=1)
