"""The meta-step benchmark compares one thing with itself: mapped parameters, engines checked before they are timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import conformance, mapping, meta_step, rows
from benchmarks.meta_step import BF16, FOLDED, OURS, REPLAYED, Case
from benchmarks.peers.network import SearchNetwork
from benchmarks.peers.workloads import Episode, random_batch
from metadarts.core.rng import Key
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.spaces import darts
from metadarts.testing import generic_params

SMALL = Episode(tasks=1, ways=5, shots=1, queries=1, channels=1, size=16)
NETWORK = supernet(darts(), NetworkSpec(in_channels=1))
LEARNER = Learner(NETWORK, precision="fp64")
PARAMS = generic_params(LEARNER, Key.from_seed(2))
BATCH = random_batch(SMALL).to("cpu", torch.float64)


@pytest.fixture
def small(monkeypatch) -> None:
    """W1 with one task of ten 16x16 images, and one inner step."""
    monkeypatch.setattr(meta_step, "STEPS", 1)

    def setting(dtype=torch.float32, device="cpu", tasks=1, small=False):
        return NETWORK, {name: tensor.to(device, dtype) for name, tensor in PARAMS.items()}, BATCH.to(device, dtype)

    monkeypatch.setattr(meta_step, "setting", setting)


def plain_network():
    plain = SearchNetwork(1, SMALL.ways).double()
    plain.load_state_dict(mapping.to_plain(NETWORK, PARAMS, SMALL.ways))
    return plain


def our_logits(params):
    own = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
    return LEARNER.query_logits(LEARNER.start(own, BATCH), BATCH)[0]


# ----------------------------------------------------------------------------------------------------------- mapping


def test_the_mapped_network_computes_the_same_logits():
    plain = plain_network()(BATCH.query_images[0])
    assert plain.std() > 1e-3
    torch.testing.assert_close(plain, our_logits(PARAMS), rtol=1e-10, atol=1e-12)


def test_an_odd_size_is_mapped_too():
    images = torch.randn(4, 1, 28, 28, dtype=torch.float64, generator=Key.from_seed(1).torch())
    own = {n: t for n, t in PARAMS.items() if not n.startswith("head.")}
    own |= {"head.weight": PARAMS["head.vector"].expand(5, -1), "head.bias": PARAMS["head.bias"].expand(5)}
    torch.testing.assert_close(plain_network()(images), NETWORK.logits(own, images), rtol=1e-10, atol=1e-12)


def test_mapping_is_complete_and_has_no_leftovers():
    shapes = {name: tensor.shape for name, tensor in SearchNetwork(1, SMALL.ways).named_parameters()}
    assert {name: tensor.shape for name, tensor in mapping.to_plain(NETWORK, PARAMS, SMALL.ways).items()} == shapes


def test_pulled_back_gradients_are_autograds():
    """Of a random sum of logits: with one vector for all classes, the cross entropy does not see the features yet."""
    upstream = torch.randn(SMALL.ways, SMALL.ways, dtype=torch.float64, generator=Key.from_seed(3).torch())
    leaves, plain = {name: tensor.clone().requires_grad_() for name, tensor in PARAMS.items()}, plain_network()
    ours = torch.autograd.grad((our_logits(leaves) * upstream).sum(), list(leaves.values()))
    expected = dict(zip(leaves, ours, strict=True))
    output = (plain(BATCH.query_images[0]) * upstream).sum()
    names = [name for name, _ in plain.named_parameters()]
    theirs = dict(zip(names, torch.autograd.grad(output, list(plain.parameters())), strict=True))
    found = mapping.pull_back(NETWORK, PARAMS, SMALL.ways, theirs)
    assert set(found) == set(PARAMS)
    assert all(float(tensor.norm()) > 1e-3 for tensor in expected.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


def test_pull_back_is_the_transpose_of_to_plain():
    """<to_plain(u), v> = <u, pull_back(v)>, since the map is linear."""
    plain = mapping.to_plain(NETWORK, PARAMS, SMALL.ways)
    other = {
        name: torch.randn(tensor.shape, dtype=torch.float64, generator=Key(("v", name)).torch())
        for name, tensor in plain.items()
    }
    there = sum(float((plain[name] * other[name]).sum()) for name in plain)
    back = mapping.pull_back(NETWORK, PARAMS, SMALL.ways, other)
    assert there == pytest.approx(sum(float((PARAMS[name] * back[name]).sum()) for name in PARAMS), rel=1e-10)


def test_missing_gradients_are_refused():
    with pytest.raises(ValueError, match=r"names differ: \['alphas\.normal', "):
        mapping.pull_back(NETWORK, PARAMS, 5, {"stem.conv1.weight": torch.zeros(24, 1, 3, 3)})


# ---------------------------------------------------------------------------------------------------------- workload


def test_the_workload_is_that_of_the_recipe():
    network, params, batch = meta_step.setting()
    assert network.count(batch.ways) == (201_181, 224)
    assert set(params) == set(network.shapes())
    assert batch.support_images.shape == (4, 5 * 5, 3, 32, 32)
    assert batch.query_images.shape == (4, 5 * 15, 3, 32, 32)
    inner = meta_step.inner_loop("second", 0)
    assert (inner.steps, inner.rule, inner.weight_rate, inner.alpha_rate) == (5, "sgd", 0.01, 30.0)
    assert (inner.order, inner.clip, inner.learn_rates) == ("second", None, False)


def test_every_process_builds_the_same_workload():
    (_, ours, tasks), (_, theirs, same) = meta_step.setting(), meta_step.setting(torch.float64)
    assert all(torch.equal(tensor.double(), theirs[name]) for name, tensor in ours.items())
    assert torch.equal(tasks.query_images.double(), same.query_images)


def test_engines_agree_on_the_small_workload(small):
    found = meta_step.check(["higher", "functional_call"], ["second", "first"], "cpu")()
    assert set(found) == {f"{name} {order}" for name in ("higher", "functional_call") for order in ("second", "first")}
    assert max(found.values()) < meta_step.AGREEMENT


@pytest.mark.parametrize("wrong", [{"order": "first"}, {"weight_rate": 0.01001}], ids=["order", "rate"])
def test_the_check_sees_a_meta_gradient_that_is_slightly_another(small, monkeypatch, wrong):
    right = meta_step.inner_loop
    monkeypatch.setattr(meta_step, "inner_loop", lambda *given: replace(right(*given), **wrong))
    (value,) = meta_step.check(["functional_call"], ["second"], "cpu")().values()
    assert value > 10 * meta_step.AGREEMENT


def test_timed_calls_return_the_loss_of_both_sides(small):
    ours, theirs = meta_step.ours("first", 0, "cpu")(), meta_step.peer("functional_call", "first", "cpu")()
    assert ours == pytest.approx(theirs, rel=1e-4)


# ------------------------------------------------------------------------------------------------------ rows, report


def options(*words):
    return meta_step._options(list(words))


def sample(seconds, peak, result=1.5):
    return {"seconds": [seconds], "peak_mb": peak, "result": result}


def test_a_row_has_all_seconds_and_the_largest_peak():
    samples = [sample(seconds, 100 + seconds) for seconds in (5.0, 1.0, 4.0, 2.0, 3.0)]
    row = meta_step._row(Case("higher", "second"), samples, options("--threads", "1"))
    assert row.percentiles == (1.8, 3.0, 4.2)
    assert (row.peak_mb, row.threads, row.extra["loss"]) == (105.0, 1, 1.5)
    assert (row.what, row.engine, row.order, row.checkpoint) == ("W1", "higher", "second", 0)
    assert "tasks=4 ways=5 shots=5 queries=15" in row.sizes
    assert "weights=201181" in row.sizes


def test_the_report_compares_with_the_faster_layout_of_a_peer_and_with_highers_memory(capsys):
    samples = {
        Case("batched", "second", 5): [sample(2.0, 50.0), sample(1.0, 50.0)],
        Case("higher", "second"): [sample(6.0, 200.0), sample(6.0, 200.0)],
        Case("higher-channels_last", "second"): [sample(4.0, 150.0), sample(4.0, 150.0)],
        Case("batched", "first"): [sample(1.0, 40.0), sample(1.0, 40.0)],
    }
    meta_step.report(samples, "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["batched", "second", "5", "4", "1.2", "1.5", "1.8", "50", "0.25x"]
    assert lines[4].split()[-1] == "40", "no higher of this order to compare with"
    ratios = [line for line in lines if " vs " in line and "recomputed, vs" in line]
    assert ratios == ["  second, 5 recomputed, vs higher-channels_last: 2.40x 3.00x 3.60x"]


def test_speed_is_compared_within_a_repetition():
    ours, theirs = [sample(s, 0.0) for s in (1.0, 10.0)], [sample(s, 0.0) for s in (2.0, 20.0)]
    assert meta_step.speed(ours, theirs) == (2.0, 2.0, 2.0)


@pytest.fixture
def isolated(monkeypatch):
    """Stands in for the processes of their own: (disagreement, faults) -> the calls that were asked for."""

    def stand_in(disagreement, faults=None):
        calls = []

        def run(function, kwargs, **more):
            name = function.partition(":")[2]
            calls.append((name, kwargs, more))
            if name == "conformance":
                return {"result": {"faults": {"pool": "", "mix": "", **(faults or {})}, "compile_seconds": 12.5}}
            if name == "check":
                names = [f"{peer} {order}" for peer in kwargs["peers"] for order in kwargs["orders"]]
                return {"result": dict.fromkeys(names, disagreement)}
            return sample(1.0 + len(calls), 100.0)

        monkeypatch.setattr(meta_step, "run_isolated", run)
        monkeypatch.setattr(conformance, "run_isolated", run)
        return calls

    return stand_in


@pytest.mark.parametrize("disagreement", [1e-6, float("nan")])
def test_nothing_is_timed_when_engines_disagree(isolated, capsys, tmp_path, disagreement):
    calls = isolated(disagreement)
    assert meta_step.main(["--out", str(tmp_path / "rows.csv")]) == 1
    assert [name for name, *_ in calls] == ["conformance", "check"]
    assert "nothing was timed" in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists()


def test_nothing_is_timed_while_an_operator_is_red(isolated, capsys, tmp_path):
    calls = isolated(1e-12, {"pool": "AssertionError: d x differs"})
    assert meta_step.main(["--no-check", "--out", str(tmp_path / "rows.csv")]) == 1
    assert [name for name, *_ in calls] == ["conformance"]
    printed = capsys.readouterr()
    assert "conformance of pool: red" in printed.out
    assert "pool disagrees with its reference: nothing was timed\nAssertionError: d x differs" in printed.err
    assert not (tmp_path / "rows.csv").exists()


def test_engines_take_turns_and_rows_are_written(isolated, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(meta_step, "version", lambda package: "1.0")
    calls, file = isolated(1e-12), tmp_path / "rows.csv"
    assert meta_step.main(["--repetitions", "2", "--orders", "second", "--threads", "1", "--out", str(file)]) == 0
    assert all(more["threads"] == 1 for _, _, more in calls)
    assert [name for name, *_ in calls[:2]] == ["conformance", "check"]
    timed = [(name, kwargs.get("name"), kwargs.get("checkpoint")) for name, kwargs, _ in calls[2:]]
    once = timed[: len(timed) // 2]
    assert timed == once * 2, "a repetition of every engine before the next of any"
    peers = ["higher", "functional_call", "learn2learn"]
    assert once == [("ours", None, k) for k in (0, 2, 4, 5)] + [
        ("peer", name + layout, None) for name in peers for layout in ("", "-channels_last")
    ]
    written = rows.read(file)
    assert [(row["engine"], row["checkpoint"]) for row in written][:5] == [
        ("batched", "0"),
        ("batched", "2"),
        ("batched", "4"),
        ("batched", "5"),
        ("higher", "0"),
    ]
    assert {row["repetitions"] for row in written} == {"2"}
    printed = capsys.readouterr().out
    assert "float64 agreement with higher second: 1.0e-12" in printed
    assert "compiling kernels: 12.5 s" in printed


# ---------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.parametrize("engine", meta_step.OURS_ON_A_GPU)
def test_each_of_our_ways_on_a_gpu_takes_the_same_step(engine):
    """A stand-in records; outer rates of zero keep the replayed step where it is."""
    runs = [meta_step.ours("second", 0, "cpu", which, small=True) for which in (OURS, engine)]
    tolerance = 1e-2 if engine == BF16 else 1e-6
    for _ in range(3):
        plain, other = (run() for run in runs)
        assert other == pytest.approx(plain, rel=tolerance)


def test_a_step_that_cannot_be_recorded_is_not_timed(monkeypatch):
    class Refuses:
        def warm(self, run):
            return run()

        def record(self, run):
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(meta_step, "recorder", lambda device: Refuses())
    run = meta_step.ours("first", 0, "cpu", REPLAYED, small=True)
    run()
    with pytest.raises(RuntimeError, match="could not be recorded"):
        run()


def test_accuracy_is_told_for_every_precision():
    found = meta_step.accuracy(["first"], "cpu", small=True)()
    assert set(found) == {"fp32 first", "tf32 first", "bf16 first"}
    assert found["fp32 first"] < 1e-3 < found["bf16 first"]


def test_on_a_gpu_every_process_times_several_calls_and_rows_say_what_was_timed(
    isolated, tmp_path, capsys, monkeypatch
):
    calls, file = isolated(1e-12), tmp_path / "rows.csv"
    right = meta_step.run_isolated

    def run(function, kwargs, **more):
        if function.endswith(":accuracy"):
            return {"result": {"fp32 second": 1e-6, "bf16 second": 0.0123456}}
        return right(function, kwargs, **more)

    monkeypatch.setattr(meta_step, "run_isolated", run)
    monkeypatch.setattr(rows, "device_name", lambda device: "a card")
    words = ["--device", "cuda", "--orders", "second", "--peers", "functional_call", "--tasks", "4", "64"]
    assert meta_step.main([*words, "--repetitions", "1", "--out", str(file)]) == 0
    timed = [(kwargs.get("engine", kwargs.get("name")), kwargs.get("tasks"), more) for _, kwargs, more in calls[2:]]
    assert [(engine, tasks) for engine, tasks, _ in timed] == [
        (REPLAYED, 4), (BF16, 4), (OURS, 4), (FOLDED, 4), (REPLAYED, 64),
        ("functional_call", None), ("functional_call-channels_last", None),
    ]  # fmt: skip
    assert all(more["repetitions"] >= 3 and more["warmups"] >= 2 for *_, more in timed)
    written = rows.read(file)
    assert {row["device"] for row in written} == {"a card"}
    assert [row["gradient_distance"] for row in written[:3]] == ["1e-06", "0.0123", "1e-06"]
    assert {row["timed"] for row in written[:2]} == {"gradient, update and report"}
    assert {row["timed"] for row in written[2:4]} == {"gradient"}
    assert "tasks=64" in written[4]["sizes"]
    assert "64 tasks take" in capsys.readouterr().out


def test_no_round_begins_that_would_pass_the_time_there_is(isolated, monkeypatch, tmp_path):
    isolated(1e-12)
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(meta_step.time, "monotonic", lambda: next(clock))
    options = meta_step._options(["--seconds", "220", "--repetitions", "5", "--out", str(tmp_path / "rows.csv")])
    samples = meta_step._sampled([Case(OURS, "second")], options)
    assert len(samples[Case(OURS, "second")]) == 2
