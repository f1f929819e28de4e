"""The contestants of the mixed-edge benchmark compute one thing, and its tables say what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import conformance, contestants, mixed_op, rows
from benchmarks.contestants import BUNDLES, CANDIDATES, CONTESTANTS, OURS, Bundle, Passes

TINY = [
    Bundle("normal", edges=2, size=5, channels=4, stride=1, tasks=2, images=3),
    Bundle("reduce", edges=2, size=5, channels=4, stride=2, tasks=2, images=3),
    Bundle("one edge", edges=1, size=4, channels=4, stride=2, tasks=1, images=2),
]
OTHERS = [name for name in CONTESTANTS if name != OURS]


@pytest.mark.parametrize("bundle", TINY, ids=lambda bundle: bundle.name)
def test_all_contestants_agree_to_second_order(bundle):
    found = mixed_op.check([vars(bundle)])()
    assert len(found) == len(OTHERS)
    assert max(found.values()) < mixed_op.AGREEMENT


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("bundle", TINY, ids=lambda bundle: bundle.name)
def test_own_layouts_lead_back_to_ours(name, bundle):
    values, contestant = bundle.values(torch.float64, 0), CONTESTANTS[name]
    back = contestant.ours(bundle, contestant.own(bundle, values))
    assert back.keys() == values.keys()
    assert all(torch.equal(back[key], value) for key, value in values.items())


def test_every_tensor_has_a_first_and_a_second_derivative():
    bundle = TINY[1]
    results = Passes.of(OURS, bundle, torch.float64).results()
    assert set(results["first"]) == set(bundle.shapes())
    assert set(results["second"]) == {*bundle.shapes(), "upstream"}
    assert all(float(t.norm()) > 1e-3 for part in results.values() for t in part.values())


@pytest.mark.parametrize("label", ["output", "first", "second"])
def test_the_check_sees_any_wrong_derivative(label):
    truth = Passes.of(OURS, TINY[2], torch.float64).results()
    for name in truth[label]:
        found = truth | {label: truth[label] | {name: truth[label][name] * (1 + 1e-9)}}
        assert mixed_op.disagreement(found, truth) > mixed_op.AGREEMENT, name


def test_the_check_refuses_nan_and_missing_derivatives():
    truth = {"first": {"x": torch.ones(2)}}
    assert mixed_op.disagreement({"first": {"x": torch.full((2,), torch.nan)}}, truth) == float("inf")
    with pytest.raises(ValueError, match=r"first: expected gradients of \['x'\], got \[\]"):
        mixed_op.disagreement({"first": {}}, truth)


def test_layouts_are_what_the_names_say():
    last, first = (CONTESTANTS[name].own(TINY[0], TINY[0].values(torch.float32, 0)) for name in OTHERS[:-3:-1])
    assert last["0/x"].is_contiguous(memory_format=torch.channels_last)
    assert not last["0/x"].is_contiguous()
    assert first["0/x"].is_contiguous()


@pytest.mark.parametrize("name", ["folded-channels_last", "loop-channels_last"])
@pytest.mark.parametrize("bundle", TINY[:2], ids=lambda bundle: bundle.name)
def test_channels_last_contestants_stay_in_that_layout(monkeypatch, name, bundle):
    """A convolution, say, that fell back to another layout would make a slower contestant than its name says."""
    outputs, right = {}, contestants._candidate

    def candidate(label, *rest):
        outputs[label] = right(label, *rest)
        return outputs[label]

    monkeypatch.setattr(contestants, "_candidate", candidate)
    passes = Passes.of(name, bundle, torch.float32)
    (result, *_) = passes.forward()
    gradients = dict(zip(passes.moving, passes.backward(passes.forward()), strict=True))
    outputs |= {"sum": result, "gradient": gradients["x" if "x" in gradients else "0/x"]}
    other = [label for label, maps in outputs.items() if not maps.is_contiguous(memory_format=torch.channels_last)]
    assert not other
    assert len(outputs) == len(CANDIDATES) + 2


def test_bundles_are_those_of_the_recipe():
    assert len(CANDIDATES) == 7
    shapes = BUNDLES[0].shapes()
    assert shapes["x"] == (4, 25, 8, 8, 16)
    assert [(b.channels, b.size, b.stride) for b in BUNDLES] == [(16, 8, 1)] * 2 + [(32, 8, 2)] * 2 + [(32, 4, 1)] * 2
    assert [b.edges for b in BUNDLES] == [1, 4] * 3


def test_a_turn_times_every_pass_and_their_sum():
    found = mixed_op.turn(OURS, vars(TINY[2]), repetitions=2)()
    assert set(found) == set(mixed_op.PASSES)
    apart = [sum(found[name][i] for name in ("forward", "backward", "second")) for i in range(2)]
    assert all(0 < parts <= whole for parts, whole in zip(apart, found["whole"], strict=True))


def test_ratios_are_to_the_fastest_other():
    samples = {name: {"whole": [seconds]} for name, seconds in {"a": 1.0, "b": 2.0, "c": 4.0}.items()}
    assert mixed_op.ratios(samples, "whole") == {"a": 2.0, "b": 0.5, "c": 0.25}


@pytest.fixture
def isolated(monkeypatch):
    """Stands in for the processes: (faults, disagreement) -> the names of what was run."""

    def stand_in(fault="", disagreement=1e-14):
        calls = []

        def run(function, kwargs, **_):
            name = function.partition(":")[2]
            calls.append(kwargs.get("contestant", name))
            if name == "conformance":
                return {"result": {"faults": {"mix": fault}, "compile_seconds": 0.0}}
            if name == "check":
                return {"result": {"loop": disagreement}}
            seconds = {part: [1.0] * kwargs["repetitions"] for part in mixed_op.PASSES}
            return {"result": seconds, "peak_mb": 100.0}

        for module in (mixed_op, conformance):
            monkeypatch.setattr(module, "run_isolated", run)
        monkeypatch.setattr(mixed_op, "BUNDLES", (replace(BUNDLES[0]),))
        return calls

    return stand_in


def test_contestants_take_turns_and_rows_are_written(isolated, tmp_path):
    calls, file = isolated(), tmp_path / "rows.csv"
    assert mixed_op.main(["--turns", "2", "--repetitions", "3", "--out", str(file)]) == 0
    names = mixed_op.contestants_on("cpu")
    assert "ours-folded" not in names
    assert calls == ["conformance", "check", *names, *names]
    written = rows.read(file)
    assert len(written) == len(names) * len(mixed_op.PASSES)
    assert {row["repetitions"] for row in written} == {"6"}
    assert written[3]["what"] == "normal whole"


@pytest.mark.parametrize("trouble", [{"fault": "AssertionError: y"}, {"disagreement": 1e-9}], ids=["fault", "peers"])
def test_nothing_is_timed_when_something_is_wrong(isolated, tmp_path, capsys, trouble):
    calls = isolated(**trouble)
    assert mixed_op.main(["--out", str(tmp_path / "rows.csv")]) == 1
    assert not set(calls) & set(CONTESTANTS)
    assert "nothing was timed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pools_and_identity_are_computed_once_for_all_edges():
    """What the folded contestant may share it shares, so that it is no straw man."""
    count = []
    right = contestants._candidate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "_candidate", lambda name, *rest: count.append(name) or right(name, *rest))
        Passes.of("folded-channels_last", TINY[0], torch.float32).forward()
    assert sorted(count) == sorted(CANDIDATES)


# ---------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.parametrize("name", [OURS, "ours-folded", "loop"])
def test_replays_time_every_pass_and_their_sum(name):
    found = mixed_op.turn(name + mixed_op.REPLAYED, vars(TINY[2]), repetitions=2)()
    assert set(found) == set(mixed_op.PASSES)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())


def test_replays_are_compared_with_replays_and_our_folded_operators_are_no_rival():
    seconds = {"ours": 1.0, "ours-replayed": 0.1, "ours-folded": 0.5, "loop": 3.0, "loop-replayed": 0.4}
    found = mixed_op.ratios({name: {"whole": [value]} for name, value in seconds.items()}, "whole")
    assert (found["ours"], found["ours-folded"]) == (3.0, 2.0)
    assert found["ours-replayed"] == pytest.approx(4.0)


def test_the_roofline_of_a_bundle_is_that_of_its_calls():
    """Of the smallest bundle, whose calls are those of an edge of the network's own."""
    wide = contestants.WIDE[0]
    parts = [mixed_op.roofline_seconds(wide, part, 1.0) for part in ("forward", "backward", "second", "whole")]
    assert sum(parts[:3]) == parts[3]
    maps = 4 * 16 * 25 * 8 * 8 * 64  # bytes of one feature map of all tasks
    # six calls of separable: x, d, y each; two pools: x, y (and one pixel's place); seven candidates, one sum
    assert parts[0] == pytest.approx((6 * 3 + 2 * 2 + 1 + 8) * maps, rel=0.03)


