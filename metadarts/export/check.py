"""Checks of an exported file against its source: differences, independence of the batch, speed."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ModelError, RunError
from metadarts.core.rng import Key
from metadarts.store.drafts import drafted
from metadarts.store.files import cannot_write, is_there, sync, sync_folder

from .formats import (
    SUFFIXES,
    Logits,
    Opened,
    check_name,
    check_no_python_file,
    check_weights_place,
    companions,
    format_of,
    names_weights,
    open_model,
    run_python_file,
    write,
)
from .model import KEY, LIMIT, MOST_BYTES, ShippedModel, probes

BATCH = 64
RANDOM = 128
"""Images of noise on which a file is compared with its source."""

ALONE = 8
"""Images that are also given alone, half of them real ones where there are any."""

RUNS = 15

EXPORT_ADVICE = (
    "the support images hardly differ, so that batch norm divides by almost nothing, or what wrote the file errs; "
    "give more varied images, or choose another format"
)
VERIFY_ADVICE = "the file was changed, or another version of its runtime computes otherwise; export it anew"


QUIET = 0.05
"""`LIMIT` of this share is eight units in the last place of a float32: less, and rounding alone would be refused."""
ROUNDINGS = 4
"""How many times the rounding of its source a file may be off: it sums in another order, with other kernels."""

MOST = 1e-4
"""A difference that no rounding excuses."""


@dataclass(frozen=True)
class Check:
    """The result of checking an exported file.

    Args:
        path: the file.
        format: its format.
        size: bytes, of all its files.
        images: number of images of the comparison.
        difference: the largest difference of a logit, relative to its image's largest logit (see `difference`); from
            the source, or in `verify` from the logits in the file.
        alone: the same between an image alone and in a batch of `BATCH`.
        milliseconds: batch size -> median time of a call in milliseconds, on ``threads`` threads.
    """

    path: Path
    format: str
    size: int
    images: int
    difference: float
    alone: float
    milliseconds: Mapping[int, float]
    threads: int


def export_model(
    model: ShippedModel, path: Path, format: str | None, source: Logits, real: Tensor, exact: Logits | None = None
) -> Check:
    """Write ``model`` to ``path`` in ``format``, after comparing the written file with its source.

    Args:
        model: the model to export.
        path: the file; an existing file is replaced only after the new one passes the check. The weights of a python
            file are next to it and replace only those of the existing python file of this name.
        format: a key of `SUFFIXES`; None: by the suffix of the path.
        source: the logits [N, classes] of uint8 pixels [N, C, H, W] by the network that ``model`` was made from.
        real: uint8 images for the comparison, in addition to noise.
        exact: ``source`` in double precision. If it is given, the file is compared with it, and may be off by
            `ROUNDINGS` times what ``source`` is off, up to `MOST`: how a network amplifies rounding is its own, and a
            machine's.

    Raises:
        ModelError: when the file does not give the outputs of its source to within `LIMIT` or its rounding, cannot be
            created, or would replace the weights of another export.
        RunError: when it cannot be written.
    """
    format = format_of(path) if format is None else format
    check_name(path, format)
    if format == "python":
        check_weights_place(path)
    elif format == "safetensors":
        check_no_python_file(path)
    _require_ours(path)
    try:
        with drafted(path) as draft:
            write(model, draft)
            drawn = noise(model.facts["image"], RANDOM)
            pixels = torch.cat([drawn, real])
            wanted = source(pixels) if exact is None else exact(pixels)
            limit = _limit(0.0 if exact is None else difference(source(pixels), wanted))
            check = _checked(open_model(draft), draft, wanted, drawn, real, limit, EXPORT_ADVICE)
            if format == "python":
                apart = difference(run_python_file(draft, pixels), wanted)
                _require("the python file, run,", apart, draft, limit, EXPORT_ADVICE)
            _move(companions(draft)[::-1], path.parent)  # weights before what reads them
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return replace(check, path=path)


def _require_ours(path: Path) -> None:
    """Require that ``path`` is free, or holds an export. Raises RunError."""
    if not is_there(path) and not path.is_symlink():
        return
    refusal = RunError(f"{path} exists, and is no export: give --out another name, or remove it first")
    if path.suffix == SUFFIXES["python"]:
        if not names_weights(path, path.with_suffix(SUFFIXES["safetensors"]).name):
            raise refusal
        return
    try:  # a damaged export may be replaced: what refuses it says so
        ours = path.stat().st_size <= MOST_BYTES and KEY.encode() in path.read_bytes()
    except OSError:
        ours = False
    if not ours:
        raise refusal


def _move(parts: list[Path], folder: Path) -> None:
    """Move ``parts`` to ``folder``; where one cannot be moved, the places of those before it are as they were."""
    for part in parts:
        sync(part)
    undo: list[Callable[[], object]] = []
    try:
        for part in parts:
            place, older = folder / part.name, part.with_name(f"{part.name}.older")
            if part is not parts[-1] and (place.exists() or place.is_symlink()):
                shutil.copy2(place, older, follow_symlinks=False)
                back: Callable[[], object] = partial(older.replace, place)
            else:
                back = partial(place.unlink, missing_ok=True)
            part.replace(place)
            undo.append(back)
    except BaseException:
        for back in undo:
            with suppress(OSError):
                back()
        raise


def verify(path: Path) -> tuple[Check, dict[str, Any]]:
    """Check an exported file again: it opens, gives the logits stored in it, and gives the same for an image alone and
    in a batch.

    Returns:
        The check and the model's description.

    Raises:
        ModelError: when a check fails.
    """
    opened = open_model(path)
    told = torch.tensor(opened.facts["probes"])
    drawn = probes(opened.facts["image"])
    # That no byte changed is known by its hash; what its source's rounding was is not.
    return _checked(opened, path, told, drawn, drawn[:0], MOST, VERIFY_ADVICE), opened.facts


def _limit(rounding: float) -> float:
    """How far a file may be off whose source is off by ``rounding`` itself."""
    return min(max(LIMIT, ROUNDINGS * rounding), MOST)


def _checked(
    opened: Opened, path: Path, wanted: Tensor, drawn: Tensor, real: Tensor, limit: float, advice: str
) -> Check:
    """Compare on noise, ``drawn``, and on ``real`` images, with ``wanted`` of both; ``advice`` is for a refusal."""
    pixels = torch.cat([drawn, real])
    found = torch.cat([_answer(opened, part) for part in pixels.split(BATCH)])
    if found.shape != wanted.shape:
        raise ModelError(f"{path}: expected logits {list(wanted.shape)}, got {list(found.shape)}; the file is damaged")
    apart = difference(found, wanted)
    _require("the file", apart, path, limit, advice)
    some = real[:: max(1, 2 * len(real) // ALONE)][: ALONE // 2]
    batch = torch.cat([some, drawn[: ALONE - len(some)], pixels])
    batch = batch[torch.arange(BATCH) % len(batch)]
    together = _answer(opened, batch)[:ALONE]
    alone = difference(torch.cat([_answer(opened, image) for image in batch[:ALONE].split(1)]), together)
    _require("an image alone, against the same in a batch,", alone, path, limit, advice)
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
    """The maximum over images of the largest difference of a logit, relative to the image's largest logit.

    An image whose largest logit is below `QUIET` of the largest of all images counts with that share: logits that
    nearly cancel have fewer significant digits. Infinite if a value is not finite.

    Args:
        found: logits [N, classes].
        wanted: the same, of the source.
    """
    largest = wanted.abs().amax(-1)
    scale = largest.clamp(min=max(QUIET * float(largest.max()), 1e-30))
    apart = float(((found - wanted).abs().amax(-1) / scale).max())
    return apart if apart == apart else float("inf")


def _require(what: str, apart: float, path: Path, limit: float, advice: str) -> None:
    if not apart <= limit:
        raise ModelError(
            f"{path.name}: {what} differs by {apart:.1e} of an image's largest logit, {limit:.0e} is allowed; it is "
            f"refused: {advice}"
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
