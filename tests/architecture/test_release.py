"""The files beside the code say the same as the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import metadarts

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))


def test_citation_names_this_release(project, citation):
    assert citation["version"] == metadarts.__version__
    assert citation["license"] == project["license"]
    assert citation["title"].startswith(project["name"])


def test_changelog_has_an_entry_for_this_release():
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{metadarts.__version__}]" in text


def test_dependencies_have_floors_and_no_ceilings(project):
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (requirement for group in groups for requirement in group):
        specifier = requirement.partition(";")[0]
        assert re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+\s*", specifier), requirement


def test_licence_is_complete():
    text = (CHECKOUT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert all(f"   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
    assert "Copyright The metadarts authors" in text
