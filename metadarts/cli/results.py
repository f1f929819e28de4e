"""``metadarts results``: measured tables as one page of markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metadarts.core.errors import DataError, RunError
from metadarts.store.files import is_there

from . import common


def results(
    tables: Annotated[
        list[Path],
        typer.Argument(
            help="table.json files from `reproduce`.",
            callback=common.existing("there is no file {}; give a table.json that reproduce wrote"),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help=".md file to write; default: print the page.", callback=common.can_be_written),
    ] = None,
) -> None:
    """Print or write the page of measured tables: every row, every comparison, and a summary of the figures.

    Joins the parts of one table (`reproduce --row`, on several machines or days). Results that are in two parts must
    be equal.

    Replaces an existing --out only if this command wrote it.

    Example: metadarts results runs/fc100/table.json --out docs/results.md
    """
    from metadarts.papers.page import results_markdown
    from metadarts.papers.reproduction import joined
    from metadarts.papers.rows import ResultTable
    from metadarts.store.files import make_folder, write_atomically

    if out is not None:
        _require_ours(out)
    parts = [ResultTable.from_json(path) for path in tables]
    try:
        whole = joined(parts)
    except DataError as error:
        raise DataError(f"{error} (given: {', '.join(map(str, tables))})") from error
    text = results_markdown(whole)
    if out is None:
        common.console.page(text)
    else:
        make_folder(out.parent)
        write_atomically(out, text.encode())
        common.console.print(f"written to {out}", soft_wrap=True)


def _require_ours(path: Path) -> None:
    """Require a place for the page. Raises RunError."""
    from metadarts.papers.page import MARK

    if path.suffix != ".md":
        raise RunError(f"--out {path}: expected a name ending in .md")
    if not is_there(path):
        return
    try:
        ours = path.read_bytes().startswith(MARK.encode())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}; give --out another name") from error
    if not ours:
        raise RunError(f"{path} exists, and results did not write it: give --out another name, or remove it first")
