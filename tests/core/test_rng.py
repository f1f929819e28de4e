"""Named random streams: independent by name, the same on every machine and under every version."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metadarts.core.rng import Key

KEY = Key.from_seed(7).child("train", 12)


def test_a_path_is_its_seed_and_its_names():
    assert KEY.path == ("seed 7", "train", "12")
    assert KEY == Key.from_seed(7).child("train").child("12")


def test_streams_are_golden():
    """Drawn numbers are part of the format: every split, episode and initialisation follows from them."""
    assert KEY.digest().hex() == "7d59801ca5cf6c94f1c306b98b4185d80f2eee2f21234011ed870fdd950cf88f"
    assert KEY.choose(1000, 6).tolist() == [982, 993, 252, 304, 339, 439]
    assert KEY.permutation(8).tolist() == [7, 2, 4, 5, 1, 3, 0, 6]
    assert KEY.bits().random_raw(2).tolist() == [17195597550188790327, 13744945302269474785]


def test_the_same_path_draws_the_same_and_a_second_draw_starts_over():
    assert np.array_equal(KEY.choose(50, 10), Key.from_seed(7).child("train", "12").choose(50, 10))
    assert torch.equal(torch.rand(3, generator=KEY.torch()), torch.rand(3, generator=KEY.torch()))
    assert KEY.numpy().normal() == KEY.numpy().normal()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("ab",)),
        (("1:a",), ("a",)),
        (("",), ()),
        (("a", ""), ("a",)),
        (("a", "b"), ("b", "a")),
    ],
)
def test_different_paths_never_share_a_digest(one, other):
    assert Key(one).digest() != Key(other).digest()


def test_ten_thousand_children_have_ten_thousand_digests():
    assert len({KEY.child(number).digest() for number in range(10_000)}) == 10_000


def test_drawing_from_one_child_does_not_shift_another():
    before = KEY.child("b").choose(100, 5)
    KEY.child("a").choose(10_000, 10_000)
    assert np.array_equal(before, KEY.child("b").choose(100, 5))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_siblings_are_uncorrelated(kind):
    """Of 2,000 pairs of independent normal numbers the correlation is 0.02 to one standard error."""
    draws = []
    for name in ("left", "right"):
        key = KEY.child(name)
        draws.append(
            key.numpy().normal(size=2000) if kind == "numpy" else torch.randn(2000, generator=key.torch()).numpy()
        )
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.09


def test_permutations_are_uniform():
    """Each of the 24 orders of four things, 2,400 draws: chi-squared of 23 degrees, 0.999 quantile 49.7."""
    orders = [tuple(KEY.child("uniform", draw).permutation(4)) for draw in range(2400)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts) < 49.7


def test_choose_draws_distinct_numbers_in_range():
    drawn = KEY.choose(9, 9)
    assert sorted(drawn) == list(range(9))
    assert KEY.choose(9, 0).size == KEY.permutation(0).size == 0


def test_choose_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="cannot choose 4 distinct items from 3"):
        KEY.choose(3, 4)


def test_global_generators_stay_untouched():
    before = torch.get_rng_state()
    torch.rand(2, generator=KEY.torch())
    KEY.choose(10, 3)
    assert torch.equal(before, torch.get_rng_state())
