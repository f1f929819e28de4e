"""The recorded meta-step, without a GPU: a stand-in records it as a graph of torch operations and replays that graph.

As a CUDA graph would, the recording fails on whatever looks at a number, the graph keeps every number that Python gave
it, and a replay runs no Python of ours.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key
from metadarts.costs import COSTS, Penalty
from metadarts.inner import InnerLoop
from metadarts.meta import CapturedStep, MetaState, OuterLoop, meta_step
from metadarts.networks import supernet
from metadarts.networks.learner import masked_loss
from metadarts.ops import implementation
from metadarts.spaces import SearchSpace
from metadarts.testing import generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0, learn_rates=True, granularity="tensor-step")
OUTER = OuterLoop(final=0.1, alpha_warmup=2)
HOST = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.lift_fresh", "aten.masked_select")
"""What makes a GPU wait for the host, or the host for a GPU."""


def tasks(step, **options):
    return random_tasks(Key.from_seed(100 + step), **options)


class Gated:
    """Two layers whose hidden units a softmax of alphas weights: what an outer loop asks for, traced in a second."""

    hidden = 6

    def start(self, params, batch, at=None):
        return params

    def support_loss(self, params, batch, at=None):
        return masked_loss(self.logits(params, batch.support_images), batch.support_labels, batch.support_mask)

    def query_loss(self, params, batch, at=None):
        logits = self.logits(params, batch.query_images)
        hits = (logits.argmax(-1) == batch.query_labels).to(logits.dtype)
        return masked_loss(logits, batch.query_labels, batch.query_mask), hits.mean(1)

    def logits(self, params, images):
        hidden = (images.flatten(2) @ params["first"]).tanh() * params["alphas.normal"].softmax(-1).unsqueeze(1)
        return hidden @ params["second"]

    def params(self):
        key = Key.from_seed(1)
        shapes = {"first": (144, self.hidden), "second": (self.hidden, 3), "alphas.normal": (self.hidden,)}
        return {
            name: 0.3 * torch.randn(shape, dtype=torch.float64, generator=key.child(name).torch())
            for name, shape in shapes.items()
        }


GATED = Gated()


def fresh(inner=INNER, params=None, names=None):
    params = GATED.params() if params is None else params
    return MetaState.create(params, names or list(params), inner, OUTER, on_device=True)


def held(state):
    return {**state.params, **state.log_rates, **state.memory(), "updates": state.updates, "progress": state.progress}


class Rehearsal:
    """Records by tracing. Tracing does the step once, as no CUDA graph would, so the state is put back."""

    def __init__(self, state):
        self.state, self.graphs, self.warmed = state, [], 0

    def warm(self, run):
        self.warmed += 1
        return run()

    def record(self, run):
        before = {name: tensor.clone() for name, tensor in held(self.state).items()}

        def once():  # a method itself cannot be traced
            run()

        graph = make_fx(once, tracing_mode="real")()
        for name, tensor in held(self.state).items():
            tensor.copy_(before[name])
        self.graphs.append(graph)
        return graph

    def targets(self):
        return [str(node.target) for node in self.graphs[-1].graph.nodes if node.op == "call_function"]


@pytest.fixture(autouse=True)
def traceable():
    """Our CPU kernels are not torch operations; those of `folded` are."""
    with implementation("folded"):
        yield


def compare(problem, make, inner, micro_batch=None, steps=4, batch_of=tasks):
    """Recorded and step by step, from one start on the same episodes; returns the recorder."""
    recorded, plain = make(), make()
    recorder = Rehearsal(recorded)
    step = CapturedStep(problem, recorded, inner, micro_batch=micro_batch, recorder=recorder)
    for number in range(steps):
        found, norms = step(batch_of(number), number / steps)
        expected, expected_norms = meta_step(
            problem, plain, batch_of(number), inner, progress=number / steps, micro_batch=micro_batch
        )
        assert step.is_recorded == (number > 0)
        assert norms == expected_norms
        for name in ("losses", "accuracies", "support_losses", "finite"):
            assert torch.equal(getattr(found, name).double(), getattr(expected, name).double()), name
        for name, tensor in held(plain).items():
            assert torch.equal(held(recorded)[name], tensor), name
        assert recorded.step == plain.step
    assert (recorder.warmed, len(recorder.graphs)) == (1, 1)
    return recorder


def from_host(recorder):
    """What was recorded that makes a GPU wait for the host or brings numbers from it."""
    moves = [node for node in recorder.graphs[-1].graph.nodes if "_to_copy" in str(node.target)]
    elsewhere = [str(node) for node in moves if node.kwargs.get("device") not in (None, torch.device("cpu"))]
    return [target for target in recorder.targets() if target.startswith(HOST)] + elsewhere


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("inner", "micro_batch"),
    [
        (INNER, None),
        (replace(INNER, order="first"), None),
        (replace(INNER, rule="adam", checkpoint=1, clip=1.0), 1),
        (replace(INNER, learn_rates=False, weight_rate=0.0, alpha_rate=0.0), None),
    ],
    ids=["second order", "first order", "adam, recomputed, in parts", "nothing moves"],
)
def test_replays_are_the_steps_they_stand_for_bit_for_bit(inner, micro_batch):
    """The schedule, the warm-up of the alphas, the learned rates and Adam's count go on through replays."""
    recorder = compare(GATED, lambda: fresh(inner), inner, micro_batch)
    assert from_host(recorder) == []


