"""Estimates as values and as text, and the intervals that need no resampling."""

from __future__ import annotations

import math

import pytest
import torch

from metadarts.stats import Estimate, interval95, wilson


@pytest.mark.parametrize(
    "a, b, shared",
    [
        (Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.8), True),
        (Estimate(0.5, 0.4, 0.6), Estimate(0.5, 0.49, 0.51), True),
        (Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.61, 0.8), False),
    ],
    ids=["they touch", "one within the other", "apart"],
)
def test_overlap_is_symmetric(a: Estimate, b: Estimate, shared: bool) -> None:
    assert a.overlaps(b) is shared
    assert b.overlaps(a) is shared


def test_an_estimate_in_another_unit() -> None:
    assert Estimate(0.5, 0.25, 0.75).scaled(100) == Estimate(50.0, 25.0, 75.0)
    assert Estimate(0.25, 0.125, 0.5).scaled(-1) == Estimate(-0.25, -0.5, -0.125), "its ends change places"


@pytest.mark.parametrize(
    "found, digits, sign, text",
    [
        (Estimate(0.5, 0.25, 0.755), 2, "", "0.50 [0.25, 0.76]"),
        (Estimate(0.5, -0.25, 1.0), 1, "+", "+0.5 [-0.2, +1.0]"),
        (Estimate(-0.0, -0.0, 0.0), 1, "+", "+0.0 [+0.0, +0.0]"),
    ],
    ids=["plain", "signed", "negative zero"],
)
def test_an_estimate_as_text(found: Estimate, digits: int, sign: str, text: str) -> None:
    assert found.text(digits, sign) == text


def test_1_96_standard_errors() -> None:
    values = torch.tensor([[0.5, 0.75], [1.0, 0.25]])
    spread = math.sqrt(sum((value - 0.625) ** 2 for value in (0.5, 0.75, 1.0, 0.25)) / 3)
    assert interval95(values) == pytest.approx(1.96 * spread / 2, rel=1e-15)
    assert interval95(torch.tensor([0.5])) == math.inf


def test_the_interval_of_a_share_is_wilson_s():
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4901625, 0.9433178)), "the textbook's example"
    assert found.mean == 0.8
    assert (wilson(0, 5).low, wilson(5, 5).high) == (0.0, 1.0)
    assert wilson(10, 10).low == pytest.approx(0.72, abs=0.005), "all right is no certainty"
