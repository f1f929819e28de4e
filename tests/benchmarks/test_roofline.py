"""Operation and byte counts against counts by hand and against the tensors themselves; groups of a profile."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from benchmarks import counts, roofline, rows
from benchmarks.counts import ConvBlock, Cost, Mix, Pool, Separable
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.roofline import Rates
from metadarts import ops
from metadarts.core.rng import Key
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.ops.conv_block import cpu as conv_block_cpu
from metadarts.ops.mix import cpu as mix_cpu
from metadarts.ops.pool import cpu as pool_cpu
from metadarts.ops.separable import cpu as separable_cpu
from metadarts.spaces import darts

NETWORK = supernet(darts(), NetworkSpec(in_channels=1))
RATES = Rates(matrix=100e9, copy=10e9)


def test_a_separable_convolution_counted_by_hand():
    """T=1, E=2, N=3, 4x4 at stride 2 (so 2x2 out), 5 channels in, 7 out, 3x3."""
    costs = Separable(1, 2, 3, 4, 5, 7, 3, stride=2).costs()
    pixels = 2 * 3 * 2 * 2  # edges, images, height, width
    depthwise, pointwise, norm = 2 * 9 * 5 * pixels, 2 * 5 * 7 * pixels, 7 * pixels
    assert costs["forward"].flops == depthwise + pointwise + 6 * norm
    assert costs["gradient"].flops == 2 * depthwise + 2 * pointwise + 7 * norm
    assert costs["second"].flops == 4 * depthwise + 4 * pointwise + 12 * norm
    assert costs["pulled"].flops == 2 * depthwise + 2 * pointwise + 7 * norm + 5 * pixels
    read = 3 * 4 * 4 * 5 + 2 * 5 * 9 + 2 * 5 * 7 + 3  # x, taps, mixing, shares
    assert costs["forward"].bytes == 4 * (read + 7 * pixels + 2 * 7 + 5 * pixels)  # y, r, d


def test_a_projection_has_no_depthwise_part():
    assert Separable(1, 1, 1, 2, 3, 4, 0).costs()["forward"].flops == 4 * (2 * 3 * 4 + 6 * 4)


def test_a_mixed_sum_counted_by_hand():
    """Three candidates on two edges, one of them shared; 10 numbers per task, edge and candidate."""
    costs = Mix(tasks=1, edges=2, images=1, size=1, channels=10, candidates=3, shared=1).costs()
    assert costs["forward"] == Cost(2 * 3 * 2 * 10, 4 * (6 + 2 * 20 + 10 + 20))
    assert costs["gradient"].flops == 3 * 3 * 2 * 10 + 10
    assert costs["second"].flops == 7 * 3 * 2 * 10 + 10


def test_a_pool_counted_by_hand():
    costs = Pool(1, 2, 4, 3, "avg", stride=2).costs()
    outputs = 2 * 2 * 2 * 3
    assert [costs[part].flops for part in counts.PASSES] == [15 * outputs, 16 * outputs, 21 * outputs, 16 * outputs]


def test_a_convolutional_block_counted_by_hand():
    first, later = (ConvBlock(1, 2, 4, 3, 5, 3, first=first).costs() for first in (True, False))
    maps, pooled = 2 * 4 * 4 * 5, 2 * 2 * 2 * 5
    convolution = 2 * 9 * 3 * maps
    assert first["forward"].flops == convolution + (6 + 2) * maps + 3 * pooled
    assert later["gradient"].flops - first["gradient"].flops == convolution
    assert later["second"].flops - first["second"].flops == 3 * convolution


CALLS = [
    Separable(2, 2, 3, 5, 4, 6, 3, stride=2),
    Separable(2, 2, 3, 4, 4, 4, 5, own=2),
    Separable(2, 1, 3, 4, 6, 2, 0),
    Pool(2, 3, 5, 4, "max", stride=2),
    Pool(2, 3, 4, 4, "avg"),
    Mix(2, 3, 2, 4, 4, candidates=4, shared=2),
    ConvBlock(2, 3, 4, 3, 5, 3, first=True),
    ConvBlock(2, 3, 4, 3, 5, 3),
]


@pytest.fixture
def passing(monkeypatch):
    """Bytes of all tensors that go into and come out of each kernel pass from now on, in order of the passes."""
    seen = []

    def watch(module, name):
        right = getattr(module, name)

        def watched(*arguments):
            result = right(*arguments)
            # the last pass gives what only a further derivative would read: it is dropped, and not counted
            given = result if name != "gradient" or not pulled(arguments) or module is pool_cpu else result[:-1]
            seen.append(sum(4 * tensor.numel() for tensor in tensors_in([arguments, given])))
            return result

        monkeypatch.setattr(module, name, watched)

    for module in (separable_cpu, pool_cpu, mix_cpu, conv_block_cpu):
        for name in ("forward", "gradient", "second"):
            watch(module, name)
    return seen


def pulled(arguments):
    """Whether a gradient is also given what reaches the forward's other outputs, by a second derivative."""
    return isinstance(arguments[-1], tuple) and len(arguments[-1]) == 2


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_bytes_are_those_of_the_tensors_that_a_pass_is_given_and_gives(call, passing):
    inputs, run = roofline.prepared(call)
    moving = [tensor for tensor in inputs if tensor.requires_grad]
    first = torch.autograd.grad([y.sum() for y in run(inputs)], moving, create_graph=True)
    torch.autograd.grad(first, moving, [torch.ones_like(tensor) for tensor in moving])
    costs = call.costs()
    expected = [costs[part].bytes for part in counts.PASSES if costs[part].bytes]
    assert passing == expected