@pytest.mark.thorough
@pytest.mark.parametrize("images", ["all", "two-fold"])
def test_so_are_those_of_a_supernet_and_nothing_of_it_waits_for_the_host(images):
    cost = Penalty(COSTS["multiply_adds"](12, 12), 1e-3)  # its prices must not be copied from the host either
    learner = replace(tiny_learner(head="prototype", bn="support", nodes=1), penalty=cost)
    if images != "all":  # tracing takes a second an operation
        space = SearchSpace("few", ("skip_connect", "max_pool_3x3", "sep_conv_3x3"), nodes=1)
        learner = replace(learner, network=supernet(space, learner.network.spec))
    params = generic_params(learner, Key.from_seed(1))
    names = list(learner.start({name: tensor.unsqueeze(0) for name, tensor in params.items()}, tasks(0).task(0)))
    inner = replace(INNER, steps=1, checkpoint=1, alpha_images=images)
    recorder = compare(learner, lambda: fresh(inner, params, names), inner, steps=3)
    assert len(recorder.targets()) > 300
    assert from_host(recorder) == []


class Scheduled(Gated):
    """Gates with noise, whose temperature falls within the task and over the run."""

    def support_loss(self, params, batch, at):
        return super().support_loss(self.gated(params, batch, at), batch)

    def query_loss(self, params, batch, at):
        return super().query_loss(self.gated(params, batch, at), batch)

    def gated(self, params, batch, at):
        temperature = 1.0 - 0.9 * at.fraction * at.progress
        return params | {"alphas.normal": (params["alphas.normal"] + batch.noise["normal"][:, at.step]) / temperature}


def noisy(step, inner=INNER):
    batch = tasks(step)
    shape = (batch.tasks, inner.steps + 1, GATED.hidden)
    drawn = torch.randn(shape, dtype=torch.float64, generator=Key.from_seed(step).child("noise").torch())
    return batch.with_noise({"normal": drawn})


@pytest.mark.parametrize(
    ("inner", "micro_batch"),
    [(INNER, None), (replace(INNER, checkpoint=2), 1)],
    ids=["stored", "recomputed, in parts"],
)
def test_a_replay_sees_the_progress_of_the_run_and_new_noise(inner, micro_batch):
    """A temperature or a draw that the recording had kept would be that of the recorded step in every replay."""
    recorder = compare(Scheduled(), lambda: fresh(inner), inner, micro_batch, batch_of=noisy)
    assert from_host(recorder) == []


class Looking:
    """A learner whose query loss looks at a number."""

    def __init__(self, learner):
        self.start, self.support_loss, self.learner = learner.start, learner.support_loss, learner

    def query_loss(self, params, batch, at=None):
        loss, accuracy = self.learner.query_loss(params, batch)
        return (loss, accuracy) if float(loss.detach().sum()) > -1.0 else (-loss, accuracy)


def test_a_step_that_looks_at_a_number_is_not_recorded_and_says_so(caplog):
    recorded, plain = fresh(), fresh()
    step = CapturedStep(Looking(GATED), recorded, INNER, recorder=Rehearsal(recorded))
    with caplog.at_level(logging.WARNING, logger="metadarts.capture"):
        for number in range(3):
            step(tasks(number))
            meta_step(GATED, plain, tasks(number), INNER)
    assert not step.is_recorded
    assert caplog.text.count("the meta-step could not be recorded") == 1
    assert all(torch.equal(held(recorded)[name], tensor) for name, tensor in held(plain).items())


