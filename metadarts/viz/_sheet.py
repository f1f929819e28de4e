"""Small pictures in rows, each with what it was taken for; the mistakes come first."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError

from ._canvas import INK, Target, figure, plain
from ._fonts import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 10
PITCH, SIDE, THINNEST = 1.16, 1.0, 0.06
LINE, BAR, SHARE, GAP = 0.15, 0.05, 0.4, 0.2
MARGIN, NARROWEST = 0.16, 5.0
"""Inches: from picture to picture, the longer and at least the shorter side of one, a line of text, the bar of the
confidence and the room for its number, between rows, around the sheet, the narrowest sheet."""
WRONG, RIGHT, EDGE, TRACK, SOFT = "#c8281e", "#1f5fa8", "#c3cad4", "#e8eaed", "#5f6673"
SMALL = 7.0
LONGEST, TRUE, INDENT = 60, "true: ", 0.27


class _Guess(NamedTuple):
    """One picture and what was said of it; ``truth`` is the true class where the guess is wrong, otherwise None."""

    image: NDArray[np.uint8]
    name: str
    confidence: float
    truth: str | None


def draw_predictions(
    images: NDArray[np.uint8],
    truth: Sequence[int] | None,
    predicted: Sequence[int],
    confidence: Sequence[float],
    classes: Sequence[str],
    target: Target,
    title: str = "",
    most: int = 60,
) -> None:
    """Write a sheet of thumbnails with the predicted class and its confidence; wrong ones come first, framed in red.

    Args:
        images: [n, C, H, W] with one (grey) or three channels (red, green, blue).
        truth: for each image the index of its class in ``classes``; None when unknown, then nothing is called wrong.
        predicted: for each image the index of the class it was taken for.
        confidence: for each image the probability of that class, from 0 to 1.
        classes: the names, any text; one too long for its place loses letters from its middle.
        target: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top, above the number of wrong ones among all images.
        most: how many images are shown at most.

    Raises:
        ConfigError: when there is nothing to draw, or the arguments do not fit one another.
    """
    _check_images(images)
    if most < 1:
        raise ConfigError(f"most: expected at least 1 image to show, got {most}")
    every = _guesses(images, truth, predicted, confidence, classes)
    guesses = sorted(every, key=lambda guess: guess.truth is None)[:most]
    said = f"{len(every)} image{'s' * (len(every) > 1)}"
    if truth is not None:
        said = f"{sum(guess.truth is not None for guess in every)} wrong of {len(every)}"
    if len(guesses) < len(every):
        said += f", {len(guesses)} shown"
    rows = [guesses[start : start + COLUMNS] for start in range(0, len(guesses), COLUMNS)]
    size = _size(images.shape[-2], images.shape[-1])
    heights = [size[1] + BAR + LINE * (2 + any(guess.truth is not None for guess in row)) + GAP for row in rows]
    width = max(NARROWEST, 2 * MARGIN + PITCH * (min(len(guesses), COLUMNS) - 1) + SIDE)
    head = 0.62 if title else 0.36
    height = MARGIN + head + sum(heights)
    with figure(target, width, height) as sheet:
        axes = sheet.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.axis("off")
        top = height - MARGIN
        if title:
            label = fit(title, width - 2 * MARGIN, 11, "bold")
            axes.text(MARGIN, top - 0.09, label, va="center", fontsize=11, fontweight="bold")
        axes.text(MARGIN, height - MARGIN - head + 0.25, said, va="center", fontsize=9.5)
        top -= head
        for row, tall in zip(rows, heights, strict=True):
            for index, guess in enumerate(row):
                _draw_guess(axes, guess, MARGIN + PITCH * index, top, size)
            top -= tall
        axes.set(xlim=(0, width), ylim=(0, height))


def _check_images(images: NDArray[np.uint8]) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise ConfigError(f"images: expected a uint8 array [n, C, H, W], got {_kind(images)}")
    if images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ConfigError(f"images: expected at least one, of 1 or 3 channels and some pixels, got {_kind(images)}")


def _guesses(
    images: NDArray[np.uint8],
    truth: Sequence[int] | None,
    predicted: Sequence[int],
    confidence: Sequence[float],
    classes: Sequence[str],
) -> list[_Guess]:
    """What is to be said of each image, in the order given. Raises ConfigError."""
    if not len(classes):
        raise ConfigError("classes: expected at least one name, got none")
    for name in classes:
        if not isinstance(name, str):
            raise ConfigError(f"classes: expected names, got {name!r}")
    said = _indices("predicted", predicted, len(images), len(classes))
    true = said if truth is None else _indices("truth", truth, len(images), len(classes))
    _check_length("confidence", len(confidence), len(images))
    for value in confidence:
        if not 0 <= value <= 1:
            raise ConfigError(f"confidence: expected probabilities from 0 to 1, got {value}")
    return [
        _Guess(image, classes[a], float(share), None if a == b else classes[b])
        for image, a, b, share in zip(images, said, true, confidence, strict=True)
    ]


def _indices(name: str, labels: Sequence[int], images: int, classes: int) -> list[int]:
    _check_length(name, len(labels), images)
    for label in labels:
        if not _is_index(label, classes):
            raise ConfigError(f"{name}: expected indices from 0 to {classes - 1}, of {classes} classes, got {label}")
    return [operator.index(label) for label in labels]


def _check_length(name: str, length: int, count: int) -> None:
    if length != count:
        raise ConfigError(f"{name}: expected one value for each of {count} images, got {length}")


def _kind(images: Any) -> str:
    if not isinstance(images, np.ndarray):
        return type(images).__name__
    return f"{images.dtype} [{', '.join(map(str, images.shape))}]"


def _is_index(label: Any, count: int) -> bool:
    try:
        return 0 <= operator.index(label) < count
    except TypeError:
        return False


def _size(height: int, width: int) -> tuple[float, float]:
    """Width and height in inches of a thumbnail of so many pixels."""
    longer = max(height, width)
    return max(THINNEST, SIDE * width / longer), max(THINNEST, SIDE * height / longer)


def _draw_guess(axes: Axes, guess: _Guess, left: float, top: float, size: tuple[float, float]) -> None:
    """One thumbnail in a place `SIDE` wide, its confidence as a bar, and its texts under it."""
    from matplotlib.patches import Rectangle

    wrong, (wide, tall) = guess.truth is not None, size
    start, bottom = left + (SIDE - wide) / 2, top - tall
    grey = guess.image.shape[0] == 1
    pixels = guess.image[0] if grey else guess.image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=255, aspect="auto",
                extent=(start, start + wide, bottom, top))  # fmt: skip
    frame = Rectangle((start, bottom), wide, tall, fill=False, joinstyle="miter", zorder=3)
    frame.set(edgecolor=WRONG if wrong else EDGE, linewidth=2.6 if wrong else 0.6)
    axes.add_patch(frame)
    bar, long, color = bottom - 0.08 - BAR, SIDE - SHARE, WRONG if wrong else RIGHT
    axes.add_patch(Rectangle((left, bar), long, BAR, facecolor=TRACK, linewidth=0))
    axes.add_patch(Rectangle((left, bar), long * guess.confidence, BAR, facecolor=color, linewidth=0))
    share = f"{guess.confidence:.1%}"
    axes.text(left + SIDE, bar + BAR / 2, share, ha="right", va="center_baseline", fontsize=6.4, color=SOFT)
    line = bar - 0.13
    name = fit(guess.name, SIDE, SMALL)
    axes.text(left, line, name, va="center_baseline", fontsize=SMALL, color=WRONG if wrong else INK)
    if guess.truth is not None:
        label = fit(guess.truth, SIDE - INDENT, SMALL)
        axes.text(left, line - LINE, f"{TRUE}{label}", va="center_baseline", fontsize=SMALL, color=INK)


def fit(text: str, width: float, fontsize: float, weight: str = "normal") -> str:
    """``text`` as a `plain` label at most ``width`` inches wide; what is too long loses letters from its middle."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(families()), size=fontsize, weight=weight)
    label = ""
    for kept in range(min(len(text), LONGEST), 0, -1):
        tail = kept // 2
        cut = text if kept == len(text) else f"{text[: kept - tail]}...{text[len(text) - tail :]}"
        label = plain(cut, LONGEST + 3)
        shown = label.replace(r"\$", "$")
        if text_to_path.get_text_width_height_descent(shown, font, ismath=False)[0] <= 72 * width:
            break
    return label
