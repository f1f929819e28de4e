"""``metadarts report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common


def report(
    run: Annotated[Path, typer.Argument(help="Run folder; the search may still be running.", callback=common.is_run)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to create; must not exist; default: RUN/report.html.", callback=common.can_be_written
        ),
    ] = None,
    plugin: common.Plugins = None,
) -> None:
    """Write one self-contained HTML page: curves, alphas over time, cells over the run, settings, notes on limits.

    Example: metadarts report runs/demo
    """
    from metadarts.report import write_report
    from metadarts.training import open_run

    path = write_report(open_run(run, plugins=plugin or ()), out)
    common.console.print(f"written to {path}", soft_wrap=True)
