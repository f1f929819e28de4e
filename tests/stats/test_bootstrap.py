"""The crossed bootstrap: what it must agree with, what it must cover, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key
from metadarts.stats import Estimate, bootstrap, estimate, over_seeds, paired

KEY = Key(("tests", "studies", "statistics"))


def width(found: Estimate) -> float:
    return found.high - found.low


def noise(name: str, *shape: int) -> np.ndarray:
    return KEY.child(name).numpy().standard_normal(shape)


def crossed(name: str, seeds: int, tasks: int, by_seed: float, by_task: float = 0.1, rest: float = 0.05) -> np.ndarray:
    """Values around 0.6 with an effect of the training, one of the task, and one of both together."""
    effects = by_seed * noise(f"{name} seeds", seeds, 1) + by_task * noise(f"{name} tasks", 1, tasks)
    return 0.6 + effects + rest * noise(f"{name} rest", seeds, tasks)


def test_one_seed_on_many_tasks_gives_the_normal_interval() -> None:
    values = crossed("normal", 1, 2000, by_seed=0.0)
    found = estimate(values, KEY)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.04 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.04 * half)


def test_many_seeds_and_tasks_give_the_interval_of_the_two_variances() -> None:
    values = crossed("variances", 40, 400, by_seed=0.03)
    seeds, tasks = values.mean(1).std(ddof=1) / np.sqrt(40), values.mean(0).std(ddof=1) / np.sqrt(400)
    assert width(estimate(values, KEY)) == pytest.approx(2 * 1.96 * np.hypot(seeds, tasks), rel=0.05)


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    repetitions = 300
    hits = sum(
        estimate(crossed(f"coverage {index}", 20, 60, by_seed=0.05), KEY.child(index), draws=400).contains(0.6)
        for index in range(repetitions)
    )
    assert 0.90 <= hits / repetitions <= 0.985


def test_seeds_and_tasks_are_drawn_apart() -> None:
    """As many seeds as tasks: the same draws for both would count the diagonal twice."""
    found = estimate(np.eye(60), KEY)
    seeds, tasks = (KEY.child("apart", name).numpy().multinomial(60, [1 / 60] * 60, 10_000) for name in "st")
    low, high = np.quantile((seeds * tasks).sum(1) / 60**2, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=3 / 60**2)


def test_an_effect_of_the_seed_widens_the_interval() -> None:
    values = crossed("seeds", 5, 300, by_seed=0.05)
    assert width(estimate(values, KEY)) > 2 * width(estimate(values.mean(0, keepdims=True), KEY))


def test_shared_tasks_cancel_in_the_paired_difference() -> None:
    hard = 0.2 * noise("hard", 1, 600)
    first, second = (0.5 + hard + 0.01 * noise(name, 2, 600) for name in ("first", "second"))
    apart = estimate(first, KEY.child("first")), estimate(second, KEY.child("second"))
    difference = paired(first + 0.005, second, KEY)
    assert 8 * width(difference) < np.hypot(width(apart[0]), width(apart[1]))
    assert apart[0].overlaps(apart[1])
    assert difference.low > 0  # overlapping intervals, and yet a difference


def test_seeds_of_the_two_are_resampled_apart() -> None:
    """Two trainings of the same method: their difference is as uncertain as two independent means."""
    effects = 0.1 * noise("apart", 30, 1) + np.zeros((1, 50))
    alone, difference = estimate(effects, KEY), paired(effects, effects, KEY)
    assert difference.mean == 0
    assert width(difference) == pytest.approx(np.sqrt(2) * width(alone), rel=0.06)


def test_unequal_numbers_of_seeds_are_fine() -> None:
    many, one = crossed("many", 4, 100, by_seed=0.02), crossed("one", 1, 100, by_seed=0.0)
    there, back = paired(many, one, KEY), paired(one, many, KEY)
    assert there.mean == pytest.approx(many.mean() - one.mean())
    assert back.mean == pytest.approx(-there.mean)
    assert width(back) == pytest.approx(width(there), rel=0.1)


def test_a_method_with_one_seed_has_no_difference_from_itself() -> None:
    values = crossed("itself", 1, 80, by_seed=0.0)
    assert paired(values, values, KEY) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(1, 7), (3, 600)], ids=str)
def test_constant_values_have_an_interval_of_no_width(value: float, shape: tuple[int, int]) -> None:
    values = np.full(shape, value)
    assert estimate(values, KEY, 50) == Estimate(value, value, value)
    assert width(paired(values, values / 2, KEY, 50)) == 0


def test_an_interval_of_accuracies_stays_within_0_and_1() -> None:
    values = np.ones((1, 30))
    values[0, 0] = 0.1
    found = estimate(values, KEY)
    assert found.low <= found.mean < found.high == 1.0


def test_the_key_alone_decides() -> None:
    values = crossed("pure", 3, 50, by_seed=0.02)
    before = values.copy()
    assert estimate(values, KEY, 200) == estimate(values, KEY, 200)
    assert estimate(values, KEY, 200) != estimate(values, KEY.child("other"), 200)
    assert paired(values, values[:1], KEY, 200) == paired(values, values[:1], KEY, 200)
    assert (values == before).all()


def test_the_size_of_the_chunks_changes_nothing(monkeypatch) -> None:
    values = crossed("chunks", 3, 50, by_seed=0.02)
    whole = estimate(values, KEY, 301), paired(values, values[1:], KEY, 301)
    monkeypatch.setattr(bootstrap, "CELLS", 50 * 7)
    cut = estimate(values, KEY, 301), paired(values, values[1:], KEY, 301)
    for one, other in zip(whole, cut, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_every_draw_keeps_the_number_of_tasks() -> None:
    counts = bootstrap._Resampled(KEY, 9).counts(4000)
    assert (counts.sum(1) == 9).all()
    assert counts.mean(0) == pytest.approx(np.ones(9), abs=0.06)
    assert counts.var(0) == pytest.approx(np.full(9, 8 / 9), abs=0.08)


def test_narrow_floats_are_averaged_as_wide_ones() -> None:
    values = np.float32(crossed("narrow", 1, 500, by_seed=0.0))
    assert estimate(values, KEY, 50) == estimate(values.astype(np.float64), KEY, 50)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (5,), (1, 2, 3)], ids=str)
def test_refuses_what_is_no_table_of_seeds_by_tasks(shape: tuple[int, ...]) -> None:
    with pytest.raises(NumericsError, match=r"expected \[seeds, tasks\] with at least one of each, got"):
        estimate(np.zeros(shape), KEY)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_values_that_are_not_finite(bad: float) -> None:
    values = np.zeros((2, 3))
    values[1, 2] = bad
    with pytest.raises(NumericsError, match="the second values: 1 of 6 accuracies are not finite"):
        paired(np.zeros((2, 3)), values, KEY)


def test_refuses_different_numbers_of_tasks() -> None:
    with pytest.raises(NumericsError, match="got 3 and 4: measure both on the same episodes"):
        paired(np.zeros((2, 3)), np.zeros((2, 4)), KEY)


def test_refuses_no_draws() -> None:
    with pytest.raises(NumericsError, match="at least one draw, got 0"):
        estimate(np.zeros((1, 2)), KEY, draws=0)


def test_over_seeds() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    found = over_seeds(values, Key.from_seed(0))
    assert found.low < found.mean == 2.5 < found.high
    assert found == over_seeds(values, Key.from_seed(0))
    assert over_seeds(values[:1], Key.from_seed(0)).low == 1.0
    with pytest.raises(NumericsError, match="expected finite values"):
        over_seeds(np.array([1.0, np.nan]), Key.from_seed(0))
    with pytest.raises(NumericsError, match="at least one draw, got 0"):
        over_seeds(values, KEY, draws=0)


def test_over_seeds_is_the_mean_of_resampled_values() -> None:
    """Against the definition: every draw is the mean of as many values, drawn with the same raw bits."""
    values = noise("seeds alone", 6)
    drawn = (KEY.bits().random_raw(400 * 6).reshape(400, 6) % np.uint64(6)).astype(int)
    low, high = np.quantile([np.mean([values[place] for place in draw]) for draw in drawn], [0.025, 0.975])
    found = over_seeds(values, KEY, draws=400)
    assert found.ends == pytest.approx((values.mean(), low, high), abs=1e-15)
