"""README and the pages of docs/: their Python blocks run as they stand, their links lead somewhere, README is short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"extending.md"}
"""Pages whose blocks another test runs."""
WITHOUT_LINKS = {"results.md"}
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
PRINTED = {"README.md": "accuracy", "search.md": "Genotype(normal="}


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.name not in ELSEWHERE], ids=lambda p: p.name
)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page)):
        script = tmp_path / f"block{number}.py"
        script.write_text(block)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("loss ") == 2
        assert PRINTED[page.name] in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_linked_file_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert links or page.name in WITHOUT_LINKS
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 8192
    linked = set(re.findall(r"\]\(docs/([^)#/]+\.md)", text)) | {"results.md"}  # which papers.md has
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == linked
