"""Images of any kind, brought to the form that a start takes; what had to be converted is said."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from metadarts.core.errors import DataError
from metadarts.store.fields import AboveZero, Number, one_of
from metadarts.tasks.images.background import background
from metadarts.tasks.images.pixels import BadImage, decode, fit, strict_pillow
from metadarts.tasks.scaling import scaled

if TYPE_CHECKING:
    from PIL import Image

UNIT = 1.001
"""Floats up to here are in 0..1: resizing overshoots by a little."""

MIXED_SIDES = (1, 3)
LEAST_SIDE, MOST_SIDE = 4, 1024
BACKGROUNDS = ("", "dark", "light")
Side = Annotated[int, Meta(ge=LEAST_SIDE, le=MOST_SIDE)]


@dataclass(frozen=True)
class InputSpec:
    """The images that a network takes.

    Args:
        channels: 1 grey, 3 colour.
        height, width: pixels; equal, since images are brought to a square.
        mean, std: per channel, in units of [0, 1] brightness; None to leave images in [0, 1].
        background: "dark" or "light" where the images that the start was trained on agree in that, else "".
        invert: whether a task's images are turned to their negative first, see `InputSpec.suited`.
    """

    channels: int
    height: Side
    width: Side
    mean: tuple[Number, ...] | None = None
    std: tuple[AboveZero, ...] | None = None
    background: Annotated[str, one_of(*BACKGROUNDS)] = ""
    invert: bool = False

    def suited(self, pixels: NDArray[np.uint8]) -> InputSpec:
        """This form for a task of support ``pixels`` [n, C, H, W]: inverted where their background is the opposite."""
        found = background(pixels)
        return dataclasses.replace(self, invert=bool(self.background and found and found != self.background))

    def floats(self, pixels: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> what the network takes: inverted where asked for, scaled to [0, 1], normalised."""
        return scaled(255 - pixels if self.invert else pixels, self.mean, self.std)


def require_agreement(form: InputSpec) -> None:
    """Require what a file says of its images to agree. Raises ValueError."""
    if form.channels not in MIXED_SIDES or form.width != form.height:
        found = f"{form.channels} of {form.width}x{form.height}"
        raise ValueError(f"form: expected squares of 1 or 3 channels, got {found}")
    counts = {None if values is None else len(values) for values in (form.mean, form.std)}
    if counts not in ({None}, {form.channels}):
        raise ValueError("form: expected a mean and a std for each channel, or neither")


class Scale(NamedTuple):
    """What the numbers of images mean; None where there were none of the kind to tell by.

    Args:
        floats: whether floats are in 0..1, else in 0..255.
        integers: whether integers (and booleans) are 0 and 1, black and white, else in 0..255.
    """

    floats: bool | None = None
    integers: bool | None = None


def scale_of(images: Any) -> Scale:
    """What the numbers among ``images`` mean, by the highest of each kind. Floats up to `UNIT` are in 0..1."""
    images = _array(images)
    if isinstance(images, np.ndarray) and images.dtype.kind in "UT":
        return Scale()
    if isinstance(images, np.ndarray) and images.dtype.kind != "O":
        images = [images]
    elif isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Sequence | np.ndarray):
        return Scale()
    arrays = [_array(image) for image in images]
    floats, integers = _highest_of(arrays)
    binary = any(isinstance(image, np.ndarray) and image.dtype == bool for image in arrays)
    if integers is None and binary:
        integers = 1.0
    return Scale(None if floats is None else floats <= UNIT, None if integers is None else integers == 1.0)


def axes_of(images: Any) -> int | None:
    """How many axes an array or tensor of images has; None of a sequence of images."""
    return images.ndim if isinstance(images, np.ndarray | Tensor) and not _of_objects(images) else None


def _of_objects(images: Any) -> bool:
    return isinstance(images, np.ndarray) and images.dtype.kind in "OUT"


def require_several(images: Any, axes: int | None) -> None:
    """Refuse one image where images are expected: [H, W, channels], or [channels, H, W] after images of four axes.

    Args:
        axes: what `axes_of` found of the images learnt from.

    Raises:
        DataError: says how to give one image.
    """
    if axes_of(images) != 3:
        return
    shape = list(images.shape)
    if shape[-1] in MIXED_SIDES or (axes == 4 and shape[0] in MIXED_SIDES):
        raise DataError(f"expected images [n, ...], got an array {shape}, which looks like one image: give image[None]")


