"""Every operation of the table conforms; the suite sees an operation that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.operations import OPERATIONS, Statistics, convolution_init
from metadarts.testing import check_operation

SEP, POOL = OPERATIONS["sep_conv_3x3"], OPERATIONS["avg_pool_3x3"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_conforms(name):
    check_operation(name, OPERATIONS[name])


def without_a_gradient(state, context):
    return SEP.run(state, context).detach()


def of_all_tasks(state, context):
    return SEP.run(state, context) + state.mean()


def of_all_edges(state, context):
    return SEP.run(state, context) + context.params["pointwise1"].mean((1, 2, 3)).view(-1, 1, 1, 1, 1, 1)


def of_all_images(state, context):
    return SEP.run(state, replace(context, statistics=Statistics()))


def not_a_number_where_not_needed(state, context):
    y = SEP.run(state, replace(context, needed=None))
    return y if context.needed is None else torch.where(context.needed.view(2, 2, 1, 1, 1, 1), y, torch.nan)


def zero_where_needed(state, context):
    y = SEP.run(state, replace(context, needed=None))
    return y if context.needed is None else torch.where(context.needed.view(2, 2, 1, 1, 1, 1), 0.0, y)


def in_double(state, context):
    return SEP.run(state, context).double()


def always_normalised(layers, x):
    return layers.batch_norm(layers.average_pool(x, 3, stride=layers.stride, padding=1), "norm")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(SEP, run=without_a_gradient), "at stride 1"),
        (replace(SEP, run=of_all_tasks), "task 0, edge 0 alone"),
        (replace(SEP, run=of_all_edges), "task 0, edge 0 alone"),
        (replace(SEP, run=of_all_images), "beside one that does not count"),
        (replace(SEP, run=not_a_number_where_not_needed), "finite numbers where an edge is not needed"),
        (replace(SEP, run=zero_where_needed), "needed edges beside others"),
        (replace(SEP, run=in_double), "type: expected"),
        (replace(SEP, cost=lambda channels, stride, positions: -1), "a cost below 0"),
        (replace(SEP, fold=lambda layers, x: layers.relu(x)), "its logits differ"),
        (replace(POOL, fold=always_normalised), "its logits differ"),
        (replace(SEP, init=lambda name, shape, key: SEP.init(name, shape, key)[:1]), "init of"),
    ],
)
def test_what_does_not_conform_is_found(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_operation("broken", broken)


def test_an_operation_under_the_name_of_another_is_checked_itself():
    with pytest.raises(AssertionError, match="its logits differ"):
        check_operation("sep_conv_3x3", replace(SEP, fold=lambda layers, x: layers.relu(x)))


@pytest.mark.parametrize(("name", "shape"), [("wide", (2, 8, 8, 1, 5)), ("scale", (2,)), ("filter", (2, 8, 3, 3))])
def test_a_fan_in_that_cannot_be_known_is_not_guessed(name, shape):
    with pytest.raises(ConfigError, match="give its operation an `init` of its own"):
        convolution_init(name, shape, Key.from_seed(0))
