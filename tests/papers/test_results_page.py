"""docs/results.md is what `metadarts results` makes of the committed tables, and nothing else."""

from __future__ import annotations

from pathlib import Path

from metadarts.papers.page import results_markdown
from metadarts.papers.reproduction import joined
from metadarts.papers.rows import ResultTable

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_page_is_made_of_the_committed_tables():
    files = sorted((CHECKOUT / "benchmarks" / "results" / "tables").glob("*.json"))
    assert files
    tables = [ResultTable.from_json(file.read_text(encoding="utf-8")) for file in files]
    page = (CHECKOUT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_markdown(joined(tables))
