"""Is a shipped file what it was made from? Differences, independence of the batch, speed."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.core.files import cannot_write, sync, sync_folder
from metadarts.core.rng import Key

from .formats import Logits, Opened, check_name, companions, open_model, run_python_file, write
from .model import LIMIT, Model, probes

BATCH = 64
RANDOM = 128
"""Images of noise on which a file is compared with its source."""

RUNS = 15


@dataclass(frozen=True)
class Check:
    """What is known of a shipped file.

    Args:
        path: the file.
        format: its format.
        size: bytes, of all its files.
        images: on how many images it was compared.
        difference: the largest difference of a logit, relative to the largest logit; from the source, or of `verify`
            from the logits that the file carries.
        alone: the same between an image alone and in a batch of `BATCH`.
        milliseconds: batch size -> median seconds of a call, in thousandths, on ``threads`` threads.
    """

    path: Path
    format: str
    size: int
    images: int
    difference: float
    alone: float
    milliseconds: Mapping[int, float]
    threads: int


def export_model(model: Model, path: Path, format: str, source: Logits, real: Tensor) -> Check:
    """Write ``model`` to ``path`` in ``format``, after comparing the written file with its source.

    Args:
        model: what is to be shipped.
        path: the file; one that is there is replaced once the new one is known to be right.
        format: a key of `SUFFIXES`.
        source: the logits [N, classes] of uint8 pixels [N, C, H, W] by the network that ``model`` was made from.
        real: uint8 images to compare on, besides noise.

    Raises:
        ModelError: when the file does not give its source's answers to within `LIMIT`, or cannot be made.
        RunError: when it cannot be written.
    """
    check_name(path, format)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            write(model, draft)
            pixels = torch.cat([noise(model.facts["image"], RANDOM), real])
            check = _checked(open_model(draft), draft, source, pixels)
            if format == "python":
                _require("the python file, run,", difference(run_python_file(draft, pixels), source(pixels)), draft)
            for part in companions(draft):
                sync(part)
                part.replace(path.parent / part.name)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return Check(path, *[getattr(check, name) for name in list(Check.__annotations__)[1:]])


def verify(path: Path) -> tuple[Check, dict[str, Any]]:
    """Check a shipped file again: it opens, gives the logits that it carries, and answers alike alone and in a batch.

    Returns:
        The check and the model's description.

    Raises:
        ModelError: where it does not.
    """
    opened = open_model(path)
    told = torch.tensor(opened.facts["probes"])
    return _checked(opened, path, lambda pixels: told, probes(opened.facts["image"])), opened.facts


def _checked(opened: Opened, path: Path, source: Logits, pixels: Tensor) -> Check:
    found = torch.cat([_answer(opened, part) for part in pixels.split(BATCH)])
    wanted = source(pixels)
    if found.shape != wanted.shape:
        raise ModelError(f"{path}: expected logits {list(wanted.shape)}, got {list(found.shape)}; the file is damaged")
    apart = difference(found, wanted)
    _require("the file", apart, path)
    batch = pixels[torch.arange(BATCH) % len(pixels)]
    together = _answer(opened, batch)
    alone = difference(torch.cat([_answer(opened, image) for image in batch[:8].split(1)]), together[:8])
    _require("an image alone, against the same in a batch,", alone, path)
    size = sum(part.stat().st_size for part in companions(path))
    speed = {count: _milliseconds(opened.logits, batch[:count]) for count in (1, BATCH)}
    return Check(path, opened.format, size, len(pixels), apart, alone, speed, torch.get_num_threads())


def _answer(opened: Opened, pixels: Tensor) -> Tensor:
    try:
        return opened.logits(pixels)
    except Exception as error:  # each runtime has its own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"the {opened.format} file cannot be run ({text}); export it anew") from error


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest of ``wanted``; infinite where something is not finite."""
    apart = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
    return apart if apart == apart else float("inf")


def _require(what: str, apart: float, path: Path) -> None:
    if not apart <= LIMIT:
        raise ModelError(
            f"{path.name}: {what} differs by {apart:.1e} of the largest logit, {LIMIT:.0e} is allowed; it is refused"
        )


def noise(image: Mapping[str, Any], count: int) -> Tensor:
    """Random uint8 images [count, C, H, W] of a model's form."""
    shape = (count, image["channels"], image["height"], image["width"])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Key.from_seed(0).child("export noise").torch())


def _milliseconds(logits: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        logits(pixels)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
