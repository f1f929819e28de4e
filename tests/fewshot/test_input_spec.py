"""Images of any kind become the form that a start takes, and what was converted is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.fewshot.input_spec import InputSpec, Scale, require_agreement, scale_of, to_pixels
from metadarts.store.schema import convert
from metadarts.tasks.images.background import background

SIDE = 8
BRIGHTNESS = "floats in 0..1 were read as brightness and stored in 8 bits"
ROWS_OF_COLOUR = (
    "rows of 192 numbers were read as 8x8 images of 3 channel(s), the three numbers of a pixel side by side; rows of "
    "one channel after another, as CIFAR's files and tensors have them, need images.reshape(-1, 3, 8, 8)"
)
BLACK_AND_WHITE = "integers 0 and 1 were read as black and white"
draw = Key(("tests", "api", "form")).numpy()
GREY = draw.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
COLOUR = draw.integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        (GREY, []),
        (GREY[..., None], []),
        (GREY[:, None], []),
        (GREY.astype(np.int64), []),
        (GREY.astype(np.uint16), []),
        (GREY.astype(np.float64), []),
        (GREY / 255.0, [BRIGHTNESS]),
        ((GREY / 255.0).astype(np.float32), [BRIGHTNESS]),
        (list(GREY), []),
        (tuple(GREY), []),
        (list(GREY / 255.0), [BRIGHTNESS]),
        (torch.tensor(GREY), []),
        (torch.tensor(GREY / 255.0).float().requires_grad_(), [BRIGHTNESS]),
        (list(torch.tensor(GREY)), []),
        ([Image.fromarray(image) for image in GREY], []),
        (np.array([*map(Image.fromarray, GREY), None], dtype=object)[:3], []),
        (GREY.reshape(3, -1), ["rows of 64 numbers were read as 8x8 images of 1 channel(s)"]),
        (GREY.reshape(3, -1) / 255.0, ["rows of 64 numbers were read as 8x8 images of 1 channel(s)", BRIGHTNESS]),
    ],
)
def test_grey_images_of_every_kind(given, notes):
    pixels, found = to_pixels(given, 1, SIDE)
    np.testing.assert_array_equal(pixels, GREY[:, None])
    assert pixels.dtype == np.uint8
    assert found == notes


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        (COLOUR, []),
        (COLOUR.transpose(0, 3, 1, 2), []),
        (list(COLOUR.transpose(0, 3, 1, 2)), []),
        (torch.tensor(COLOUR).permute(0, 3, 1, 2), []),
        (COLOUR / 255.0, [BRIGHTNESS]),
        ([Image.fromarray(image) for image in COLOUR], []),
        (COLOUR.reshape(3, -1), [ROWS_OF_COLOUR]),
    ],
)
def test_colour_images_of_every_kind(given, notes):
    pixels, found = to_pixels(given, 3, SIDE)
    np.testing.assert_array_equal(pixels, COLOUR.transpose(0, 3, 1, 2))
    assert found == notes


def test_bools_and_half_floats():
    truths = GREY > 127
    np.testing.assert_array_equal(to_pixels(truths, 1, SIDE)[0], (truths * 255)[:, None])
    for kind in (torch.float16, torch.bfloat16):
        np.testing.assert_array_equal(to_pixels(torch.tensor(truths).to(kind), 1, SIDE)[0], (truths * 255)[:, None])


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"image {place}.png" for place in range(3)]
    for path, image in zip(paths, GREY, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.parametrize("kind", [list, lambda p: list(map(str, p)), np.array, lambda p: np.array(list(map(str, p)))])
def test_paths(files, kind):
    np.testing.assert_array_equal(to_pixels(kind(files), 1, SIDE)[0], GREY[:, None])


def test_kinds_may_be_mixed(files):
    pixels, _ = to_pixels([files[0], GREY[1], Image.fromarray(GREY[2])], 1, SIDE)
    np.testing.assert_array_equal(pixels, GREY[:, None])


def test_sizes_may_differ_and_are_told():
    given = [np.full((10, 20), 7, np.uint8), np.full((8, 8), 9, np.uint8), np.full((30, 6, 3), 11, np.uint8)]
    pixels, notes = to_pixels(given, 1, SIDE)
    assert [np.unique(image).tolist() for image in pixels] == [[7], [9], [11]]
    assert notes == [
        "2 of 3 images (6x30, 20x10) were brought to 8x8 pixels, the middle square of each",
        "1 of 3 images in colour were made grey",
    ]
    ragged = np.empty(3, dtype=object)
    ragged[:] = given
    np.testing.assert_array_equal(to_pixels(ragged, 1, SIDE)[0], pixels)
    many = [np.zeros((9 + place, 9), np.uint8) for place in range(5)]
    assert to_pixels(many, 1, SIDE)[1] == [
        "5 of 5 images (9x9, 9x10, 9x11, ...) were brought to 8x8 pixels, the middle square of each"
    ]


def test_the_middle_square_is_kept():
    wide = np.zeros((SIDE, 3 * SIDE), np.uint8)
    wide[:, SIDE : 2 * SIDE] = 200
    assert (to_pixels([wide], 1, SIDE)[0] == 200).all()


def test_grey_to_colour_and_back():
    pixels, notes = to_pixels(GREY, 3, SIDE)
    np.testing.assert_array_equal(pixels, np.repeat(GREY[:, None], 3, 1))
    assert notes == ["3 of 3 grey images were made RGB"]
    pixels, notes = to_pixels(COLOUR, 1, SIDE)
    np.testing.assert_array_equal(pixels[0, 0], np.asarray(Image.fromarray(COLOUR[0]).convert("L")))
    assert notes == ["3 of 3 images in colour were made grey"]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint16, np.int8])
def test_integers_of_0_and_1_are_black_and_white(kind):
    truths = GREY > 127
    pixels, notes = to_pixels(truths.astype(kind), 1, SIDE)
    np.testing.assert_array_equal(pixels, (truths * 255)[:, None])
    assert notes == [BLACK_AND_WHITE]


KINDS = {
    "booleans": (lambda x: x, Scale(integers=True)),
    "integers 0 and 1": (lambda x: x.astype(np.uint8), Scale(integers=True)),
    "integers to 255": (lambda x: x.astype(np.int32) * 255, Scale(integers=False)),
    "floats 0..1": (lambda x: x.astype(np.float32), Scale(floats=True)),
    "floats 0..255": (lambda x: x * 255.0, Scale(floats=False)),
}
DARK = {
    ("integers to 255", "integers 0 and 1"),
    ("floats 0..255", "integers 0 and 1"),
    ("floats 0..255", "floats 0..1"),
}
"""Numbers 0 and 1 asked for after numbers up to 255: nearly black, as they may well be."""


@pytest.mark.parametrize("asked", KINDS)
@pytest.mark.parametrize("learnt", KINDS)
def test_equal_pictures_are_equal_pixels_whatever_they_were_learnt_from(learnt, asked):
    truths = GREY > 127
    scale = scale_of(KINDS[learnt][0](truths))
    assert scale == KINDS[learnt][1]
    given = KINDS[asked][0](truths)
    if (learnt, asked) == ("floats 0..1", "floats 0..255"):
        with pytest.raises(
            DataError, match=r"floats up to 255, where the images learnt from were in 0\.\.1: scale them"
        ):
            to_pixels(given, 1, SIDE, scale)
        return
    expected = truths * (1 if (learnt, asked) in DARK else 255)
    for images in (given, [*given], [given[0]]):
        np.testing.assert_array_equal(to_pixels(images, 1, SIDE, scale)[0], expected[: len(images), None])


def test_floats_scaled_otherwise_than_those_learnt_from_are_refused_alone_as_among_others():
    dark, light = GREY[0] / 300.0, GREY[1] * 1.0
    for images in ([dark], [light, dark]):
        with pytest.raises(DataError, match=r"floats up to 0\.\d+, where the images learnt from were in 0\.\.255"):
            to_pixels(images, 1, SIDE, Scale(floats=False))
    black = np.zeros((1, SIDE, SIDE))
    black[0, 0, 0] = 1.0
    assert to_pixels(black, 1, SIDE, Scale(floats=False))[0].max() == 1, "an image may be nearly black"


@pytest.mark.parametrize("scale", [Scale(), Scale(integers=False), Scale(floats=False)])
def test_a_nearly_black_image_of_integers_stays_so(scale):
    black = np.zeros((1, SIDE, SIDE), np.uint8)
    black[0, 0, 0] = 1
    assert to_pixels(black, 1, SIDE, scale)[0].max() == 1


@pytest.mark.parametrize("wrong", [np.nan, -1.0, 256.0])
def test_numbers_out_of_range_are_refused_whatever_was_learnt_from(wrong):
    images = np.full((1, SIDE, SIDE), 0.5)
    images[0, 0, 0] = wrong
    for scale in (None, Scale(), Scale(floats=True)):
        with pytest.raises(DataError, match="image number 0 holds"):
            to_pixels(images, 1, SIDE, scale)


def test_floats_mean_the_same_in_all_images_of_a_sequence():
    """One image may be nearly black where others are not: it is not blown up by itself."""
    nearly_black, light = np.zeros((SIDE, SIDE)), np.full((SIDE, SIDE), 200.0)
    nearly_black[0, 0] = 1.0
    for given in ([nearly_black, light], np.stack([nearly_black, light])):
        pixels, notes = to_pixels(given, 1, SIDE)
        assert pixels[0].max() == 1
        assert notes == []


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "I;16", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_pictures_of_every_mode(mode):
    grey = Image.new("L", (SIDE, SIDE), 255)
    through = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA", "LAB": "RGB"}.get(mode, "L")
    if mode == "LAB":
        image = Image.new("LAB", (SIDE, SIDE), (255, 128, 128))
    elif mode == "I;16":
        image = Image.fromarray(np.full((SIDE, SIDE), 65535, np.uint16))
    else:
        image = grey.convert(through).convert(mode)
    assert image.mode == mode
    pixels, _ = to_pixels([image], 3, SIDE)
    assert pixels.min() >= 250


def test_sixteen_bits_as_pictures_and_as_files(tmp_path):
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        pixels, _ = to_pixels([tmp_path / "a.png", opened], 1, SIDE)
    np.testing.assert_array_equal(pixels[:, 0], GREY[[0, 0]])


def test_pictures_are_turned_upright():
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    drawn[0] = 255
    image = Image.fromarray(drawn)
    image.getexif()[0x0112] = 3
    np.testing.assert_array_equal(to_pixels([image], 1, SIDE)[0][0, 0], drawn[::-1])


def closed():
    image = Image.new("L", (SIDE, SIDE))
    image.close()
    return image


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "got NoneType"),
        (7, "got int"),
        ("picture.png", "got str"),
        (Path("picture.png"), "got PosixPath"),
        ({"a": GREY[0]}, "got dict"),
        (Image.fromarray(GREY[0]), "got Image"),
        (np.float64(3), "got float64"),
        ((image for image in GREY), "got generator"),
        ([], "got none"),
        ((), "got none"),
        (np.array([], dtype=object), "got none"),
        (np.zeros((0, 8, 8)), "got none"),
        (np.zeros((0, 64)), "got an array [0, 64]"),
        (np.zeros(8), "got an array [8]"),
        (np.array(3), "got an array []"),
        (np.array(None), "an array [] of object"),
        (np.array([[None]]), "an array [1, 1] of object"),
        (np.zeros((2, 3, 8, 8, 8)), "got an array [2, 3, 8, 8, 8]"),
        (np.zeros((2, 65)), "rows of 65 numbers are no square images"),
        (np.zeros((2, 4)), "rows of 4 numbers are no square images"),
        (np.zeros((2, 8, 8, 2)), "image number 0: expected [H, W]"),
        (np.zeros((2, 8, 0)), "image number 0: expected [H, W]"),
        ([GREY[0], np.zeros((5, 8, 8))], "image number 1: expected [H, W]"),
        ([GREY[0], np.zeros(8)], "image number 1: expected [H, W]"),
        ([GREY[0], None], "image number 1: expected a path, a PIL image or an array, got NoneType"),
        ([GREY[0], b"content"], "image number 1: expected a path"),
        ([GREY[0], "/nowhere/a.png"], "cannot read the image /nowhere/a.png"),
        ([GREY[0], "a\0b"], "cannot read the image"),
        ([GREY[0], "/"], "cannot read the image /"),
        ([GREY[0], np.full((8, 8), np.nan)], "image number 1 holds NaN"),
        ([GREY[0], np.full((8, 8), np.inf)], "image number 1 holds NaN or infinite"),
        (np.full((2, 8, 8), -1), "image number 0 holds numbers from -1 to -1"),
        (np.full((2, 8, 8), 256.0), "image number 0 holds numbers from 256"),
        (np.full((2, 8, 8), 1j), "image number 0: expected numbers, got dtype complex128"),
        (np.full((2, 8, 8), "a"), "got an array [2, 8, 8]"),
        (np.full((2, 8, 8), b"a"), "expected numbers, got dtype |S1"),
        (np.full((2, 8, 8), np.datetime64("2020-01-01")), "expected numbers"),
        ([GREY[0], GREY[0].astype(object)], "image number 1: expected numbers, got dtype object"),
        ([Image.new("F", (8, 8))], "cannot decode the image number 0: its pixels are floating-point"),
        ([Image.new("I", (8, 8))], "cannot decode the image number 0: its pixels are integers of no stated range"),
        ([GREY[0], closed()], "cannot decode the image number 1"),
        (torch.zeros(2, 8, 8).to_sparse(), "expected a plain tensor"),
        (torch.zeros(2, 8, 8, device="meta"), "expected a plain tensor"),
    ],
)
def test_what_is_no_image(given, words):
    with pytest.raises(DataError) as raised:
        to_pixels(given, 1, SIDE)
    assert words in str(raised.value)


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_a_file_that_cannot_be_decoded_is_named(files, how):
    content = files[1].read_bytes()
    files[1].write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"path,label\n"}[how])
    with pytest.raises(DataError, match=r"cannot decode the image .*image 1\.png"):
        to_pixels(files, 1, SIDE)
    if how == "cut":
        with pytest.raises(DataError, match="number 0"):  # noqa: SIM117
            with Image.open(files[1]) as opened:
                to_pixels([opened], 1, SIDE)


def drawings(count, ground, ink):
    pixels = np.full((count, 1, SIDE, SIDE), ground, np.uint8)
    pixels[:, :, 2:6, 3:5] = ink
    return pixels


@pytest.mark.parametrize(
    ("ground", "ink", "found"),
    [(0, 255, "dark"), (255, 0, "light"), (128, 0, ""), (64, 200, "dark"), (191, 0, "light")],
)
def test_the_background_is_that_of_the_borders(ground, ink, found):
    assert background(drawings(5, ground, ink)) == found


def test_a_background_is_known_where_most_images_agree():
    assert background(np.concatenate([drawings(5, 0, 255), drawings(5, 255, 0)])) == ""
    assert background(np.concatenate([drawings(1, 0, 255), drawings(19, 255, 0)])) == "light"


@pytest.mark.parametrize(
    ("known", "ground", "invert"),
    [
        ("dark", 255, True),
        ("dark", 0, False),
        ("light", 0, True),
        ("light", 255, False),
        ("", 255, False),
        ("dark", 128, False),
    ],
)
def test_a_task_of_the_opposite_background_is_inverted(known, ground, invert):
    form = InputSpec(1, SIDE, SIDE, background=known)
    pixels = drawings(4, ground, 100)
    suited = form.suited(pixels)
    assert suited == replace(form, invert=invert)
    wanted = (255 - pixels if invert else pixels) / 255.0
    torch.testing.assert_close(suited.floats(torch.tensor(pixels)), torch.tensor(wanted, dtype=torch.float32))


def test_floats_are_inverted_before_they_are_normalised():
    form = InputSpec(3, 4, 4, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "dark", invert=True)
    found = form.floats(torch.full((1, 3, 4, 4), 51, dtype=torch.uint8))
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.7 / 0.5, 0.6 / 0.25, 0.5 / 2.0]))


GOOD = {"channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.2], "background": "dark"}


def read_form(told):
    form = convert(told, InputSpec)
    require_agreement(form)
    return form


def test_a_form_is_read():
    assert read_form(GOOD) == InputSpec(1, 8, 8, (0.5,), (0.2,), "dark")
    assert read_form(GOOD | {"mean": None, "std": None, "invert": True}) == InputSpec(1, 8, 8, None, None, "dark", True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 2}, {"channels": True}, {"channels": 1.0}, {"channels": [1]}, {"height": 3, "width": 3},
        {"height": 2048, "width": 2048}, {"width": 9}, {"width": 8.0}, {"mean": None}, {"std": None}, {"std": [0]},
        {"std": [-1.0]}, {"mean": [0.1, 0.2]}, {"mean": [float("nan")]}, {"mean": ["a"]}, {"mean": [10**400]},
        {"mean": 3}, {"background": "purple"}, {"background": ["dark"]}, {"background": None}, {"invert": 1},
        {"invert": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_a_form_that_is_none(wrong):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        read_form(GOOD | wrong)


@pytest.mark.parametrize("missing", ["channels", "height", "width", "mean", "std"])
def test_a_form_that_lacks_something(missing):
    with pytest.raises(ValueError, match="expected"):
        read_form({name: value for name, value in GOOD.items() if name != missing})


@hypothesis.settings(
    derandomize=True,
    deadline=None,
    max_examples=80,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]),
    place=st.floats(0, 0.9999),
    mask=st.integers(1, 255),
    cut=st.booleans(),
)
def test_a_damaged_image_file_is_read_or_refused_in_one_line(tmp_path, kind, place, mask, cut):
    path = tmp_path / f"image.{kind.lower()}"
    Image.fromarray(np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)).save(path, format=kind)
    whole = bytearray(path.read_bytes())
    index = int(place * len(whole))
    if cut:
        whole = whole[:index]
    else:
        whole[index] ^= mask
    path.write_bytes(bytes(whole))
    said = ""
    try:
        pixels, _ = to_pixels([path], 3, 16)
    except DataError as error:
        said = str(error)
    else:
        assert pixels.shape == (1, 3, 16, 16)
    assert "\n" not in said
