"""A searched cell against random ones: what is made of their figures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cells_compared import Trained, above_line, compare
from metadarts.core.rng import Key

TASKS = 200


def trained(means, weights, validation=None, name="cells"):
    noise = 0.1 * Key(("tests", name)).numpy().standard_normal((len(means), TASKS))
    noise -= noise.mean(1, keepdims=True)
    means = np.array(means, dtype=np.float64)
    chosen = means if validation is None else np.array(validation)
    return Trained(means[:, None] + noise, chosen, np.array(weights, dtype=np.float64))


def test_difference_ranks_and_the_best_by_validation():
    theirs = trained([0.50, 0.52, 0.54, 0.56], [1000, 1100, 1200, 1300], validation=[0.1, 0.4, 0.2, 0.3])
    found = compare(trained([0.57, 0.55], [1100, 1200], name="ours"), theirs)
    assert found.difference.mean == pytest.approx(3.0)
    assert found.difference.low < 3.0 < found.difference.high
    assert found.ranks == (1, 2)
    assert found.best.mean == pytest.approx(4.0)  # less the second, which validation has at the top
    assert found.cells(4)[1] == "1, 2 of 5"


def test_at_equal_weights_a_line_is_followed():
    x = np.log(np.array([1000.0, 2000.0, 4000.0, 8000.0]))
    on_it = 0.1 + 0.05 * x
    found = above_line(x, on_it, np.log(np.array([3000.0])), np.array([0.1 + 0.05 * np.log(3000.0) + 0.02]))
    assert found.mean == pytest.approx(0.02)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-9)
    scattered = on_it + np.array([0.01, -0.01, -0.01, 0.01])
    wide = above_line(x, scattered, np.log(np.array([3000.0])), np.array([0.5]))
    far = above_line(x, scattered, np.log(np.array([30000.0])), np.array([0.5]))
    assert far.high - far.low > wide.high - wide.low > 0.02


def test_the_interval_of_a_line_holds_in_ninety_five_of_a_hundred_draws():
    draw, held = Key(("tests", "line")).numpy(), 0
    x = np.linspace(0.0, 1.0, 8)
    for _ in range(400):
        y, new = 0.3 + x + 0.1 * draw.standard_normal(8), 0.3 + 0.4 + 0.1 * draw.standard_normal(2)
        found = above_line(x, y, np.array([0.4, 0.4]), new)
        held += found.contains(0.0)
    assert 0.91 < held / 400 < 0.985
