"""How a glyph is drawn and compared: outlines, jitter, rasteriser, likeness, each against a plain restatement."""

from __future__ import annotations

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.tasks.glyph.jitter import SIZE, Jitter, draw_copies, draw_plain, uniforms
from metadarts.tasks.glyph.lookalikes import close_pairs, likeness, plain_drawings, select
from metadarts.tasks.glyph.outlines import FontReader, build_outline
from metadarts.tasks.glyph.raster import rasterise


@pytest.fixture(scope="module")
def reader():
    return FontReader()


def outlines(reader, text, font=0):
    return [reader.outline(font, ord(letter)) for letter in text]


def test_outline_is_normalised_and_closed(reader):
    for letter in outlines(reader, "AgO8%"):
        sides = letter.points.max(0) - letter.points.min(0)
        assert sides.max() == pytest.approx(1)
        assert letter.points.max(0) + letter.points.min(0) == pytest.approx(0)
        assert sorted(letter.after) == list(range(len(letter.points)))  # every corner follows exactly one
    assert reader.outline(0, ord(" ")) is None


def square(x, y, side):
    corners = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], dtype=float)
    return corners, np.roll(corners, -1, axis=0)


def test_rasteriser_covers_areas_exactly():
    starts, ends = square(1.0, 2.0, 3.5)
    drawn = rasterise(starts, ends, np.zeros(4, np.int64), 1, 8)[0]
    expected = np.zeros((8, 8))
    expected[2:6, 1:5] = 255
    expected[5, 1:5], expected[2:6, 4] = 128, 128
    expected[5, 4] = 64
    np.testing.assert_array_equal(drawn, expected)


def test_rasteriser_fills_by_the_winding_rule_and_keeps_images_apart():
    outer, inner, beside = square(0, 0, 8), square(2, 2, 4), square(-5, 3, 6)
    hole = (inner[1], inner[0])  # wound the other way
    sides = [outer, hole, outer, inner, beside]
    image = np.repeat([0, 0, 1, 1, 2], 4)
    drawn = rasterise(np.concatenate([s for s, _ in sides]), np.concatenate([e for _, e in sides]), image, 4, 8)
    assert drawn.astype(int).sum(axis=(1, 2)).tolist() == [48 * 255, 64 * 255, 5 * 255, 0]


def test_outward_grows_the_ink_whichever_way_the_font_winds():
    vertices = np.array([[0, 0], [100, 0], [100, 50], [0, 50], [0, 0]], dtype=float)
    codes = np.array([1, 2, 2, 2, 79], dtype=np.uint8)
    for path in (vertices, vertices[[0, 3, 2, 1, 4]]):
        outline = build_outline(path, codes)
        assert outline.aspect == pytest.approx(0.5)
        grown = outline.points + 0.1 * outline.outward
        assert (grown.max(0) - grown.min(0)).tolist() == pytest.approx([1.2, 0.7])


def test_undistorted_copy_is_the_plain_drawing(reader):
    still = Jitter(turn=0, shear=0, shrink=0, shift=0, bend=0, thin=0, thick=0)
    letters = outlines(reader, "Rj")
    copies, which = draw_copies(letters, Key.from_seed(0), 2, still)
    assert which.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(copies[::2], draw_plain(letters, SIZE, 20.0))
    np.testing.assert_array_equal(copies[::2], copies[1::2])


def test_copies_differ(reader):
    copies, _ = draw_copies(outlines(reader, "R"), Key.from_seed(0), 8, Jitter())
    assert len({copy.tobytes() for copy in copies}) == 8


def test_uniforms_are_fixed_by_the_key():
    numbers = uniforms(Key.from_seed(0), 4000)
    assert (0 <= numbers).all()
    assert (numbers < 1).all()
    assert numbers.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(numbers[:5], uniforms(Key.from_seed(0), 5))


def drawn_in_all_fonts(reader, letter):
    return [reader.outline(font, ord(letter)) for font in reader.fonts_of(ord(letter))]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("A", "Α", True),  # noqa: RUF001 - Greek
        ("A", "А", True),  # noqa: RUF001 - Cyrillic
        ("h", "հ", True),  # noqa: RUF001 - Armenian
        ("#", "ⵌ", True),  # only when stretched
        ("A", "B", False),
        ("S", "ლ", False),
    ],
)
def test_look_alikes(reader, one, other, alike):
    characters = [drawn_in_all_fonts(reader, letter) for letter in (one, other)]
    close = close_pairs(characters, np.array(["train", "test"]))
    assert close[0, 1] == close[1, 0] == alike
    assert close.diagonal().all()


def test_likeness_is_the_correlation_of_the_likest_drawings(reader):
    characters = [drawn_in_all_fonts(reader, letter) for letter in "AΔ8"]
    drawings = plain_drawings(characters)
    plain = np.corrcoef(drawings.shades)
    spans = [slice(*span) for span in zip(drawings.starts, drawings.ends, strict=True)]
    expected = [[plain[one, other].max() for other in spans] for one in spans]
    np.testing.assert_allclose(likeness(drawings, drawings), expected, atol=1e-5)


def test_selection_follows_the_three_steps():
    close = np.eye(7, dtype=bool)
    for one, other in [(0, 1), (1, 4), (2, 5), (3, 5), (4, 6)]:
        close[one, other] = close[other, one] = True
    split = np.array(["train", "train", "val", "val", "test", "test", "test"])
    # 1 looks like 0; 4 like the dropped 1; 6 only like the dropped 4; 2 and 3 like the kept test class 5
    assert select(close, split).tolist() == [True, False, False, False, False, True, True]
