"""The static account of a meta-step: what it counts, and that every kernel compiles for a card that is not there."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks import account, counts
from benchmarks.account import Usage, Written, compiled, meta_step_on_paper, seconds, table
from benchmarks.meta_step import STEPS, setting
from metadarts.ops.choice import no_triton
from metadarts.ops.gpu.launch import Kernel, Launch

pytestmark = pytest.mark.skipif(no_triton() is not None, reason=str(no_triton()))


@pytest.fixture(scope="module")
def step():
    """W1's step of first order: every kernel but those of second derivatives."""
    return meta_step_on_paper(order="first")


@pytest.fixture(scope="module")
def tiny_second_order():
    """Launches of each operator's second derivatives, on meta tensors."""
    from metadarts import ops

    def meta(*shape):
        return torch.empty(shape, device="meta", requires_grad=True)

    x = meta(2, 1, 3, 8, 8, 16)
    operators = {
        "separable": (ops.separable, [x, meta(2, 2, 16, 3, 3), meta(2, 2, 16, 16)]),
        "pool": (lambda t: ops.pool(t, "max"), [meta(2, 3, 8, 8, 16)]),
        "mix": (lambda w, *y: sum(ops.mix(y, w)), [meta(2, 2, 2), x, meta(2, 2, 3, 8, 8, 16)]),
        "conv_block": (ops.conv_block, [meta(2, 3, 8, 8, 16), meta(2, 16, 16, 3, 3), meta(2, 16), meta(2, 16)]),
    }
    with account.launches() as log, ops.implementation("triton"):
        for run, tensors in operators.values():
            first = torch.autograd.grad(run(*tensors).sum(), tensors, create_graph=True)
            torch.autograd.grad([f.square().sum() for f in first], tensors)
    return log


def test_each_operator_of_a_pass_is_launched_in_each_pass(step):
    """As many forward launches as an independent count of W1's calls says, in 5 inner steps and the query pass."""
    launched = Counter(launch.kernel.name for launch in step[0])
    calls = Counter(call.name for call in counts.calls(setting()[0], 4, 25, 32))
    for name, count in calls.items():
        assert launched[f"{name}.forward"] == (STEPS + 1) * count


def test_the_step_takes_nothing_from_the_host(step):
    assert not [launch.name for launch in step[1] if launch.host]


def test_what_comes_from_the_host_is_seen():
    with Written("meta") as written:
        torch.zeros(2, device="meta") + torch.ones(()).to("cpu")
    assert [launch.host for launch in written.found if launch.name == "add"] == [True]


def test_views_and_new_memory_are_no_launches():
    with Written("cpu") as written:
        x = torch.empty(3, 4)
        x.t().flatten()[2:]
        x.view(4, 3).relu()
    assert [(launch.name, launch.bytes) for launch in written.found] == [("clone", 96), ("relu", 96)]


def test_a_tensor_given_twice_is_counted_once_and_one_in_a_tuple_too():
    a, b = torch.zeros(8, device="meta"), torch.zeros(4, dtype=torch.float64, device="meta")
    assert Launch(Kernel(None, "any"), (1,), (a, (b, a), 3, None), {}).bytes == 64


def test_a_launch_takes_its_least_time_or_its_bytes_time():
    size = int(2 * account.LAUNCH_SECONDS * account.BANDWIDTH)
    assert seconds([0, size]) == pytest.approx(3 * account.LAUNCH_SECONDS, rel=1e-6)


def test_lines_add_up(step):
    lines = table(*step, {"separable.forward": [Usage(40, 0, 512), Usage(32, 8, 1024)]})
    *kernels, ours, everything = lines
    assert sum(line["launches"] for line in kernels) == everything["launches"] == len(step[0]) + len(step[1])
    assert ours["launches"] == len(step[0])
    (forward,) = [line for line in kernels if line["kernel"] == "separable.forward"]
    assert (forward["registers"], forward["stack"], forward["shared"]) == (40, 8, 1024)


@pytest.mark.thorough
@pytest.mark.slow
def test_every_kernel_compiles_for_a_card_that_is_not_there(tiny_second_order):
    one_each = {launch.kernel.name: launch for launch in tiny_second_order}
    assert {name.split(".")[0] for name in one_each} == {"separable", "pool", "mix", "conv_block"}
    with account.card():
        used = {name: compiled(launch) for name, launch in one_each.items()}
    assert all(0 < usage.registers <= 255 for usage in used.values())
    assert used["separable.forward"].shared > 0
