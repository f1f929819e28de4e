"""The feed: every step's batch is that step's, made ahead and carried through two buffers in the right order."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, finish
from metadarts.training import Experiment, prefetch
from metadarts.training.prefetch import Prefetcher

PATIENCE = 20.0
KEY = Key.from_seed(5)


class Lane:
    """A device that copies as late as it may, or at once, and objects to whatever would be a race on a real one."""

    def __init__(self, late: bool) -> None:
        self.late = late
        self.log: list[str] = []
        self.copies: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}  # event -> (from, to)
        self.done: set[int] = set()
        self.unsettled: dict[int, int] = {}  # address on the host -> event of the copy under way
        self.reader: dict[int, int | None] = {}  # address on the device -> event that ends its reading; None before it
        self.allocated = {"host": 0, "device": 0}
        self.thread = threading.current_thread()

    def host(self, like):
        return self._memory("host", like)

    def device(self, like):
        return self._memory("device", like)

    def send(self, pairs, after):
        event = self._note("send")
        self.copies[event] = list(pairs)
        for source, target in pairs:
            read = self.reader.get(target.data_ptr(), 0)
            assert read is not None, "a buffer is overwritten before it is read"
            assert after >= read, "a buffer is overwritten while it may be read"
            self.reader[target.data_ptr()] = None
            self.unsettled[source.data_ptr()] = event
        if not self.late:
            self._copy(event)
        return event

    def receive(self, sent):
        following = self._note("receive") + 1
        for _, target in self.copies[sent]:
            self.reader[target.data_ptr()] = following
        self._copy(sent)

    def mark(self):
        return self._note("mark")

    def settle(self, sent):
        self._note("settle")
        self._copy(sent)
        for source, target in self.copies.pop(sent):
            del self.unsettled[source.data_ptr()]
            if self.reader[target.data_ptr()] is None:  # dropped unread; the next copy waits for this one by itself
                self.reader[target.data_ptr()] = 0

    def _memory(self, side, like):
        self._check_thread()
        self.allocated[side] += 1
        return torch.ones_like(like)

    def _note(self, what: str) -> int:
        self._check_thread()
        self.log.append(what)
        return len(self.log) - 1

    def _copy(self, event: int) -> None:
        if event not in self.done:
            self.done.add(event)
            for source, target in self.copies[event]:
                target.copy_(source)

    def _check_thread(self):
        assert threading.current_thread() is self.thread, "only the calling thread may speak to the device"


@pytest.fixture(params=[True, False], ids=["late copies", "early copies"])
def lane(request, monkeypatch) -> Lane:
    lane, give = Lane(request.param), prefetch._Maker.give

    def checked(maker, memory):
        addresses = {tensor.data_ptr() for tensor in memory.tensors().values()}
        assert not addresses & set(lane.unsettled), "host memory is given back while it may be copied from"
        give(maker, memory)

    monkeypatch.setattr(prefetch._Maker, "give", checked)
    return lane


@pytest.fixture(scope="module")
def make(source):
    """Ragged, turned and normalised episodes."""
    classes = tuple(replace(entry, quarter_turns=number % 4) for number, entry in enumerate(source.classes))
    sampler = EpisodeSampler(replace(source, classes=classes, mean=(0.4,), std=(0.3,)), "train", 4, (1, 3), 2)
    return lambda step: sampler.raw(KEY.child(step), 2)


def same(one, other) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return one.ragged == other.ragged and all(torch.equal(*pair) for pair in pairs)


def until_made(feeding: Prefetcher) -> None:
    """Wait until the thread has nothing more to make."""
    maker = feeding._maker
    with maker._changed:
        assert maker._changed.wait_for(lambda: maker._next() is None, PATIENCE)


def test_on_a_cpu_batches_are_made_when_asked_for_in_the_calling_thread(make):
    calls = []

    def noted(step):
        calls.append((step, threading.current_thread()))
        return make(step)

    before = threading.active_count()
    with Prefetcher(noted, "cpu") as feeding:
        assert same(feeding.batch(4), finish(make(4)))
        assert same(feeding.batch(0), finish(make(0)))
        assert threading.active_count() == before
    assert calls == [(4, threading.current_thread()), (0, threading.current_thread())]


ORDERS = {"in turn": range(12), "jumps": (3, 4, 9, 10, 2, 3, 3, 50, 51, 52, 0), "backwards": (5, 4, 3, 2, 1, 0)}


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("eager", [True, False], ids=["thread first", "caller first"])
def test_batch_is_its_step_s_whatever_was_made_ahead(make, lane, order, ahead, eager):
    kept = []
    with Prefetcher(make, "cpu", ahead, lane=lane) as feeding:
        for step in order:
            kept.append(feeding.batch(step))
            if eager:
                until_made(feeding)
    for step, batch in zip(order, kept, strict=True):  # at the end: later steps must not have written into them
        assert same(batch, finish(make(step))), step


def test_next_batch_is_on_its_way_before_it_is_asked_for(make, lane):
    with Prefetcher(make, "cpu", lane=lane) as feeding:
        for step in range(6):
            start = len(lane.log)
            feeding.batch(step)
            if step > 1:  # the first have memory to make, and may find the thread not ready
                assert lane.log[start:] == ["receive", "mark", "send", "settle"]
            until_made(feeding)


def test_memory_is_used_again(make, lane):
    each = len(make(0).tensors())
    with Prefetcher(make, "cpu", ahead=2, lane=lane) as feeding:
        for step in range(20):
            feeding.batch(step)
            until_made(feeding)
    assert lane.allocated["device"] == 2 * each
    assert lane.allocated["host"] <= 4 * each  # two made, one on its way, one just arrived


def test_no_more_is_made_ahead_than_was_said(make, lane):
    steps = []

    def noted(step):
        steps.append(step)
        return make(step)

    with Prefetcher(noted, "cpu", ahead=3, lane=lane) as feeding:
        feeding.batch(7)
        until_made(feeding)
        assert max(steps) <= 11  # three made, and one on its way if it was made in time
    assert len(set(steps)) == len(steps)


def test_other_shapes_get_other_memory(make, source, lane):
    wide = EpisodeSampler(source, "train", 2, 1, 5)
    with Prefetcher(lambda step: make(step) if step < 3 else wide.raw(KEY.child(step), 3), "cpu", lane=lane) as feeding:
        for step in range(6):
            expected = make(step) if step < 3 else wide.raw(KEY.child(step), 3)
            assert same(feeding.batch(step), finish(expected))
            until_made(feeding)


def test_error_reaches_the_caller_at_its_own_step_with_the_place_where_it_arose(make, lane):
    failing = {2}

    def sometimes(step):
        if step in failing:
            raise ValueError("no such image")
        return make(step)

    with Prefetcher(sometimes, "cpu", lane=lane) as feeding:
        feeding.batch(0)
        until_made(feeding)
        assert same(feeding.batch(1), finish(make(1)))
        with pytest.raises(ValueError, match="no such image") as caught:
            feeding.batch(2)
        assert "sometimes" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert same(feeding.batch(3), finish(make(3)))
        failing.clear()
        assert same(feeding.batch(2), finish(make(2)))


def test_closing_ends_the_thread(make, lane):
    with Prefetcher(make, "cpu", lane=lane) as feeding:
        feeding.batch(0)
        thread = feeding._maker._thread
        assert thread.is_alive()
    assert not thread.is_alive()
    feeding.close()
    with pytest.raises(RuntimeError, match="Prefetcher: it is closed"):
        feeding.batch(1)


def test_an_exception_of_the_caller_ends_the_thread(make, lane):
    feeding = Prefetcher(make, "cpu", lane=lane)

    def interrupted():
        with feeding:
            feeding.batch(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not feeding._maker._thread.is_alive()


def test_closing_does_not_wait_for_ever(make, lane, monkeypatch):
    monkeypatch.setattr(prefetch, "JOIN_SECONDS", 0.05)
    stuck = threading.Event()

    def slow(step):
        if step:
            stuck.wait(PATIENCE)
        return make(step)

    with Prefetcher(slow, "cpu", lane=lane) as feeding:
        feeding.batch(0)
    assert feeding._maker._thread.is_alive()
    stuck.set()
    feeding._maker._thread.join(PATIENCE)
    assert not feeding._maker._thread.is_alive()


INTERRUPTED = """
import signal, threading, time
from metadarts.training.prefetch import Prefetcher

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with the signal ignored

def make(step):
    threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT)).start()
    time.sleep(600)

Prefetcher(make, "cpu", lane=object()).batch(0)
"""


def test_interrupt_while_waiting_for_a_batch_ends_the_process():
    command = [sys.executable, "-c", INTERRUPTED]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode != 0
    assert run.stderr.rstrip().endswith("KeyboardInterrupt")


def test_refuses_to_make_nothing_ahead(make):
    with pytest.raises(ValueError, match="ahead of at least 1, given 0"):
        Prefetcher(make, "cpu", ahead=0)


def test_experiment_s_raw_batches_are_its_training_batches(source, tiny, lane):
    experiment = Experiment(tiny(), source, learner=SimpleNamespace(noise=lambda *_: {}), device=torch.device("cpu"))
    sampler, key = experiment.sampler("train"), experiment.key
    with Prefetcher(experiment.training_raw, "cpu", lane=lane) as feeding:
        for step in range(3):
            expected = sampler.sample(key.child("train", step), 2)
            assert same(feeding.batch(step), expected)
            assert same(experiment.training_batch(step), expected)
