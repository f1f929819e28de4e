"""check_space on DARTS and on spaces that break it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadarts.core.variants import Variants
from metadarts.operations import OPERATIONS
from metadarts.spaces import SearchSpace, darts
from metadarts.testing import check_space


@pytest.mark.parametrize(
    "space",
    [
        darts(),
        darts(nodes=1),
        SearchSpace("no none", ("skip_connect", "sep_conv_3x3"), nodes=2),
        SearchSpace("two kinds", ("none", "max_pool_3x3", "dil_conv_5x5"), nodes=3),
        SearchSpace("one kind", ("none", "avg_pool_3x3", "skip_connect"), nodes=2, cell_types=("reduce",)),
        SearchSpace("one input", ("none", "max_pool_3x3", "sep_conv_3x3"), nodes=2, inputs=1, edges_per_node=1),
        SearchSpace("three inputs", ("skip_connect", "sep_conv_3x3"), nodes=2, inputs=3),
        SearchSpace("pairs", ("max_pool_3x3", "sep_conv_3x3"), nodes=2, inputs_by="pairs"),
        SearchSpace("edges", ("max_pool_3x3", "sep_conv_3x3"), nodes=2, inputs_by="edges"),
    ],
    ids=lambda space: f"{space.name} {space.nodes}",
)
def test_space_conforms(space):
    check_space(space)


def test_a_primitive_without_an_implementation_is_named():
    with pytest.raises(AssertionError, match="odd: no implementation of conv_7x1"):
        check_space(SearchSpace("odd", ("none", "conv_7x1"), nodes=2))


def test_a_primitive_that_depends_on_how_many_edges_run_is_found():
    """In the supernet two edges leave an input, in a discrete network perhaps one."""
    conv = OPERATIONS["sep_conv_3x3"]
    broken = replace(conv, run=lambda state, context: conv.run(state, context) * context.params["pointwise1"].shape[1])
    table = Variants("operation", dict(OPERATIONS) | {"sep_conv_3x3": broken})
    with pytest.raises(AssertionError, match="features of a discrete network"):
        check_space(SearchSpace("edges", ("none", "sep_conv_3x3"), nodes=2), table)


def test_a_primitive_of_a_wrong_shape_is_named():
    skip = OPERATIONS["skip_connect"]
    broken = replace(skip, run=lambda state, context: skip.run(state, context)[:, 1:])
    table = Variants("operation", dict(OPERATIONS) | {"skip_connect": broken})
    with pytest.raises(AssertionError, match="skip_connect at stride 1: expected"):
        check_space(darts(nodes=2), table)
