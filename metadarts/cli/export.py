"""``metadarts export``: a task as a file that anyone can run; and a check of such a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common

if TYPE_CHECKING:
    from metadarts.export import Check


def export(
    task: Annotated[
        Path | None,
        typer.Argument(
            help="Task folder from `adapt`.",
            callback=common.existing("{}: there is no task folder; give what `adapt --out` named"),
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="onnx, torch-export, safetensors or python; default: by the suffix of --out.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write (.onnx, .pt2, .safetensors, .py).", callback=common.can_be_written),
    ] = None,
    finish: Annotated[
        str | None, typer.Option(help="Network to export: supernet, inherited or retrained; default: the task's first.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Check an exported file and write nothing.",
            callback=common.existing("there is no file {}; give a file that `export` wrote"),
        ),
    ] = None,
    plugin: common.Plugins = None,
    threads: common.Threads = 0,
) -> None:
    """Export a task's network with scaling and class names, and check the file against its source.

    Example: metadarts export tasks/mine --format onnx --out model.onnx
    """
    from metadarts.core.errors import ConfigError
    from metadarts.export import verify as verify_file

    common.prepare("cpu", threads)
    if verify is not None:
        if any(option is not None for option in (task, out, format, finish)):
            raise ConfigError("--verify FILE checks a file and writes none: leave out the task and the other options")
        check, facts = verify_file(verify)
        common.console.print(
            f"{verify}: {len(facts['classes'])} classes: {', '.join(facts['classes'])}", soft_wrap=True
        )
        _say(check, "the logits that it carries")
        return
    if task is None or out is None:
        raise ConfigError("export needs a task folder and --out FILE, or --verify FILE")
    _say(export_task(task, out, format, finish, plugin or ()), "its source")


def export_task(task: Path, out: Path, format: str | None, finish: str | None, plugins: Sequence[str] = ()) -> Check:
    """Export one solution of a task folder, compared on noise and on its support images."""
    from metadarts.export import export_model
    from metadarts.fewshot.folder import load_task
    from metadarts.fewshot.task import CHUNK

    opened = load_task(task, plugins)
    real = opened.support.pixels[:CHUNK]
    with common.bar(f"export to {out}") as shown:
        shown.update(0.0, "write, open again, compare")
        source, exact = opened.source(finish), opened.source(finish, "fp64")
        check = export_model(opened.model(finish), out, format, source, real, exact)
        shown.update(1.0, "done")
    return check


def _say(check: Check, against: str) -> None:
    from metadarts.export.formats import companions

    files = " and ".join(path.name for path in companions(check.path)[1:])
    common.console.print(
        f"{check.path}{f' and {files}' if files else ''}: {check.format}, {check.size:,} bytes", soft_wrap=True
    )
    common.console.print(
        f"  on {check.images} images the largest difference from {against} is {check.difference:.1e} of an image's "
        f"largest logit, and {check.alone:.1e} between an image alone and in a batch",
        soft_wrap=True,
    )
    speed = ", ".join(f"{value:.1f} ms for {count}" for count, value in check.milliseconds.items())
    common.console.print(
        f"  latency, median, by the number of images: {speed}; threads: {check.threads}", soft_wrap=True
    )
