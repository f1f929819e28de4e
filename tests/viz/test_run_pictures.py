"""Pictures of a run: the same every time, in memory as on disk, and true to the numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metadarts.core.errors import ConfigError, GenotypeError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import Stage
from metadarts.derive import derive_genotype
from metadarts.relaxations import Softmax
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype
from metadarts.viz import (
    Panel,
    Picture,
    Series,
    _traces,
    draw_alpha_history,
    draw_choices,
    draw_curve,
    draw_history,
    draw_intervals,
    draw_validations,
    plain,
)
from metadarts.viz._choices import _spans
from metadarts.viz._fonts import _fonts, _shown, families
from metadarts.viz._history import _draw_panel, running_mean

SMALL = SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=2)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=Key.from_seed(3).torch())


def genotypes(count: int) -> list[Genotype]:
    return [random_genotype(darts(), Key.from_seed(seed)) for seed in range(count)]


def history(target: Path | Picture) -> None:
    wild = [1.0, math.nan, 0.0, -2.0, 300.0] * 10
    line = Series(range(50), wild, noisy=True)
    looks = Series([10, 40], [0.4, 0.6], [0.02, 0.01])
    draw_history([Panel("a", {"x": line}, log=True), Panel("b", {"y": looks}, lines={"even": 0.2}, whole=True)], target)


DRAWERS = {
    "history": history,
    "one point": lambda target: draw_history([Panel("a", {"x": Series([3], [0.5], [0.1])}, log=True)], target),
    "validations": lambda target: draw_validations(
        [3, 8], {"a": [[0.2, 0.5], [0.2, 0.9, 1.0]], "b": [[1.0], [0.5]]}, target
    ),
    "alphas": lambda target: draw_alpha_history([0, 5, 9], noise(3, 14, 8), "reduce", darts(), target, "a title"),
    "one look": lambda target: draw_alpha_history([7], noise(1, 5, 3), "normal", SMALL, target),
    "one node": lambda target: draw_alpha_history(
        [1, 2], noise(2, 2, 2), "normal", SearchSpace("one", ("none", "skip_connect"), 1), target
    ),
    "choices": lambda target: draw_choices([0, 4, 9], genotypes(3), darts(), target),
    "one choice": lambda target: draw_choices([0], genotypes(1), darts(), target),
    "intervals": lambda target: draw_intervals({"a": (0.9, 0.01), "b": (1.0, 0.0)}, target, xlabel="accuracy"),
}


@pytest.mark.parametrize(("name", "suffix"), [*((name, ".svg") for name in DRAWERS), ("history", ".png")])
def test_a_picture_in_memory_has_the_bytes_of_its_file(name: str, suffix: str, tmp_path: Path) -> None:
    draw, picture, path = DRAWERS[name], Picture(suffix), tmp_path / "new" / f"a{suffix}"
    draw(picture)
    draw(path)
    assert picture.getvalue() == path.read_bytes()
    assert picture.getvalue().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_a_picture_has_the_resolution_asked_for() -> None:
    low, high = Picture(dpi=50), Picture(dpi=100)
    for picture in (low, high):
        draw_curve({"a": [1.0, 2.0]}, picture)
    widths = [int.from_bytes(picture.getvalue()[16:20], "big") for picture in (low, high)]
    assert widths == [300, 600]
    with pytest.raises(ConfigError, match=r"got 'picture.gif'"):
        Picture(".gif")


def test_traces_show_each_weight_from_the_step_it_was_recorded_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded at steps 0, 31 and 40, drawn up to 41: each is shown from its step on, the last for the last 41st."""
    shown = []
    original = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, data, **how: shown.append(data) or original(self, data, **how))
    alphas = noise(3, 5, 3)
    draw_alpha_history([0, 31, 40], alphas, "normal", SMALL, Picture())
    assert len(shown) == SMALL.num_edges
    for edge, data in enumerate(shown):
        drawn = torch.tensor(data, dtype=torch.float64).exp2() / 3
        expected = alphas.double().softmax(-1)[:, edge]
        middles = [(column + 0.5) * 41 / drawn.shape[1] for column in range(drawn.shape[1])]
        looks = [(middle >= 31) + (middle >= 40) for middle in middles]
        assert set(looks) == {0, 1, 2}
        torch.testing.assert_close(drawn, expected[looks].T)


class Sigmoid(Softmax):
    """A relaxation that ranks edges otherwise than the softmax, and whose scores reach 0."""

    def weights(self, alpha: torch.Tensor, at: Stage, noise: torch.Tensor | None = None) -> torch.Tensor:
        return alpha.sigmoid()

    def scores(self, alpha: torch.Tensor) -> torch.Tensor:
        return alpha.double().sigmoid()


def frames(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str | None]]:
    """(node, source, kept operation or None) of every panel drawn from now on."""
    drawn: list[tuple[int, int, str | None]] = []
    original = _traces._label_panel

    def label(axes: Axes, node: int, source: int, space: SearchSpace, kept: str | None) -> None:
        drawn.append((node, source, kept))
        original(axes, node, source, space, kept)

    monkeypatch.setattr(_traces, "_label_panel", label)
    return drawn


