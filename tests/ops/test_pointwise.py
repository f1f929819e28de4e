"""The folded 1x1 convolution against one small matrix product per group."""

from __future__ import annotations

import pytest

from metadarts.ops import pointwise
from metadarts.ops.pointwise.reference import pointwise as reference
from metadarts.testing import OpCase, check_op


def case(what: str, image: tuple[int, ...], weight: tuple[int, ...]) -> OpCase:
    return OpCase(what, {"x": image, "weight": weight})


CASES = [
    case("one group", (2, 3, 5, 4), (1, 4, 3)),
    case("three groups, more channels out than in", (2, 3, 1, 6), (3, 2, 5)),
    case("fewer channels out than in", (1, 2, 3, 10), (2, 5, 2)),
    case("one channel in and out per group", (2, 2, 3, 4), (4, 1, 1)),
    case("one pixel", (1, 1, 1, 6), (2, 3, 3)),
    case("square matrices, so that a missing transpose fits", (2, 2, 2, 6), (2, 3, 3)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_pointwise_equals_its_reference_to_second_order(case):
    check_op(pointwise, reference, [case])
