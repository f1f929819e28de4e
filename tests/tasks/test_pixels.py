"""Files of every kind become grey or colour images of 8 bits, upright and square; what is damaged is refused."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from metadarts.core.errors import DataError
from metadarts.tasks.images.pixels import BadImage, decode, fit, fit_all, image_suffixes, strict_pillow

LOSSLESS = ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def pattern(channels=3, height=8, width=12):
    """An image that none of the eight orientations leaves as it is; few colours, so that GIF holds it."""
    image = np.full((height, width, channels), 40, np.uint8)
    image[: height // 2, : width // 3] = 200
    image[-1, :, 0] = 250
    return image if channels > 1 else image[..., 0]


def saved(image, format, **options):
    stream = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, format, **options)
    return stream.getvalue()


def read(content, size=0, channels=0):
    with strict_pillow():
        return fit(decode(content), size, channels)


@pytest.mark.parametrize(
    ("format", "channels"), [(format, n) for format in LOSSLESS for n in (1, 3) if (format, n) != ("WEBP", 1)]
)  # WebP has no grey images
def test_lossless_formats(format, channels):
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = read(saved(pattern(channels), format, **options))
    expected = pattern(channels)
    np.testing.assert_array_equal(pixels, expected[None] if channels == 1 else expected.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg(channels):
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8) if channels == 3 else np.full((8, 8), 90, np.uint8)
    pixels = read(saved(flat, "JPEG", quality=95)).astype(int)
    assert pixels.shape == (channels, 8, 8)
    np.testing.assert_allclose(pixels[:, 0, 0], (200, 100, 50) if channels == 3 else (90,), atol=3)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
        (77, lambda a: a),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation(format, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(saved(pattern(), format, exif=exif))
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), upright(pattern()))


def test_damaged_exif_does_not_matter():
    content = saved(pattern(), "PNG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(read(content), pattern().transpose(2, 0, 1))
    assert not caught


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_rounded(format):
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65407, 65535]], np.uint16)
    assert read(saved(values, format))[0].tolist() == [[0, 0, 1, 1], [128, 254, 255, 255]]


def test_big_endian_sixteen_bits():
    values = np.array([[0, 1000], [40000, 65535]], ">u2")
    assert read(b"P5 2 2 65535\n" + values.tobytes())[0].tolist() == [[0, 4], [156, 255]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 0.5, np.float32), "floating-point"),
        (np.full((4, 4), 70000, np.int32), "32-bit integers of no stated range"),
        (np.arange(256, dtype=np.int32).reshape(16, 16), "32-bit integers of no stated range"),
    ],
)
def test_pixels_without_a_range_are_refused(values, message):
    with pytest.raises(BadImage, match=message):
        read(saved(values, "TIFF"))


def bare_tiff(bits, sample_format, data):
    """A grey TIFF file of 2x2 pixels of ``bits`` bits, which Pillow itself does not write."""
    tags = {256: 2, 257: 2, 258: bits, 259: 1, 262: 1, 273: 134, 277: 1, 278: 2, 279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(134, b"\0") + data


@pytest.mark.parametrize(
    ("bits", "sample_format", "message"),
    [(12, 1, "12-bit integers"), (16, 2, "signed 16-bit integers"), (32, 1, "32-bit integers")],
)
def test_tiff_integers_without_a_known_white_are_refused(bits, sample_format, message):
    with pytest.raises(BadImage, match=message):
        read(bare_tiff(bits, sample_format, bytes(bits * 4 // 8)))


def test_bare_tiff_of_sixteen_bits_is_read():
    content = bare_tiff(16, 1, np.array([0, 257, 32768, 65535], "<u2").tobytes())
    assert read(content).tolist() == [[[0, 1], [128, 255]]]


def test_one_bit_is_grey():
    image = Image.fromarray(pattern(1)).point(lambda value: 255 * (value > 100)).convert("1")
    assert sorted(np.unique(read(saved(image, "PNG"))).tolist()) == [0, 255]


def test_transparent_colour_lies_on_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0] = 100
    rgba[:, 0, 3], rgba[:, 1, 3], rgba[:, 2, 3] = 0, 255, 51
    pixels = read(saved(rgba, "PNG"))
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [100, 0, 0], [224, 204, 204]]


def test_transparent_grey_lies_on_white_and_stays_grey():
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 0), (100, 255)])
    assert read(saved(image, "PNG")).tolist() == [[[255, 100]]]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_with_transparency(format):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    pixels = read(saved(image, format, transparency=1))
    assert pixels[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_palette_of_greys_is_grey():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 10, 10, 90, 90, 90, 255, 255, 255])
    image.putdata([0, 1, 2])
    assert read(saved(image, "PNG")).tolist() == [[[10, 90, 255]]]


def test_cmyk_jpeg():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = read(saved(image, "JPEG", quality=95)).astype(int)
    np.testing.assert_allclose(pixels[:, 4, 4], (255, 0, 0), atol=4)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (30, 200)]
    pixels = read(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.unique(pixels).tolist() == [30]


def test_short_side_is_resized_and_the_long_side_cropped():
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200  # the middle square
    assert np.unique(read(saved(wide, "PNG"), size=16)).tolist() == [200]
    small = read(saved(wide, "PNG"), size=8)
    assert small.shape == (3, 8, 8)
    assert small[:, :, 3:5].min() > 195
    np.testing.assert_array_equal(read(saved(wide.swapaxes(0, 1), "PNG"), size=8), small.swapaxes(1, 2))


def test_crop_of_the_right_size_changes_no_pixel():
    noise = np.random.Generator(np.random.Philox(3)).integers(0, 256, (11, 14, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(saved(noise, "PNG"), size=11), noise[:, 1:12].transpose(2, 0, 1))


def test_shrinking_averages_and_does_not_pick():
    checks = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    assert np.abs(read(saved(checks, "PNG"), size=8).astype(int) - 128).max() < 20


def test_channels_convert():
    grey = saved(pattern(1), "PNG")
    assert read(grey, channels=3).shape[0] == 3
    assert read(saved(pattern(3), "PNG"), channels=1).shape[0] == 1
    red = saved(np.full((4, 4, 3), (255, 0, 0), np.uint8), "PNG")
    assert np.unique(read(red, channels=1)).tolist() == [76]  # ITU-R 601: 0.299 * 255


def test_arrays_fit_like_files():
    noise = np.random.Generator(np.random.Philox(4)).integers(0, 256, (2, 3, 10, 10), dtype=np.uint8)
    for number, image in enumerate(fit_all(noise, 5, 1)):
        np.testing.assert_array_equal(image, read(saved(noise[number].transpose(1, 2, 0), "PNG"), 5, 1))
    assert fit_all(noise, 10, 3) is noise


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files(format):
    noise = np.random.Generator(np.random.Philox(5)).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = saved(noise, format)
    for end in (len(content) // 2, len(content) - 12, 30):
        with pytest.raises(BadImage):
            read(content[:end])


def test_png_with_a_wrong_check_sum():
    content = bytearray(saved(pattern(), "PNG", compress_level=0))
    content[content.index(b"IDAT") + 20] ^= 1
    with pytest.raises(BadImage, match="broken"):
        read(bytes(content))


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image(content):
    with pytest.raises(BadImage):
        read(content)


def png_claiming(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs(side):
    with pytest.raises(BadImage, match="claims more than 89478485 pixels"):
        read(png_claiming(side))


def test_refuses_to_work_while_truncated_images_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES is on"), strict_pillow():
        pass


def test_suffixes():
    suffixes = image_suffixes()
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"} <= suffixes
    assert not suffixes & {".txt", ".pdf", ".eps", ".ps", ".h5", ".mpg", ".npy", ".csv", ""}
