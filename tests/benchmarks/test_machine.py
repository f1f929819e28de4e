"""Timing and recording: what waits, what is recorded, and what the stand-in for a recorder sees."""

from __future__ import annotations

import torch

from benchmarks import machine


def test_a_recording_does_the_work_again_at_every_replay():
    x, calls = torch.zeros(3), []

    def run():
        calls.append(1)
        return x.add_(1)

    replay = machine.recorded(run, "cpu")
    assert len(calls) == 2, "two to warm up, and recording does nothing"
    replay()
    replay()
    assert torch.equal(x, torch.full((3,), 4.0))


def test_the_stand_in_sees_what_could_not_be_recorded():
    x = torch.ones(2)
    stand_in = machine.StandIn()
    stand_in.record(lambda: x.mul_(2))()
    assert stand_in.operations == ["aten::mul_"]
    assert not stand_in.host
    looking = machine.StandIn()
    looking.record(lambda: x.mul_(float(x.sum())))()
    assert looking.host == ["aten::_local_scalar_dense"]


def test_a_batch_of_calls_is_timed_as_one():
    calls = []
    seconds = machine.seconds_of(lambda: calls.append(1), "cpu", repetitions=3, warmups=2, batch=4)
    assert len(seconds) == 3
    assert len(calls) == 2 + 3 * 4


def test_rows_and_rehearsals_choose_triton_only_where_it_is_interpreted(monkeypatch):
    with machine.rehearsed_kernels() as name:
        assert name == "auto"
    monkeypatch.setattr(machine, "interpreting", lambda: True)
    monkeypatch.setattr(machine, "all_offer_triton", lambda: True)
    with machine.rehearsed_kernels() as name:
        assert name == "triton"
