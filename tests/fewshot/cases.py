"""Small starts whose weights were never trained, and images of made-up classes: no test depends on a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.rng import Key
from metadarts.fewshot import Start
from metadarts.fewshot.input_spec import InputSpec
from metadarts.fewshot.learn import HeldOutImages
from metadarts.fewshot.task import Support
from metadarts.networks import Image
from metadarts.training import Config, with_settings

SIDE = 16
TINY = {
    "macro.channels": 4,
    "space.nodes": 2,
    "model.stem": (4, 6),
    "model.head": "prototype",
    "model.bn": "support",
    "inner.weight_rate": 0.05,
    "inner.alpha_rate": 10.0,
    "training.meta_steps": 1,
}


def make_start(channels: int, background: str = "", **changes: Any) -> Start:
    """A start of fresh weights, normalised as a source of ``channels`` would be."""
    settings = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    config = with_settings(Config(), settings | {"tasks.file": "/somewhere/secret"}).check()
    params = config.build_network(Image(channels)).init(Key(("tests", "api")))
    form = InputSpec(channels, SIDE, SIDE, (0.4, 0.5, 0.6)[:channels], (0.3, 0.25, 0.2)[:channels], background)
    return Start("tiny", config, form, params, None, {"source": "noise", "meta_steps": 0, "validation_accuracy": None})


def save_start(start: Start, folder: Path) -> str:
    """The name to open it by."""
    path = folder / f"tiny{start.form.channels}{start.form.background}.safetensors"
    start.save(path)
    return str(path)


def images(counts: tuple[int, ...], channels: int = 1, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 [n, H, W] or [n, H, W, 3]: stripes of the class's own width and direction under noise; and labels [n]."""
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, channels)
    draw = Key(("tests", "api", str(seed))).numpy()
    labels = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    noise = draw.integers(0, 40, (len(labels), *shape))
    return (np.stack([_stripes(label, shape) for label in labels]) + noise).astype(np.uint8), labels


def _stripes(label: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    lines = np.arange(SIDE) // (1 + label // 2) % 2 * 200
    square = np.tile(lines, (SIDE, 1)) if label % 2 else np.tile(lines, (SIDE, 1)).T
    return np.broadcast_to(square[..., None], shape) if len(shape) == 3 else square


def support_of(start: Start, counts: tuple[int, ...], seed: int = 0) -> Support:
    pixels, labels = images(counts, start.form.channels)
    stacked = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    classes = tuple(f"class {number}" for number in range(len(counts)))
    return Support(start.form, classes, torch.tensor(stacked), torch.tensor(labels), seed)


def held_out_of(support: Support, each: int = 5) -> HeldOutImages:
    pixels, labels = images((each,) * len(support.classes), support.form.channels, seed=1)
    stacked = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return HeldOutImages(torch.tensor(stacked), torch.tensor(labels))


def save_pictures(folder: Path, counts: dict[str, int], channels: int = 1) -> Path:
    """A folder of class folders of .png images, of other sizes than the start's."""
    from PIL import Image

    pixels, labels = images(tuple(counts.values()), channels)
    for label, name in enumerate(counts):
        (folder / name).mkdir(parents=True)
        for place, image in enumerate(pixels[labels == label]):
            side = (20 + 3 * place, 24 + label)
            Image.fromarray(image).resize(side, Image.Resampling.NEAREST).save(folder / name / f"{place:02d}.png")
    return folder
