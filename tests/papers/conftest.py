"""What tests of reproductions share."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from metadarts.training import RunFolder

REPRODUCTION = "metadarts.papers.reproduction"
RUNNER, TRAININGS = (importlib.import_module(f"{REPRODUCTION}.{name}") for name in ("runner", "trainings"))


@pytest.fixture
def counted(monkeypatch) -> dict[str, list[str]]:
    """What is trained, and what is measured, from now on."""
    told: dict[str, list[str]] = {"search": [], "measure": []}
    search, measure = TRAININGS.search, RUNNER.measure

    def searched(experiment: Any, folder: RunFolder, *rest: Any) -> Any:
        told["search"].append(folder.path.name)
        return search(experiment, folder, *rest)

    def measured(row: Any, *rest: Any) -> Any:
        told["measure"].append(row.name)
        return measure(row, *rest)

    monkeypatch.setattr(TRAININGS, "search", searched)
    monkeypatch.setattr(RUNNER, "measure", measured)
    return told
