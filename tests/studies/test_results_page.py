"""docs/results.md is what `metadarts results` makes of the committed tables, and nothing else."""

from __future__ import annotations

from pathlib import Path

from metadarts.studies.page import results_markdown
from metadarts.studies.reproduction import joined
from metadarts.studies.rows import Table

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_page_is_made_of_the_committed_tables():
    files = sorted((CHECKOUT / "benchmarks" / "results" / "tables").glob("*.json"))
    assert files
    tables = [Table.from_json(file.read_text(encoding="utf-8")) for file in files]
    page = (CHECKOUT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_markdown(joined(tables))
