"""Genotypes side by side: the marks are the choices that the first one does not make, and the captions count them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from metadarts.core.errors import ConfigError, GenotypeError
from metadarts.core.rng import Key
from metadarts.derive import genotype_distance
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype
from metadarts.viz import Picture, _cell, draw_genotypes

HOSTILE = [r"$\frac{$", "a$b$c", "数字", "line\nbreak\x00", "W" * 500, r"\$", ""]


def genotype(seed: int) -> Genotype:
    return random_genotype(darts(), Key.from_seed(seed))


def one_cell(*pairs: tuple[str, int]) -> Genotype:
    return Genotype(pairs, tuple(range(2, 2 + len(pairs) // 2)), (), ())


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn, in order."""
    texts: list[str] = []
    original = Axes.text
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, **how: texts.append(s) or original(self, x, y, s, **how))
    return texts


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """("halo", height) of every mark, and right after it (operation, height) of its box, among those of all boxes."""
    calls: list[tuple[str, float]] = []
    box, halo = _cell._box, _cell.draw_halo
    monkeypatch.setattr(_cell, "_box", lambda a, at, op, colors: calls.append((op, at[1])) or box(a, at, op, colors))
    monkeypatch.setattr(_cell, "draw_halo", lambda a, x, y, wide: calls.append(("halo", y)) or halo(a, x, y, wide))
    return calls


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_has_the_same_bytes_every_time(suffix: str, tmp_path: Path) -> None:
    picture, path = Picture(suffix), tmp_path / "new" / f"a{suffix}"
    for target in (picture, path):
        draw_genotypes([("meta-learned", genotype(0)), ("adapted", genotype(1))], target, "a title")
    assert picture.getvalue() == path.read_bytes()
    assert picture.getvalue().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


@pytest.mark.parametrize("seed", range(1, 9))
def test_as_many_are_marked_as_the_caption_says_and_the_distance_is(
    seed: int, said: list[str], drawn: list[tuple[str, float]]
) -> None:
    first, second = genotype(0), genotype(seed)
    draw_genotypes([("a", first), ("b", second)], Picture())
    distance = genotype_distance(first, second)
    assert f"{distance} of 16 choices differ" in said
    assert [name for name, _ in drawn].count("halo") == distance


def test_the_marked_are_those_that_the_first_does_not_make(drawn: list[tuple[str, float]]) -> None:
    """Distinct operations, so that a name is a choice; an order within a node is no choice."""
    first = one_cell(("a", 0), ("b", 1), ("c", 0), ("d", 2), ("e", 1), ("f", 3))
    second = one_cell(("b", 1), ("a", 0), ("c", 0), ("x", 2), ("e", 0), ("f", 3))
    third = one_cell(("a", 0), ("b", 1), ("c", 0), ("d", 2), ("f", 3), ("e", 2))
    draw_genotypes([("first", first), ("second", second), ("third", third)], Picture())
    marked = [box for mark, box in pairwise(drawn) if mark[0] == "halo"]
    assert sorted(op for op, _ in marked) == ["e", "e", "x"]
    assert [height for name, height in drawn if name == "halo"] == [height for _, height in marked]


@pytest.mark.parametrize(("pairs", "side"), [((("a", 0), ("b", 1)), -1), ((("b", 0), ("a", 1)), 1)])
def test_of_two_equal_operations_the_one_that_changed_is_marked(
    pairs: tuple[tuple[str, int], ...], side: int, drawn: list[tuple[str, float]]
) -> None:
    """The upper box reads input 0, the lower one input 1."""
    draw_genotypes([("first", one_cell(*pairs)), ("second", one_cell(("a", 0), ("a", 1)))], Picture())
    (height,) = (height for name, height in drawn if name == "halo")
    assert height * side > 0


def test_one_genotype_or_equal_ones_are_drawn_without_marks(said: list[str], drawn: list[tuple[str, float]]) -> None:
    draw_genotypes([("alone", genotype(0))], Picture())
    assert "16 choices" in said
    draw_genotypes([("a", genotype(0)), ("b", genotype(0).canonical())], Picture())
    assert "0 of 16 choices differ" in said
    assert "halo" not in [name for name, _ in drawn]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_text_can_be_a_caption_or_a_title(text: str, suffix: str) -> None:
    draw_genotypes([(text, one_cell(("a", 0), ("b", 1))), (text, one_cell(("a", 0), ("b", 0)))], Picture(suffix), text)


def test_a_cell_may_read_more_than_two_earlier_ones(drawn: list[tuple[str, float]]) -> None:
    space = SearchSpace("three", ("none", "skip_connect", "sep_conv_3x3"), nodes=2, inputs=3)
    pair = [random_genotype(space, Key.from_seed(seed)) for seed in (0, 1)]
    draw_genotypes([("a", pair[0]), ("b", pair[1])], Picture(), inputs=3)
    assert [name for name, _ in drawn].count("halo") == genotype_distance(*pair) > 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ConfigError, match="expected at least one genotype with its caption, got none"):
        draw_genotypes([], path)
    with pytest.raises(ConfigError, match=r"'b': expected as many .* has, \(8, 8\), got \(2, 0\)"):
        draw_genotypes([("a", genotype(0)), ("b", one_cell(("a", 0), ("b", 1)))], path)
    with pytest.raises(GenotypeError, match="nothing to draw"):
        draw_genotypes([("a", Genotype((), (), (), ()))], path)
    with pytest.raises(ConfigError, match=r"expected a picture ending in .png or .svg, got 'a.gif'"):
        draw_genotypes([("a", genotype(0))], tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