def test_calls_are_those_that_the_network_makes():
    batch = random_batch(Episode(tasks=2, ways=2, shots=1, queries=1, channels=1, size=16))
    learner = Learner(NETWORK)
    own = {n: t.expand(2, *t.shape) for n, t in NETWORK.init(Key.from_seed(0)).items()}
    with ops.watched() as seen:
        learner.support_loss(learner.start(own, batch), batch)
    made = Counter(op for op, _ in seen)
    assert Counter(call.name for call in counts.calls(NETWORK, 2, 2, 16)) == made


def test_a_meta_step_has_a_second_derivative_for_each_inner_step_only():
    once = counts.meta_step(NETWORK, tasks=1, support=2, query=2, size=16, steps=1)
    thrice = counts.meta_step(NETWORK, tasks=1, support=2, query=2, size=16, steps=3)
    for (name, part), cost in once.items():
        times = 3 if part in ("second", "pulled") else 2  # two of four passes forward are there with one step already
        assert thrice[name, part] == cost.times(times), (name, part)
    assert counts.meta_step(NETWORK, 1, 2, 2, 16, steps=0)["separable", "second"] == Cost(0, 0)


def test_the_roofline_is_the_slower_of_the_two():
    assert RATES.roofline(Cost(200e9, 1e9)) == 2.0
    assert RATES.roofline(Cost(1e9, 30e9)) == 3.0


def test_a_row_says_how_near_the_roofline_it_is():
    row = roofline.row("pool forward", "", "ours", [4.0, 4.0], Cost(200 * 10**9, 10**9), RATES, 1)
    assert row.extra == {
        "gflop": 200.0,
        "gigabytes": 1.0,
        "gflop_per_s": 50.0,
        "gigabytes_per_s": 0.25,
        "roofline_s": 2.0,
        "percent_of_roofline": 50.0,
    }
    assert set(roofline.row("copies", "", "ours", [1.0], None, RATES, 1).extra.values()) == {None}


def test_all_calls_of_an_operator_are_added_up():
    calls, passes = Counter({CALLS[3]: 2, CALLS[4]: 1}), [{"forward": [1.0, 2.0]}, {"forward": [0.5, 0.5]}]
    *apart, together = roofline.operator_rows(calls, passes, RATES, 1)
    assert [row.what for row in apart] == ["pool forward"] * 2
    assert (together.what, together.sizes, together.seconds) == ("all pool forward", "calls=3", [2.5, 4.5])
    flops = 2 * CALLS[3].costs()["forward"].flops + CALLS[4].costs()["forward"].flops
    assert together.extra["gflop"] == pytest.approx(flops / 1e9, rel=1e-4)


