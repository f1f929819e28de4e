"""Pictures are written, are the same every time, and no two labels of a cell meet."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, GenotypeError, NumericsError
from metadarts.core.rng import Key
from metadarts.operations import OPERATIONS, Operation
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype
from metadarts.viz import draw_alphas, draw_choices, draw_curve, draw_genotype
from metadarts.viz._layout import LANE, OUTPUT, lay_out
from metadarts.viz._shades import box_colors, shades

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml"}


@pytest.fixture
def genotype() -> Genotype:
    return random_genotype(darts(), Key.from_seed(0))


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_genotypes_are_drawn_with_the_same_bytes(suffix: str, genotype: Genotype, tmp_path: Path) -> None:
    paths = [tmp_path / "new folder" / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        draw_genotype(genotype, path, "a title")
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(SIGNATURES[suffix])
    assert first == second
    assert b"dc:date" not in first


def test_other_suffixes_are_refused(genotype: Genotype, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a picture ending in .png or .svg, got 'cell.gif'"):
        draw_genotype(genotype, tmp_path / "cell.gif")
    assert not list(tmp_path.iterdir())


def test_one_cell_and_unknown_operations_are_drawn(tmp_path: Path) -> None:
    draw_genotype(Genotype((("my_op", 0), ("skip_connect", 1)), (2,), (), ()), tmp_path / "one.svg")
    assert (tmp_path / "one.svg").exists()


OWN = OPERATIONS.plus("my_op", Operation(run=None, shade="#0f2d4b"))


def test_an_operation_has_the_colour_that_it_says(tmp_path: Path) -> None:
    genotype, space = Genotype((("my_op", 0), ("sep_conv_3x3", 1)), (2,), (), ()), darts(nodes=1)
    space = replace(space, primitives=("my_op", "sep_conv_3x3"), cell_types=("normal",))
    draw_genotype(genotype, tmp_path / "cell.svg", operations=OWN)
    draw_choices([0, 1], [genotype, genotype], space, tmp_path / "choices.svg", operations=OWN)
    cell, choices = ((tmp_path / f"{name}.svg").read_text() for name in ("cell", "choices"))
    for shade in ("#0f2d4b", OPERATIONS["sep_conv_3x3"].shade):
        assert shade in choices
        assert all(color in cell for color in box_colors(shade))


def test_operations_without_a_colour_are_told_apart() -> None:
    found = shades(["other", "max_pool_3x3", "another"])
    assert found["max_pool_3x3"] == OPERATIONS["max_pool_3x3"].shade
    assert list(found) == ["other", "max_pool_3x3", "another"]
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("shade", ["#000000", "#ffffff", "#9aa1ac", "#1f5fa8"])
def test_what_is_written_in_a_box_can_be_read(shade: str) -> None:
    face, letters = (sum(int(color[at : at + 2], 16) for at in (1, 3, 5)) / 765 for color in box_colors(shade))
    assert face - letters > 0.4


def test_an_empty_genotype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match="nothing to draw"):
        draw_genotype(Genotype((), (), (), ()), tmp_path / "none.svg")


@pytest.mark.parametrize("seed", range(25))
def test_layouts_are_complete_and_nothing_meets(seed: int) -> None:
    genotype = random_genotype(darts(), Key.from_seed(seed))
    layout = lay_out(genotype.choices("normal"), genotype.concat("normal"))
    drawn = [(state - 2, op) for state, boxes in layout.boxes.items() for op, _ in boxes]
    assert sorted(drawn) == sorted((node, op) for node, _, op in genotype.choices("normal"))
    boxes = [(layout.place[state][0], height) for state, pair in layout.boxes.items() for _, height in pair]
    for (column, height), (other_column, other_height) in combinations([*boxes, *layout.lanes], 2):
        assert column != other_column or abs(height - other_height) > 0.8 * LANE
    arrivals = [wire for wire in layout.wires if not wire.lane]
    assert len(arrivals) == 8 + 4
    assert all(layout.place[source][0] < layout.place[OUTPUT][0] for source in range(6))


def test_every_wire_ends_at_the_operation_that_reads_it() -> None:
    """Distinct operations per edge, so that heights identify edges."""
    choices = [(0, 0, "a"), (0, 1, "b"), (1, 1, "c"), (1, 2, "d"), (2, 0, "e"), (2, 3, "f"), (3, 2, "g"), (3, 4, "h")]
    layout = lay_out(choices, (2, 3, 4, 5))
    ends = {(wire.column + 1, wire.stop): wire.state for wire in layout.wires if not wire.lane}
    for state, boxes in layout.boxes.items():
        for op, height in boxes:
            assert (state - 2, ends[layout.place[state][0], height], op) in choices


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray, lambda values: values], ids=["torch", "numpy", "list"])
def test_alphas_are_drawn(kind: object, tmp_path: Path) -> None:
    values = torch.randn(14, 8, generator=Key.from_seed(0).torch()).tolist()
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        draw_alphas({"normal": kind(values), "reduce": kind(values)}, darts(), path, "alphas")  # type: ignore[operator]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_alphas_of_one_cell_type_are_drawn(tmp_path: Path) -> None:
    space = SearchSpace("one", ("none", "skip_connect"), nodes=1, cell_types=("normal",))
    draw_alphas({"normal": [[0.0, 1.0], [0.0, 2.0]]}, space, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_other_alphas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match="expected numbers"):
        draw_alphas({"normal": "text", "reduce": "text"}, darts(), tmp_path / "a.png")
    with pytest.raises(GenotypeError, match="expected shape"):
        draw_alphas({"normal": np.zeros((2, 2)), "reduce": np.zeros((14, 8))}, darts(), tmp_path / "a.png")
    with pytest.raises(NumericsError):
        draw_alphas({"normal": np.full((14, 8), np.nan), "reduce": np.zeros((14, 8))}, darts(), tmp_path / "a.png")


def test_curves_are_drawn(tmp_path: Path) -> None:
    curves = {f"run {index}": [0.1 * index, 0.2, float("nan"), 0.4] for index in range(10)} | {"long": [0.5] * 40}
    for name in ("a.svg", "b.svg"):
        draw_curve(curves, tmp_path / name, ylabel="query accuracy", title="adaptation")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_empty_curves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got none"):
        draw_curve({}, tmp_path / "a.png")
    with pytest.raises(ConfigError, match="empty"):
        draw_curve({"loss": []}, tmp_path / "a.png")


def test_import_is_free_and_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib, metadarts.viz as viz
assert "matplotlib" not in sys.modules and "torch" not in sys.modules
viz.draw_curve({{"a": [1.0]}}, pathlib.Path({str(tmp_path / "a.png")!r}))
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
assert matplotlib.rcParams["svg.hashsalt"] is None
"""
    subprocess.run([sys.executable, "-c", code], check=True)
