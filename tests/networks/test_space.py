"""check_space on DARTS and on spaces that break it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadarts.networks import PRIMITIVES, primitives
from metadarts.spaces import SearchSpace, darts
from metadarts.testing import check_space


@pytest.mark.parametrize(
    "space",
    [
        darts(),
        darts(nodes=1),
        SearchSpace("no none", ("skip_connect", "sep_conv_3x3"), nodes=2),
        SearchSpace("one cell type", ("none", "max_pool_3x3", "dil_conv_5x5"), nodes=3),
    ],
    ids=lambda space: f"{space.name} {space.nodes}",
)
def test_space_conforms(space):
    check_space(space)


def test_a_primitive_without_an_implementation_is_named():
    with pytest.raises(AssertionError, match="odd: no implementation of conv_7x1"):
        check_space(SearchSpace("odd", ("none", "conv_7x1"), nodes=2))


def test_a_primitive_of_a_wrong_shape_is_named(monkeypatch):
    skip = PRIMITIVES["skip_connect"]
    broken = replace(skip, run=lambda inputs, place: skip.run(inputs, place)[:, 1:])
    for home in (primitives, check_space.__globals__):
        table = dict(PRIMITIVES, skip_connect=broken)
        monkeypatch.setitem(home if isinstance(home, dict) else vars(home), "PRIMITIVES", table)
    with pytest.raises(AssertionError, match="skip_connect at stride 1: expected"):
        check_space(darts(nodes=2))