@pytest.mark.parametrize("call", CALLS[::2], ids=str)
def test_an_operator_is_timed_in_all_its_passes(call):
    found = roofline.seconds_alone(call, 2)
    assert set(found) == set(roofline.ALONE)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())


def event(name, microseconds, parent=None):
    return SimpleNamespace(name=name, self_cpu_time_total=microseconds, cpu_parent=parent)


def test_a_profile_is_grouped_by_own_time():
    backward = event("_SeparableBackward", 1e6)
    update = event(roofline.UPDATE, 0.0)
    events = [
        backward,
        event("_SeparableGradient", 2e6, backward),
        event("aten::empty", 0.5e6, backward),
        event("aten::mul", 0.25e6, update),
        event("aten::mul", 0.125e6),
        event("aten::bmm", 0.5e6),
        event("autograd::engine::evaluate_function: MulBackward0", 3e6),
        update,
    ]
    found = {name: seconds for name, seconds in roofline.grouped(events, wall=10.0).items() if seconds}
    assert found == {
        "separable pulled": 1.0,
        "separable gradient": 2.0,
        "copies and new memory": 0.5,
        roofline.UPDATE: 0.25,
        "elementwise": 0.125,
        "head and loss": 0.5,
        roofline.OVERHEAD: 10.0 - 4.375,
    }


def test_a_small_meta_step_spends_time_in_every_operator_and_pass():
    found = roofline.profiled(1, small=True)()
    groups = {name: seconds[0] for name, seconds in found["groups"].items()}
    assert sum(groups.values()) == pytest.approx(found["profiled"][0])
    assert set(roofline.BY_NAME.values()) <= set(groups)
    silent = [name for name, seconds in groups.items() if seconds <= 0]
    assert not silent


def test_rates_of_the_machine_are_measured():
    assert len(roofline.matrix_seconds(64, 3)()) == 3
    assert min(roofline.copy_seconds(1, 2)()) > 0


# ---------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.parametrize("call", CALLS[::3], ids=str)
def test_replays_of_an_operator_are_timed_in_all_passes(call):
    found = roofline.seconds_replayed(call, 2, "cpu")
    assert set(found) == set(roofline.ALONE)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())


def test_a_card_has_three_matrix_rates_and_rows_of_the_whole_in_both_ways(monkeypatch, tmp_path):
    asked = []

    def run(function, kwargs, **_):
        name = function.partition(":")[2]
        asked.append((name, kwargs.get("precision", kwargs.get("engine"))))
        if name == "operator_seconds":
            return {"result": [{part: [1.0] for part in roofline.ALONE} for _ in roofline.w1_calls()]}
        if name == "ours":
            return {"seconds": [0.5], "result": 1.5}
        return {"result": [0.25, 0.5]}

    monkeypatch.setattr(roofline, "run_isolated", run)
    monkeypatch.setattr(roofline.meta_step, "run_isolated", run)
    monkeypatch.setattr(roofline, "conforms", lambda device, threads: True)
    monkeypatch.setattr(rows, "device_name", lambda device: "a card")
    file = tmp_path / "rows.csv"
    assert roofline.main(["--device", "cuda", "--repetitions", "1", "--out", str(file)]) == 0
    assert asked == [
        ("matrix_seconds", None), ("matrix_seconds", "tf32"), ("matrix_seconds", "bf16"), ("copy_seconds", None),
        ("operator_seconds", None), ("ours", "batched"), ("ours", "batched-replayed"),
    ]  # fmt: skip
    written = rows.read(file)
    assert {row["device"] for row in written} == {"a card"}
    assert [row["engine"] for row in written if row["what"] == "W1"] == ["batched", "batched-replayed"]
    assert float(written[0]["gflop_per_s"]) == pytest.approx(2 * 8192**3 / 1e9 / 0.375, rel=1e-3)