def test_traces_are_those_of_the_runs_relaxation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are its scores, 0 among them, and the dots are the cell that derivation gives under it."""
    drawn, shown = frames(monkeypatch), []
    original = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, data, **how: shown.append(data) or original(self, data, **how))
    alphas = torch.tensor([[-9.0, 3.0, 3.1], [-9.0, -4.0, 0.0], [0.0, 4.0, 4.0], [0.0, 1.0, -2.0], [0.0, -1e4, 2.0]])
    draw_alpha_history([0], [alphas], "normal", SMALL, Picture(), relaxation=Sigmoid())
    one = SearchSpace("one", SMALL.primitives, 2, cell_types=("normal",))
    expected = derive_genotype({"normal": alphas}, one, Sigmoid())
    assert expected != derive_genotype({"normal": alphas}, one), "the two relaxations keep other edges"
    assert {panel for panel in drawn if panel[2]} == set(expected.choices("normal"))
    last = torch.tensor(shown, dtype=torch.float64)[:, :, -1].exp2() / 3
    torch.testing.assert_close(last, alphas.double().sigmoid(), rtol=1e-9, atol=1e-300)
    assert all(math.isfinite(value) for value in torch.tensor(shown).flatten().tolist())


@pytest.mark.parametrize("inputs_by", ["pairs", "edges"])
def test_traces_of_a_space_with_alphas_for_inputs_mark_the_cell_given(
    inputs_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace("own", SMALL.primitives, 2, inputs_by=inputs_by)
    kept = random_genotype(space, Key.from_seed(1))
    drawn = frames(monkeypatch)
    draw_alpha_history([0, 4], noise(2, 5, 3), "reduce", space, Picture(), kept=kept)
    assert {panel for panel in drawn if panel[2]} == set(kept.choices("reduce"))
    with pytest.raises(GenotypeError, match=r"has alphas for inputs too.*give the genotype"):
        draw_alpha_history([0, 4], noise(2, 5, 3), "reduce", space, Picture())
    with pytest.raises(GenotypeError, match="not a genotype of space 'own'"):
        draw_alpha_history([0, 4], noise(2, 5, 3), "reduce", space, Picture(), kept=genotypes(1)[0])


@pytest.mark.parametrize(("inputs", "nodes"), [(1, 1), (1, 3), (3, 2)])
def test_every_space_of_one_edge_per_node_can_be_drawn(
    inputs: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace("few", SMALL.primitives, nodes, inputs, edges_per_node=1)
    drawn = frames(monkeypatch)
    draw_alpha_history([0, 4], noise(2, space.num_edges, 3), "normal", space, Picture())
    assert [node for node, _, kept in drawn if kept] == list(range(nodes))


def test_choices_that_stay_are_one_bar() -> None:
    a, b, c = (0, 0, "x"), (0, 1, "y"), (0, 1, "z")
    spans = _spans([0, 5, 8], [5, 8, 10], [(a, b), (a, c), (a, b)])
    assert sorted(spans) == [(a, 0, 10), (b, 0, 5), (b, 8, 10), (c, 5, 8)]


def test_a_running_mean_is_the_mean_of_neighbours() -> None:
    assert running_mean([1.0, 2.0, 6.0, math.nan]) == [1.5, 3.0, 4.0, 6.0]
    assert math.isnan(running_mean([math.nan])[0])


def test_an_axis_shows_at_least_its_span() -> None:
    axes = Figure().subplots()
    _draw_panel(axes, Panel("entropy", {"x": Series([1, 2], [2.0, 2.001])}, span=0.1))
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.1)
    assert (low + high) / 2 == pytest.approx(2.0005)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ConfigError, match="2 steps, 1 values"):
        draw_history([Panel("a", {"x": Series([1, 2], [1.0])})], path)
    for panels in ([], [Panel("a", {})], [Panel("a", {"x": Series([], [])})]):
        with pytest.raises(ConfigError, match="at least one"):
            draw_history(panels, path)
    for steps, curves in (([1], {}), ([], {"a": []}), ([1, 2], {"a": [[1.0]]}), ([1], {"a": [[]]})):
        with pytest.raises(ConfigError, match="expected"):
            draw_validations(steps, curves, path)
    with pytest.raises(GenotypeError, match="got 1 for 2 steps"):
        draw_alpha_history([1, 2], noise(1, 5, 3), "normal", SMALL, path)
    with pytest.raises(GenotypeError, match="expected shape"):
        draw_alpha_history([1], noise(1, 3, 5), "normal", SMALL, path)
    with pytest.raises(NumericsError):
        draw_alpha_history([1], noise(1, 5, 3) / 0, "normal", SMALL, path)
    with pytest.raises(GenotypeError, match="got 0 for 0 steps"):
        draw_choices([], [], SMALL, path)
    with pytest.raises(GenotypeError, match="not a genotype of space 'small'"):
        draw_choices([1], genotypes(1), SMALL, path)
    with pytest.raises(ConfigError, match="got none"):
        draw_intervals({}, path, xlabel="")
    assert not list(tmp_path.iterdir())


ANY_TEXT = [r"$\frac{$", "a$b$c", "数字", "line\nbreak\x00", "x" * 500, r"\$", "e\u0301té Straße Ωжع", "\U0001f408"]


@pytest.mark.parametrize("text", ANY_TEXT)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_text_can_be_a_label(text: str, suffix: str) -> None:
    label = plain(text)
    assert len(label.replace(r"\$", "$")) <= 60
    assert label.isprintable()
    draw_curve({label: [1.0, 2.0]}, Picture(suffix))  # a letter that no font has would be a warning, and so an error


def test_letters_that_the_shipped_font_has_are_drawn_as_they_are():
    assert plain("e\u0301té Straße Ωж") == "été Straße Ωж"


def test_letters_that_no_font_has_stay_apart(monkeypatch):
    monkeypatch.setattr("metadarts.viz._fonts.WIDE", ())
    for cached in (families, _fonts, _shown):
        cached.cache_clear()
    try:
        assert [plain(text) for text in ("日本", "中国")] == [r"\u65e5\u672c", r"\u4e2d\u56fd"]
    finally:
        for cached in (families, _fonts, _shown):
            cached.cache_clear()
