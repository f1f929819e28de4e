"""Images as people have them, brought to one form: grey or colour, 8 bits, square, upright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX"),
    *("PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
"""Formats of pixels that Pillow reads by itself. Its other readers are of documents (EPS runs a program) or tables."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_SIXTEEN_BITS = 65535


class BadImage(Exception):
    """Why a file's content is not an image that can be used; callers add which file it is."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow as it should be while data are read: a truncated image and a decompression bomb fail, the rest is silent.

    Raises DataError when a program has asked Pillow to fill up truncated images.
    """
    import warnings

    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, so damaged images would pass with grey areas; "
            "set it to False before opening the data"
        )
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata that no pixel depends on
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def image_suffixes() -> frozenset[str]:
    """The file name endings, in lower case and with the dot, that count as images."""
    from PIL import Image

    known = Image.registered_extensions()  # of all formats: it has Pillow load them
    return frozenset(suffix for suffix, format in known.items() if format in _formats())


def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    return [format for format in FORMATS if format in Image.OPEN]


def decode(content: bytes) -> Image.Image:
    """The image in a file's content, upright, on white where it is transparent, as Pillow's mode L or RGB.

    Of an animation it is the first frame. Call it within `strict_pillow`. Raises BadImage.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=_formats()) as image:
            if image.format == "PNG":  # the decoder itself skips the check sums
                Image.open(BytesIO(content), formats=("PNG",)).verify()
            image.load()
            _require_range(image)
            return _grey_or_colour(_upright(image))
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("it is empty, or none of the formats that are read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImage(f"it claims more than {Image.MAX_IMAGE_PIXELS} pixels; shrink it") from None
    except Exception as error:  # a decoder raises whatever it stumbles over
        raise BadImage(str(error) or type(error).__name__) from error


def _require_range(image: Image.Image) -> None:
    """Refuse integers whose white is not stated: only 16 bits without a sign are known to end at 65535.

    Pillow brings PNG, PPM and JPEG 2000 files to that range itself, whatever bits they have; TIFF files it leaves as
    they are, 12 bits as mode I;16 and 32 or signed bits as mode I.
    """
    if image.format == "TIFF" and image.mode.startswith("I"):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]  # type: ignore[attr-defined]
        if bits != 16 or image.mode == "I":
            kind = "signed 16-bit" if bits == 16 else f"{bits}-bit"
            raise BadImage(f"its pixels are {kind} integers of no stated range; save it with 8 or 16 unsigned bits")


def _upright(image: Image.Image) -> Image.Image:
    """Turn a photograph as its EXIF orientation says. Damaged EXIF data count as none: viewers do the same."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    orientation = 1
    with suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION, 1)
    return image.transpose(turns[orientation]) if orientation in turns else image


def _grey_or_colour(image: Image.Image) -> Image.Image:
    from PIL import Image as pil

    if image.mode.startswith("I"):
        return pil.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "F":
        raise BadImage("its pixels are floating-point numbers of no stated range; save it with 8 or 16 bits")
    grey = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _only_greys(image))
    if image.has_transparency_data:
        over_white = pil.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        image = over_white
    return image.convert("L" if grey else "RGB")


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded."""
    wide = values.astype(np.int64)
    return ((wide * 255 + _SIXTEEN_BITS // 2) // _SIXTEEN_BITS).astype(np.uint8)


def _only_greys(image: Image.Image) -> bool:
    colours = np.asarray(image.convert("RGB"))
    return bool((colours == colours[..., :1]).all())


def fit(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """The middle square of an image of mode L or RGB, shrunk or enlarged with Lanczos's filter.

    Args:
        size: side in pixels; the short side is resized to it, the long side cropped. 0: neither is done.
        channels: 1 grey, 3 colour, 0 as found.

    Returns [C, H, W].
    """
    from PIL.Image import Resampling

    if channels:
        image = image.convert("L" if channels == 1 else "RGB")
    if size and image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.resize((size, size), Resampling.LANCZOS, box=(left, top, left + side, top + side))
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def fit_all(images: NDArray[np.uint8], size: int, channels: int) -> NDArray[np.uint8]:
    """`fit` for images [M, C, H, W] of 1 or 3 channels; those that fit already are handed back as they are."""
    from PIL import Image

    found, height, width = images.shape[1:]
    if size in (0, height) and size in (0, width) and channels in (0, found):
        return images
    flat = (image[0] if found == 1 else image.transpose(1, 2, 0) for image in images)
    return np.stack([fit(Image.fromarray(np.ascontiguousarray(image)), size, channels) for image in flat])
