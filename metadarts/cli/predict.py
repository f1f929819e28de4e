"""``metadarts predict``: classify images with a task folder or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common

if TYPE_CHECKING:
    from metadarts.export import Opened

AT_ONCE = 256


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="Task folder from `adapt`, or a file from `export`.",
            callback=common.existing("there is no file {}; give a file that `export` wrote, or a task folder"),
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(help="Images, or folders of images.", callback=common.existing("there is no image {}")),
    ],
    finish: Annotated[
        str | None, typer.Option(help="Network of a task folder: supernet, inherited or retrained; default: its first.")
    ] = None,
    plugin: common.Plugins = None,
    device: common.Device = "cpu",
    threads: common.Threads = 0,
) -> None:
    """Print the most likely class of each image, and the accuracy if the image folders have the names of the classes.

    Example: metadarts predict model.onnx photo.jpg
    """
    import torch

    from metadarts.fewshot.input_spec import to_pixels

    common.prepare(device, threads)
    opened = _open(model, finish, device, plugin or ())
    files = [file for path in images for file in _files(path)]
    classes, form = opened.facts["classes"], opened.facts["image"]
    right = known = 0
    for first in range(0, len(files), AT_ONCE):
        part = files[first : first + AT_ONCE]
        pixels, _ = to_pixels(part, form["channels"], form["height"])
        shares = opened.logits(torch.from_numpy(pixels)).softmax(1)
        for file, share, place in zip(part, *(found.tolist() for found in shares.max(1)), strict=True):
            common.console.print(f"{file}: {classes[place]} ({share:.1%})", soft_wrap=True)
            if file.parent.name in classes:
                known, right = known + 1, right + (classes[place] == file.parent.name)
    if known:
        common.console.print(
            f"accuracy {right / known:.2%} ({right} of {known} images in folders named as a class; "
            "images that it learned from are counted too)",
            soft_wrap=True,
        )


def _open(path: Path, finish: str | None, device: str, plugins: Sequence[str]) -> Opened:
    from metadarts.core.errors import ConfigError
    from metadarts.export import Opened, open_model
    from metadarts.fewshot.adapter import PlacedModel
    from metadarts.fewshot.folder import is_task, load_task

    if is_task(path):
        model = load_task(path, plugins).model(finish)
        return Opened("task", model.facts, PlacedModel.of(model, device))
    if finish is not None:
        raise ConfigError(f"--finish chooses among the solutions of a task folder; {path} is none")
    if device == "cuda":
        raise ConfigError(f"an exported file is run on the CPU: leave out --device, or give the task folder of {path}")
    return open_model(path)


def _files(path: Path) -> list[Path]:
    """``path`` itself, or the images in it and in its folders, sorted."""
    from metadarts.core.errors import DataError
    from metadarts.tasks.images.folders import images_in

    if not path.is_dir():
        return [path]
    found = images_in(path)
    if not found:
        raise DataError(f"there is no image in {path}")
    return found
