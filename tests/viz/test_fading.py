"""The supernet's cell as it fades in: every edge is drawn, and as strongly as it weighs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from metadarts.core.errors import ConfigError, GenotypeError, NumericsError
from metadarts.core.rng import Key
from metadarts.spaces import SearchSpace, darts
from metadarts.viz import CellMoment, Picture, draw_fading_cells
from metadarts.viz._fading import PALEST, THICK, THIN, _draw_moment, _edges
from metadarts.viz._shades import shades

SMALL = SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=2)
COLORS = shades(SMALL.operations)
WEIGHTS = [[0.9, 0.1, 0.0], [0.0, 0.25, 0.75], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.98, 0.01, 0.01]]


def arcs(space: SearchSpace, weights: list[list[float]]) -> list[PathPatch]:
    axes = Figure().add_subplot()
    _draw_moment(axes, space, _edges(CellMoment("a", weights), space, shades(space.operations)), "a", (-2.0, 2.0))
    return [patch for patch in axes.patches if isinstance(patch, PathPatch)]


def ends(arc: PathPatch) -> tuple[int, int]:
    """The states that an arc joins."""
    points = arc.get_path().vertices
    return round(points[0][0]), round(points[-1][0])


def test_every_edge_is_as_strong_as_its_heaviest_operation_other_than_none() -> None:
    found = {
        ends(arc): (to_hex(arc.get_edgecolor()), arc.get_alpha(), arc.get_linewidth()) for arc in arcs(SMALL, WEIGHTS)
    }
    skip, conv = COLORS["skip_connect"], COLORS["sep_conv_3x3"]
    expected = {
        (0, 2): (skip, 0.1), (1, 2): (conv, 0.75), (0, 3): (skip, 0.5), (1, 3): (conv, 1.0), (2, 3): (skip, 0.01),
    }  # fmt: skip
    assert found == {
        edge: (color, max(PALEST, weight), pytest.approx(THIN + THICK * weight))
        for edge, (color, weight) in expected.items()
    }


def test_strong_edges_lie_on_top() -> None:
    found = arcs(SMALL, WEIGHTS)
    assert [ends(arc) for arc in found] == [(2, 3), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert [arc.get_zorder() for arc in found] == sorted(arc.get_zorder() for arc in found)


@pytest.mark.parametrize(
    "space", [darts(4), darts(8), SearchSpace("one", ("none", "skip_connect"), 1, 1, edges_per_node=1)]
)
def test_arcs_join_their_states_and_stay_in_the_picture(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Axes] = []
    monkeypatch.setattr("metadarts.viz._fading._draw_key", lambda sheet, *_: seen.extend(sheet.axes))
    draw_fading_cells([CellMoment("a", torch.ones(space.alpha_shape))], space, Picture(".svg"))
    (axes,) = seen
    drawn = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert sorted(map(ends, drawn)) == sorted((source, node + space.inputs) for node, source in space.edges)
    for patch in drawn:
        box = patch.get_path().get_extents()  # of the curve, not of its handles
        assert axes.get_xlim()[0] < box.x0 < box.x1 < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < box.y0 < box.y1 < axes.get_ylim()[1]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_picture_in_memory_has_the_bytes_of_its_file(suffix: str, tmp_path: Path) -> None:
    noise = torch.rand(4, *darts().alpha_shape, generator=Key.from_seed(0).torch())
    moments = [CellMoment(f"meta-step {step}", table) for step, table in enumerate(noise)]
    picture, path = Picture(suffix), tmp_path / f"a{suffix}"
    draw_fading_cells(moments, darts(), picture, "a title")
    draw_fading_cells(moments, darts(), path, "a title")
    assert picture.getvalue() == path.read_bytes()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match="at least one moment"):
        draw_fading_cells([], SMALL, Picture())
    with pytest.raises(GenotypeError, match=r"'a': expected weights \(5, 3\), got \(5, 2\)"):
        draw_fading_cells([CellMoment("a", torch.ones(5, 2))], SMALL, Picture())
    with pytest.raises(NumericsError, match="'a': expected finite weights"):
        draw_fading_cells([CellMoment("a", torch.full((5, 3), math.nan))], SMALL, Picture())
    with pytest.raises(ConfigError, match="expected a picture ending in"):
        draw_fading_cells([CellMoment("a", WEIGHTS)], SMALL, tmp_path / "a.jpg")
