"""Variance components: unbiased on tables whose components are known, and no gain where there is nothing to choose."""

from __future__ import annotations

import numpy as np
import pytest

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key
from metadarts.stats.components import components, expected_maximum

NONE = {"task": 0.0, "operation": 0.0, "domain": 0.0, "within": 0.0, "network": 0.0, "noise": 0.0}


def table(key, shape=(2, 3, 40, 8, 2), **deviations):
    """A table of independent normal effects with the given standard deviations."""
    s, d, m, c, r = shape
    of, draw = NONE | deviations, key.numpy().standard_normal
    return (
        of["task"] * draw((1, d, m, 1, 1))
        + of["operation"] * draw((1, 1, 1, c, 1))
        + of["domain"] * draw((1, d, 1, c, 1))
        + of["within"] * draw((1, d, m, c, 1))
        + of["network"] * draw((s, d, 1, c, 1))
        + of["noise"] * draw((s, d, m, c, r))
    )


def means(repeats, **deviations):
    """Means of the estimates over many tables."""
    found = [
        components(table(Key.from_seed(n).child("t"), **deviations), Key.from_seed(n).child("b"), draws=1)
        for n in range(repeats)
    ]
    return {name: np.mean([getattr(one, name).mean for one in found]) for name in vars(found[0])}


def test_unbiased():
    found = means(120, task=0.1, operation=0.05, domain=0.04, within=0.03, network=0.03, noise=0.08)
    assert found["task"] == pytest.approx(0.1**2, rel=0.06)
    assert found["operation"] == pytest.approx(0.05**2, rel=0.2)
    assert found["domain_operation"] == pytest.approx(0.04**2, rel=0.15)
    assert found["task_operation"] == pytest.approx(0.03**2, rel=0.1)


def test_noise_alone_is_no_component_and_gains_nothing():
    """Choosing by noise and measuring by the same noise would gain points."""
    found = means(60, network=0.03, noise=0.1)
    for name in ("task", "operation", "domain_operation", "task_operation"):
        assert abs(found[name]) < 2e-4
    assert abs(found["domain_gain"]) < 0.004
    assert abs(found["task_gain"]) < 0.002


def test_what_choosing_gains():
    """Without noise the gain is that of the best of each domain, and of each task."""
    whole = table(Key(("gain",)), domain=0.05, within=0.02)
    found = components(whole, Key(("b",)), draws=20)
    by_task = whole[0, ..., 0].reshape(-1, 8)
    assert found.task_gain.mean == pytest.approx(by_task.max(1).mean() - by_task[:, by_task.mean(0).argmax()].mean())
    by_domain = whole[0, ..., 0].mean(1)
    best = by_domain.max(1).mean() - by_domain[:, by_domain.mean(0).argmax()].mean()
    assert found.domain_gain.mean == pytest.approx(best, abs=0.005)


def test_of_one_domain():
    found = components(table(Key(("one",)), (2, 1, 40, 8, 2), within=0.05, noise=0.05), Key(("b",)), draws=50)
    assert found.domain_operation.ends == (0.0, 0.0, 0.0)
    assert found.task_operation.contains(0.05**2)
    assert found.domain_gain.mean == 0.0
    assert found.task_gain.low > 0.0


def test_intervals_hold_the_truth():
    held = []
    for number in range(20):
        key = Key.from_seed(number)
        whole = table(key.child("table"), (2, 1, 60, 6, 2), within=0.04, noise=0.08)
        held.append(components(whole, key, draws=100).task_operation.contains(0.04**2))
    assert np.mean(held) > 0.85


def test_same_key_same_intervals():
    whole = table(Key(("same",)), within=0.05, noise=0.05)
    assert components(whole, Key(("b",)), draws=20) == components(whole, Key(("b",)), draws=20)


def test_the_largest_of_normal_numbers():
    """Two: 1 / sqrt(pi); ten: David and Nagaraja, Order Statistics, table of expectations."""
    assert expected_maximum(2) == pytest.approx(np.pi**-0.5, abs=1e-6)
    assert expected_maximum(10) == pytest.approx(1.53875, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 8, 3, 2), "at least 2 trainings, got 1"),
        ((2, 1, 3, 3, 2), "at least 4 tasks, got 3"),
        ((2, 1, 8, 1, 2), "at least 2 operations, got 1"),
        ((2, 1, 8, 3, 1), "at least 2 draws, got 1"),
    ],
)
def test_tables_too_small(shape, message):
    with pytest.raises(NumericsError, match=message):
        components(np.zeros(shape), Key(("b",)))


def test_numbers_that_are_not_finite():
    whole = np.zeros((2, 1, 8, 3, 2))
    whole[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(NumericsError, match="not finite"):
        components(whole, Key(("b",)))