def test_a_process_goes_through_all_bundles_on_a_gpu(isolated, monkeypatch, tmp_path, capsys):
    calls, file = isolated(), tmp_path / "rows.csv"
    right = mixed_op.run_isolated

    def run(function, kwargs, **more):
        if function.endswith(":bandwidth"):
            return {"result": 2e12}
        answer = right(function, kwargs, **more)
        return {"result": [answer] * len(kwargs["bundles"])} if function.endswith(":tour") else answer

    monkeypatch.setattr(mixed_op, "run_isolated", run)
    monkeypatch.setattr(mixed_op, "WIDE", contestants.WIDE[:1])
    monkeypatch.setattr(rows, "device_name", lambda device: "a card")
    assert mixed_op.main(["--device", "cuda", "--turns", "1", "--repetitions", "2", "--out", str(file)]) == 0
    assert calls[2:] == [name + how for name in CONTESTANTS for how in ("", "-replayed")]
    written = rows.read(file)
    assert len(written) == 2 * 2 * len(CONTESTANTS) * len(mixed_op.PASSES)
    assert {row["device"] for row in written} == {"a card"}
    expected = 100 * mixed_op.roofline_seconds(contestants.WIDE[0], "whole", 2e12)
    row = next(row for row in written if row["what"] == "wide whole")
    assert float(row["percent_of_roofline"]) == pytest.approx(expected, abs=0.01)
    assert "copy bandwidth 2000 GB/s" in capsys.readouterr().out
