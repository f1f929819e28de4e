"""A sheet of predictions: the mistakes first, every label inside its place, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.text import Text
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError
from metadarts.viz import Picture, draw_predictions
from metadarts.viz._sheet import PITCH, WRONG, fit

CLASSES = ("ant", "bee", "cat")
HOSTILE = [r"$\frac{$", "a$b$c", "数字", "line\nbreak\x00", "W" * 500, r"\$", "", "Tifinagh/character_0" * 3]


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of every sheet, each once."""
    seen: list[Axes] = []
    original = Axes.set
    monkeypatch.setattr(Axes, "set", lambda self, **how: seen.append(self) or original(self, **how))
    return seen


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def frames(axes: Axes) -> list[str]:
    """The colours of the frames in the order of the pictures."""
    return [to_hex(patch.get_edgecolor()) for patch in axes.patches if not patch.get_fill()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_has_the_same_bytes_every_time(suffix: str, channels: int, tmp_path: Path) -> None:
    picture, path = Picture(suffix), tmp_path / "new" / f"a{suffix}"
    for target in (picture, path):
        draw_predictions(noise(2, channels, 28, 28), [0, 1], [0, 2], [0.5, 0.25], CLASSES, target, "a title")
    assert picture.getvalue() == path.read_bytes()
    assert picture.getvalue().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_wrong_ones_come_first_and_say_the_true_class(sheets: list[Axes]) -> None:
    images, shares = noise(4, 1, 5, 5), [0.1, 0.2, 0.3, 1.0]
    draw_predictions(images, [0, 1, 2, 0], [0, 2, 2, 1], shares, CLASSES, Picture(), "a title")
    (axes,) = sheets
    assert texts(axes) == ["a title", "2 wrong of 4", "20.0%", "cat", "true: bee", "100.0%", "bee", "true: ant",
                           "10.0%", "ant", "30.0%", "cat"]  # fmt: skip
    assert [color == WRONG for color in frames(axes)] == [True, True, False, False]
    for image, index in zip(axes.images, (1, 3, 0, 2), strict=True):
        np.testing.assert_array_equal(image.get_array(), images[index, 0])


def test_colours_are_those_of_the_image(sheets: list[Axes]) -> None:
    images = noise(1, 3, 4, 6)
    draw_predictions(images, None, [0], [0.5], CLASSES, Picture())
    np.testing.assert_array_equal(sheets[0].images[0].get_array(), images[0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("truth", "most", "shown", "said"),
    [
        ([1] * 25, 60, 25, "25 wrong of 25"),
        ([1] * 12 + [0] * 13, 20, 20, "12 wrong of 25, 20 shown"),
        ([1] * 25, 3, 3, "25 wrong of 25, 3 shown"),
        ([0] * 25, 60, 25, "0 wrong of 25"),
        (None, 24, 24, "25 images, 24 shown"),
    ],
)
def test_the_title_counts_all_images(
    truth: list[int] | None, most: int, shown: int, said: str, sheets: list[Axes]
) -> None:
    draw_predictions(noise(25, 1, 3, 3), truth, [0] * 25, [0.5] * 25, CLASSES, Picture(), most=most)
    assert texts(sheets[0])[0] == said
    assert len(sheets[0].images) == shown


def test_one_image_of_unknown_class_is_not_called_wrong(sheets: list[Axes]) -> None:
    draw_predictions(noise(1, 1, 1, 1), None, [2], [0.0], CLASSES, Picture())
    assert texts(sheets[0]) == ["1 image", "0.0%", "cat"]
    assert WRONG not in frames(sheets[0])


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (20, 84)])
def test_any_shape_of_image_is_drawn(shape: tuple[int, int]) -> None:
    draw_predictions(noise(3, 3, *shape), [0, 0, 0], [0, 1, 2], [0.5] * 3, CLASSES, Picture())


def test_arrays_are_taken_as_lists_are() -> None:
    given: list[tuple[Any, Any, Any]] = [([0, 1], [1, 1], [0.5, 0.25])]
    given.append((np.array([0, 1]), np.array([1, 1]), np.array([0.5, 0.25], dtype=np.float32)))
    pictures = [Picture(), Picture()]
    for (truth, predicted, confidence), picture in zip(given, pictures, strict=True):
        draw_predictions(noise(2, 1, 9, 9), truth, predicted, confidence, CLASSES, picture)
    assert pictures[0].getvalue() == pictures[1].getvalue()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_text_can_be_a_class_and_stays_in_its_place(
    text: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[float] = []
    original = Text.draw

    def measured(self: Text, renderer: Any) -> None:
        widths.append(self.get_window_extent(renderer).width / self.get_figure().dpi)
        original(self, renderer)

    monkeypatch.setattr(Text, "draw", measured)
    draw_predictions(noise(2, 1, 5, 5), [0, 1], [1, 1], [0.5, 1.0], [text, text], Picture(suffix), text)
    in_places = sorted(widths)[:-2]  # without the two lines of the title
    assert max(in_places) < PITCH


def test_what_is_too_long_keeps_its_beginning_and_its_end() -> None:
    first, second = (fit(f"Alphabet_of_the_Magi/character{number}", 1.0, 7) for number in ("05", "06"))
    assert first != second
    assert first.startswith("Alpha")
    assert "..." in first
    assert fit("short", 1.0, 7) == "short"
    assert fit("wide", 0.01, 7) == "w..."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": [[0]]}, r"uint8 array \[n, C, H, W\], got list"),
        ({"images": noise(2, 1, 4, 4) / 255}, r"uint8 array .*, got float64 \[2, 1, 4, 4\]"),
        ({"images": noise(2, 4, 4)}, r"got uint8 \[2, 4, 4\]"),
        ({"images": noise(2, 4, 4, 1)}, r"1 or 3 channels and some pixels, got uint8 \[2, 4, 4, 1\]"),
        ({"images": noise(0, 1, 4, 4)}, r"expected at least one, .*got uint8 \[0, 1, 4, 4\]"),
        ({"images": noise(2, 1, 4, 0)}, r"got uint8 \[2, 1, 4, 0\]"),
        ({"truth": [0]}, "truth: expected one value for each of 2 images, got 1"),
        ({"predicted": [0, 1, 2]}, "predicted: expected one value for each of 2 images, got 3"),
        ({"confidence": []}, "confidence: expected one value for each of 2 images, got 0"),
        ({"truth": [0, -1]}, "truth: expected indices from 0 to 2, of 3 classes, got -1"),
        ({"predicted": [3, 0]}, "predicted: expected indices from 0 to 2, of 3 classes, got 3"),
        ({"predicted": [0.5, 0]}, "predicted: expected indices .*, got 0.5"),
        ({"classes": []}, "classes: expected at least one name, got none"),
        ({"classes": ["a", 3, "b"]}, "classes: expected names, got 3"),
        ({"confidence": [0.5, 1.5]}, "confidence: expected probabilities from 0 to 1, got 1.5"),
        ({"confidence": [float("nan"), 0.5]}, "confidence: expected probabilities from 0 to 1, got nan"),
        ({"most": 0}, "most: expected at least 1 image to show, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"images": noise(2, 1, 4, 4), "truth": [0, 1], "predicted": [0, 1]}
    given |= {"confidence": [0.5, 0.5], "classes": CLASSES, "target": tmp_path / "a.png"}
    with pytest.raises(ConfigError, match=message):
        draw_predictions(**(given | changed))
    assert not list(tmp_path.iterdir())