def to_pixels(
    images: Any, channels: int, size: int, scale: Scale | None = None, strict: bool = True
) -> tuple[NDArray[np.uint8], list[str]]:
    """Images of any kind as uint8 [n, C, size, size].

    Args:
        images: an array [n, H, W], [n, H, W, 1 or 3], [n, 1 or 3, H, W] or, flattened, [n, H * H (* 3)], of integers
            (0..255, or 0 and 1), floats (0..1 or 0..255) or booleans; a tensor of such a shape; or a sequence of paths,
            PIL images and single arrays of any sizes.
        channels: 1 or 3.
        size: side in pixels; the middle square is kept.
        scale: what numbers mean, as `scale_of` found in the images learnt from, so that an image means the same alone
            as among others. Of a kind that these had none of, floats are looked at image by image, and integers are
            0 and 1 only where floats were in 0..1. None: all of ``images`` together decide.
        strict: refuse floats that contradict ``scale``.

    Returns:
        The pixels, and sentences on what was converted.

    Raises:
        DataError: for what is none of these, naming the image.
    """
    images = _array(images)
    notes = _Notes()
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OUT":
        if images.ndim == 2 and len(images):
            images = _unflattened(images, notes)
        if images.ndim not in (3, 4):
            raise DataError(f"expected images [n, H, W] or [n, H, W, channels], got an array {list(images.shape)}")
        images = list(images)
    elif isinstance(images, np.ndarray) and images.ndim == 1:  # of paths, or of images of several sizes
        images = images.tolist()
    if isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Sequence):
        raise DataError(f"expected an array or a sequence of images, got {_kind(images)}")
    if not len(images):
        raise DataError("expected at least one image, got none")
    images = [_array(image) for image in images]
    _highest_of(images)  # refuses what is out of range
    found = scale_of(images) if scale is None else scale
    images = [_eight_bits(image, found, scale is not None and strict, notes) for image in images]
    with strict_pillow():
        pixels = [_fitted(image, place, channels, size, notes) for place, image in enumerate(images)]
    return np.stack(pixels), notes.sentences(channels, size, len(pixels))


