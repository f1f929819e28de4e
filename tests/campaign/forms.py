"""Cases of pixels and shapes: equal pictures give equal answers in every form, or are refused."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.export import SUFFIXES
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.labelled import read_labelled

from .stage import Stage, require

Draw = np.random.Generator
Pixels = NDArray[np.uint8]
NUMBERS: dict[str, Callable[[Pixels], Any]] = {
    "bytes": lambda x: x,
    "int16": lambda x: x.astype(np.int16),
    "uint64": lambda x: x.astype(np.uint64),
    "wide floats": lambda x: x.astype(np.float32),
    "wide halves": lambda x: x.astype(np.float16),
    "unit floats": lambda x: (x / 255.0).astype(np.float32),
    "unit doubles": lambda x: x / 255.0,
}
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "array": lambda x: x,
    "channels first": lambda x: x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
    "channels last": lambda x: x[..., None] if x.ndim == 3 else x,
    "list": list,
    "tensor": lambda x: torch.from_numpy(np.ascontiguousarray(x)),
    "tuple of tensors": lambda x: tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in x),
    "other order in memory": np.asfortranarray,
    "backwards": lambda x: x[::-1].copy()[::-1],
}
WRITERS: dict[str, Callable[[Image.Image, Path], None]] = {
    "a.png": lambda image, path: image.save(path),
    "b.bmp": lambda image, path: image.save(path),
    "c.tiff": lambda image, path: image.save(path, compression="tiff_lzw"),
    "d.webp": lambda image, path: image.save(path, lossless=True),
    "e.ppm": lambda image, path: image.save(path),
    "f.PNG": lambda image, path: image.convert("RGB").save(path),
    "g.png": lambda image, path: image.convert("RGBA").save(path),
    "h.png": lambda image, path: image.save(path, interlace=1, optimize=True),
}
"""Ways of writing a picture that lose nothing."""


def pictures(draw: Draw, number: int, colour: bool, side: int | None = None) -> Pixels:
    """uint8 [number, side, side (, 3)], each with something bright in it, so that no scale fits two ways."""
    side = side or int(draw.integers(8, 33))
    shape = (number, side, side, 3) if colour else (number, side, side)
    found = draw.integers(0, draw.integers(4, 257), shape)
    found[:, 0, 0] = 200
    return found.astype(np.uint8)


def unit(form: str) -> bool:
    return form.startswith("unit")


@cache
def loaded(path: Path) -> FewShotClassifier:
    """The classifier of a task folder; its images were files, so any scale of floats may follow."""
    return FewShotClassifier.load(path)


def arrays(draw: Draw, stage: Stage) -> None:
    """Learn from one form of the pictures and ask in others: the same answers, or refused where scales contradict."""
    colour = bool(draw.integers(2))
    given = pictures(draw, 6, colour)
    labels = np.array([0, 1, 0, 1, 0, 1])
    start = stage.shared / ("colour.safetensors" if colour else "grey.safetensors")
    learnt = str(draw.choice(list(NUMBERS)))
    layout = str(draw.choice(list(LAYOUTS)))
    fitted = FewShotClassifier(str(start), steps=0).fit(LAYOUTS[layout](NUMBERS[learnt](given)), labels)
    expected = fitted.logits(LAYOUTS[layout](NUMBERS[learnt](given)))
    for _ in range(3):
        form, how = str(draw.choice(list(NUMBERS))), str(draw.choice(list(LAYOUTS)))
        asked = LAYOUTS[how](NUMBERS[form](given))
        floats = "floats" in learnt or "doubles" in learnt or "halves" in learnt
        own_floats = "floats" in form or "doubles" in form or "halves" in form
        contradicts = floats and own_floats and unit(form) != unit(learnt)
        try:
            found = fitted.logits(asked)
        except DataError as error:
            require(contradicts, "refused", learnt, layout, form, how, str(error))
            continue
        require(not contradicts, "taken, although its scale contradicts", learnt, form)
        require(np.array_equal(found, expected), "another answer", learnt, layout, form, how)


def files(draw: Draw, stage: Stage) -> None:
    """One picture, written in ways that lose nothing: a task folder and its exported files say the same of each."""
    colour = bool(draw.integers(2))
    name = "colour" if colour else "grey"
    (image,) = pictures(draw, 1, colour)
    paths = []
    for file, write in WRITERS.items():
        paths.append(stage.place / file)
        write(Image.fromarray(image), paths[-1])
    model = stage.shared / f"task-{name}"
    said = _answers(stage.call("predict", model, *paths, codes=(0,)).out, paths)
    require(len(set(said)) == 1, "files differ", said)
    suffix = str(draw.choice(list(SUFFIXES.values())))
    exported = stage.shared / f"{'script' if suffix == '.py' else 'model'}-{name}{suffix}"
    again = _by_the_script(exported, paths) if suffix == ".py" else stage.call("predict", exported, *paths).out
    require(_answers(again, paths) == said, "the exported file differs", exported.name, again, said)


def _by_the_script(script: Path, paths: list[Path]) -> str:
    """What a .py file that was exported says, without its command line."""
    module = _imported(script)
    model, facts = module.load(script.with_suffix(".safetensors"))
    lines = []
    for path in paths:
        shares = model(module.prepare(path, facts["image"])).softmax(1)[0]
        best = int(shares.argmax())
        lines.append(f"{path}: {facts['classes'][best]} ({float(shares[best]):.1%})")
    return "\n".join(lines)


@cache
def _imported(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported", script)
    require(spec is not None and spec.loader is not None, "no module", script)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _answers(out: str, paths: list[Path]) -> list[str]:
    lines = {line.partition(": ")[0]: line.partition(": ")[2] for line in out.splitlines()}
    found = [lines.get(str(path), lines.get(path.name, "")) for path in paths]
    require(all(found), "a file without an answer", out)
    return found


def tables(draw: Draw, stage: Stage) -> None:
    """The same labelled pictures as a folder, a table of files and an .npz: the same classes, labels and pixels."""
    colour = bool(draw.integers(2))
    count = int(draw.integers(4, 9))
    given = pictures(draw, count, colour)
    names = [str(name) for name in draw.choice(["ant", "bee", "Cat", "été", "日本", "7", "a b"], 2, replace=False)]
    label = np.arange(count) % 2
    rows = []
    for number, image in enumerate(given):
        folder = stage.place / "folder" / names[label[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02d}.png")
        rows.append((f"folder/{names[label[number]]}/{number:02d}.png", names[label[number]]))
    with (stage.place / "t.csv").open("w", newline="", encoding=str(draw.choice(["utf-8", "utf-8-sig"]))) as file:
        header = draw.choice([["filename", "label"], ["path", "class"], ["Image", "Label"]])
        csv.writer(file, delimiter=",").writerows([tuple(header), *rows] if draw.integers(2) else rows)
    np.savez(stage.place / "a.npz", images=given, label=label, class_names=np.array(names))
    found = {}
    for file in ("folder", "t.csv", "a.npz"):
        learnt = read_labelled(stage.place / file)
        start = stage.shared / ("colour.safetensors" if colour else "grey.safetensors")
        own = [learnt.classes[place] for place in learnt.labels]
        fitted = FewShotClassifier(str(start), steps=0).fit(list(learnt.images), own)
        found[file] = (learnt.classes, sorted(own), fitted.logits(given).round(4).tolist())
    require(found["folder"] == found["t.csv"] == found["a.npz"], "they differ", found)


WRONG: dict[str, Callable[[Draw, Pixels], Any]] = {
    "one image, channels last": lambda _, x: x[0] if x.ndim == 4 else x[0][..., None],
    "one tensor, channels last": lambda _, x: torch.from_numpy(x[0] if x.ndim == 4 else x[0][..., None]),
    "five axes": lambda _, x: x[None, None] if x.ndim == 3 else x[None],
    "two channels": lambda _, x: np.zeros((3, 2, 16, 16), np.uint8),
    "none": lambda _, x: x[:0],
    "no list entries": lambda _, x: [],
    "a number": lambda *_: 3,
    "a word": lambda *_: "image.png",
    "missing files": lambda *_: ["/gone/a.png"],
    "nothing": lambda *_: None,
    "complex": lambda _, x: x.astype(np.complex64),
    "negative": lambda _, x: x.astype(np.int32) - 1000,
    "too large": lambda _, x: x.astype(np.int32) + 1000,
    "not a number": lambda _, x: np.where(x > 100, np.nan, x).astype(np.float32),
    "infinite": lambda _, x: np.where(x > 100, np.inf, x).astype(np.float32),
    "ragged": lambda _, x: [x[0], x[0].tolist()[:3]],
    "words": lambda _, x: np.full((2, 16, 16), "a"),
    "dictionary": lambda _, x: {"images": x},
    "generator": lambda _, x: (one for one in x),
    "rows of a length that is no square": lambda draw, _: np.zeros((3, int(draw.integers(1, 200)) * 4 + 2), np.uint8),
    "no pixels": lambda _, x: np.zeros((2, 0, 0), np.uint8),
}


def shapes(draw: Draw, stage: Stage) -> None:
    """What are no images is refused in one error by a task folder's classifier."""
    colour = bool(draw.integers(2))
    name = "colour" if colour else "grey"
    kind = str(draw.choice(list(WRONG)))
    given = pictures(draw, int(draw.integers(1, 4)), colour, 16)
    entries: dict[str, Callable[[Any], Any]] = {
        "classifier": loaded(stage.shared / f"saved-{name}").predict,
        "logits": loaded(stage.shared / f"saved-{name}").logits,
    }
    for entry, ask in entries.items():
        try:
            found = ask(WRONG[kind](draw, given))
        except DataError as error:
            require("\n" not in str(error), "an error of several lines", entry, kind, str(error))
        else:
            require(False, "an answer to what is no image", entry, kind, found)
