"""Every operation of the table conforms; the suite sees an operation that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadarts.operations import OPERATIONS
from metadarts.testing import check_operation

SKIP, SEP = OPERATIONS["skip_connect"], OPERATIONS["sep_conv_3x3"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_conforms(name):
    check_operation(name, OPERATIONS[name])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(SEP, run=lambda state, context: SEP.run(state, context).detach()), "at stride 1"),
        (replace(SEP, run=lambda s, c: SEP.run(s, c) + s.mean(0, keepdim=True).mean() * 1.0), "task 0 alone"),
        (replace(SEP, cost=lambda channels, stride, positions: -1), "a cost below 0"),
        (replace(SEP, fold=lambda layers, x: layers.relu(x)), "its logits differ"),
        (replace(SEP, init=lambda name, shape, key: SEP.init(name, shape, key)[:1]), "init of"),
    ],
    ids=["no gradient", "tasks mixed", "cost", "fold", "init"],
)
def test_what_does_not_conform_is_found(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_operation("broken", broken)