class _Notes:
    """What was converted, counted."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, int]] = set()
        self.resized = self.greyed = self.coloured = 0
        self.others: list[str] = []

    def once(self, sentence: str) -> None:
        """Say it, unless it was said."""
        if sentence not in self.others:
            self.others.append(sentence)

    def sentences(self, channels: int, size: int, count: int) -> list[str]:
        found = list(self.others)
        if self.resized:
            sizes = ", ".join(f"{width}x{height}" for width, height in sorted(self.sizes)[:3])
            more = ", ..." if len(self.sizes) > 3 else ""
            found.append(
                f"{self.resized} of {count} images ({sizes}{more}) were brought to {size}x{size} pixels, the middle "
                "square of each"
            )
        if self.greyed:
            found.append(f"{self.greyed} of {count} images in colour were made grey")
        if self.coloured:
            found.append(f"{self.coloured} of {count} grey images were made RGB")
        return found


def _unflattened(rows: NDArray[Any], notes: _Notes) -> NDArray[Any]:
    for channels in MIXED_SIDES:
        side = round((rows.shape[1] / channels) ** 0.5)
        if side >= 4 and side * side * channels == rows.shape[1]:
            notes.others.append(
                f"rows of {rows.shape[1]} numbers were read as {side}x{side} images of {channels} channel(s)"
                + (
                    ", the three numbers of a pixel side by side; rows of one channel after another, as CIFAR's files "
                    f"and tensors have them, need images.reshape(-1, 3, {side}, {side})"
                    if channels == 3
                    else ""
                )
            )
            shape = (len(rows), side, side) if channels == 1 else (len(rows), side, side, channels)
            return rows.reshape(shape)
    raise DataError(f"rows of {rows.shape[1]} numbers are no square images: give [n, H, W] or [n, H, W, 3]")


def _array(images: Any) -> Any:
    """A tensor as an array, anything else as it is. Raises DataError."""
    if not isinstance(images, Tensor):
        return images
    try:
        tensor = images.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, without data
        raise DataError(f"expected a plain tensor of numbers ({str(error).splitlines()[0]})") from error


def _kind(images: Any) -> str:
    return (
        f"an array {list(images.shape)} of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
    )


def _eight_bits(image: Any, scale: Scale, strict: bool, notes: _Notes) -> Any:
    """An array as uint8; anything else as it is.

    Args:
        strict: whether floats must be as ``scale`` says.

    Raises:
        DataError: for floats that are scaled otherwise than those learnt from.
    """
    if not isinstance(image, np.ndarray):
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    highest = float(image.max()) if image.size else 0.0
    if image.dtype.kind == "f":
        unit = highest <= UNIT if scale.floats is None else scale.floats
        if strict and unit != (highest <= UNIT) and (unit or _has_fractions(image)):
            ranges = ("0..255", "0..1")
            raise DataError(
                f"floats up to {highest:g}, where the images learnt from were in {ranges[unit]}: scale them alike"
            )
        if unit:
            notes.once("floats in 0..1 were read as brightness and stored in 8 bits")
        scaled = np.clip(image * (255.0 if unit else 1.0), 0, 255)
        rounded: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
        return rounded
    binary = highest <= 1 and bool(scale.floats if scale.integers is None else scale.integers)
    if binary and highest:
        notes.once("integers 0 and 1 were read as black and white")
    return image.astype(np.uint8) * np.uint8(255 if binary else 1)


def _has_fractions(image: NDArray[Any]) -> bool:
    """A nearly black image of whole numbers may be in 0..255."""
    return bool((image != np.rint(image)).any())


def _highest_of(images: Sequence[Any]) -> tuple[float | None, float | None]:
    """The largest float, and the largest integer, of the arrays among ``images``. Raises DataError."""
    found: dict[str, list[float]] = {"f": [], "i": []}
    for place, image in enumerate(images):
        if isinstance(image, np.ndarray) and image.dtype != bool and image.size:
            found["f" if image.dtype.kind == "f" else "i"].append(_highest(image, place))
    return max(found["f"], default=None), max(found["i"], default=None)


def _highest(image: NDArray[Any], place: int) -> float:
    """The largest number of an array. Raises DataError for numbers out of range."""
    if image.dtype == np.uint8:
        return float(image.max())
    if image.dtype.kind not in "iuf":
        raise DataError(f"image number {place}: expected numbers, got dtype {image.dtype}")
    if not bool(np.isfinite(image).all()):
        raise DataError(f"image number {place} holds NaN or infinite numbers")
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255:
        raise DataError(
            f"image number {place} holds numbers from {low:g} to {high:g}; expected 0..255, or floats in 0..1"
        )
    return high


def _fitted(image: Any, place: int, channels: int, size: int, notes: _Notes) -> NDArray[np.uint8]:
    picture = _picture(image, place)
    if picture.size != (size, size):
        notes.resized += 1
        notes.sizes.add(picture.size)
    grey = picture.mode == "L"
    notes.greyed += channels == 1 and not grey
    notes.coloured += channels == 3 and grey
    return fit(picture, size, channels)


def _picture(image: Any, place: int) -> Image.Image:
    from PIL import Image as pil

    try:
        if isinstance(image, str | os.PathLike):
            return decode(_content(Path(image)))
        if isinstance(image, pil.Image):
            return decode(_stored(image))
    except BadImage as error:
        name = str(image) if isinstance(image, str | os.PathLike) else f"number {place}"
        raise DataError(f"cannot decode the image {name}: {error}") from error
    if not isinstance(image, np.ndarray):
        raise DataError(f"image number {place}: expected a path, a PIL image or an array, got {type(image).__name__}")
    array = image
    if array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[-1] != 3):
        raise DataError(
            f"image number {place}: expected [H, W], [H, W, 1 or 3] or [1 or 3, H, W], got {list(image.shape)}"
        )
    return pil.fromarray(np.ascontiguousarray(array))


PLAIN_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000")
"""Formats whose files Pillow opens as integers of 0..65535."""


def _stored(image: Image.Image) -> bytes:
    """The content of a file that holds ``image``, so that it is read as a file is. Raises BadImage."""
    from io import BytesIO

    from PIL import Image as pil

    store = BytesIO()
    try:
        exif = image.getexif()
        if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS):
            kind = "floating-point numbers" if image.mode == "F" else "integers"
            raise BadImage(f"its pixels are {kind} of no stated range; convert it to mode L or RGB")
        if image.mode == "I":
            image = pil.fromarray(np.asarray(image).astype(np.uint16))
        if image.mode not in PLAIN_MODES:
            through = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
            image = image.convert(through.get(image.mode, "RGB"))
        image.save(store, format="PNG", exif=exif)
    except BadImage:
        raise
    except Exception as error:  # a lazy decoder raises whatever it stumbles over; a closed image
        raise BadImage(str(error) or type(error).__name__) from error
    return store.getvalue()


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise DataError(f"cannot read the image {path}: it is no plain file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read the image {path} ({reason}); check its name and its rights") from error