def test_without_memory_for_the_graph_steps_are_taken_one_by_one(caplog):
    class Full(Rehearsal):
        def record(self, run):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    recorded, plain = fresh(), fresh()
    step = CapturedStep(GATED, recorded, INNER, recorder=Full(recorded))
    with caplog.at_level(logging.WARNING, logger="metadarts.capture"):
        for number in range(3):
            step(tasks(number))
            meta_step(GATED, plain, tasks(number), INNER)
    assert "CUDA out of memory" in caplog.text
    assert all(torch.equal(held(recorded)[name], tensor) for name, tensor in held(plain).items())


def test_another_shape_is_recorded_anew_and_said(caplog):
    recorded, plain = fresh(), fresh()
    recorder = Rehearsal(recorded)
    step = CapturedStep(GATED, recorded, INNER, recorder=recorder)
    with caplog.at_level(logging.WARNING, logger="metadarts.capture"):
        for number, queries in enumerate((2, 2, 3, 3)):
            found, _ = step(tasks(number, queries=queries))
            expected, _ = meta_step(GATED, plain, tasks(number, queries=queries), INNER)
            assert torch.equal(found.losses, expected.losses)
    assert (recorder.warmed, len(recorder.graphs)) == (2, 2)
    assert caplog.text.count("changed their shape") == 1


def test_ragged_episodes_are_not_recorded_and_said(caplog):
    recorded = fresh()
    recorder = Rehearsal(recorded)
    step = CapturedStep(GATED, recorded, INNER, recorder=recorder)
    batch = tasks(0)
    mask = batch.support_mask.clone()
    mask[0, -1] = False
    ragged = replace(batch, support_mask=mask)
    with caplog.at_level(logging.WARNING, logger="metadarts.capture"):
        for _ in range(3):
            step(ragged)
    assert recorded.step == 3
    assert not recorder.graphs
    assert caplog.text.count("ragged") == 1


def test_where_no_task_stays_finite_the_state_stays_as_it_was():
    recorded = fresh()
    step = CapturedStep(GATED, recorded, INNER, recorder=Rehearsal(recorded))
    step(tasks(0))
    step(tasks(1))
    before = {name: tensor.clone() for name, tensor in held(recorded).items()}
    lost = replace(tasks(2), query_images=torch.full_like(tasks(2).query_images, float("nan")))
    with pytest.raises(NumericsError, match="no task of this batch stayed finite"):
        step(lost)
    assert recorded.step == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in held(recorded).items())
    step(tasks(3))
    assert recorded.step == 3
    assert not torch.equal(recorded.params["first"], before["first"])


def test_a_state_with_its_optimiser_on_the_host_is_refused():
    state = MetaState.create(GATED.params(), [], replace(INNER, learn_rates=False), OUTER)
    with pytest.raises(ValueError, match="on_device"):
        CapturedStep(GATED, state, INNER)


def test_a_first_step_that_failed_has_warmed_nothing_up():
    """Adam's memory is born in the first update; born in a recording it would be made anew at every replay."""
    recorded, plain = fresh(), fresh()
    recorder = Rehearsal(recorded)
    step = CapturedStep(GATED, recorded, INNER, recorder=recorder)
    lost = replace(tasks(9), query_images=torch.full_like(tasks(9).query_images, float("nan")))
    with pytest.raises(NumericsError):
        step(lost)
    for number in range(4):
        step(tasks(number))
        meta_step(GATED, plain, tasks(number), INNER)
        assert step.is_recorded == (number > 0)
    assert all(torch.equal(held(recorded)[name], tensor) for name, tensor in held(plain).items())


def test_a_shape_that_could_not_be_recorded_leaves_others_their_chance():
    class Narrow(Rehearsal):
        def record(self, run):
            if step.micro_batch is None:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(run)

    recorded = fresh()
    step = CapturedStep(GATED, recorded, INNER, recorder=Narrow(recorded))
    for number in range(3):
        step(tasks(number))
    assert not step.is_recorded
    step.micro_batch = 1
    step(tasks(3))
    step(tasks(4))
    assert step.is_recorded
    assert recorded.step == 5
