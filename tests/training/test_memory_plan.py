"""The memory plan: linear where memory is, cheapest first, refused with advice, kept by a run that goes on."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.errors import ConfigError, ResourceError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.relaxations import Softmax
from metadarts.testing import generic_params, random_tasks, tiny_learner
from metadarts.training import Config, RunFolder, search, with_settings
from metadarts.training.footprint import PASSING_STEPS, Footprint, Growth, bytes_of, footprint
from metadarts.training.memory import resident_bytes, usable_bytes
from metadarts.training.memory_plan import GB, Budget, choose, plan_search
from metadarts.training.search import SearchStopped

MODULE = importlib.import_module("metadarts.training.memory_plan")
CPU = torch.device("cpu")
FOUND = Footprint(base=100, shared=1, data=2, outside=40, stored=30, recomputed=3, again=50)
SETTINGS = {"training.meta_steps": 1, "training.tasks": 4, "inner.steps": 5, "evaluate.batch": 3}


def config(**changes):
    return with_settings(Config(), SETTINGS | {name.replace("__", "."): value for name, value in changes.items()})


def test_the_prediction_is_its_parts():
    assert FOUND.peak(4, 4, 5, 0) == 100 + 4 * 2 + 1 + 4 * (40 + 5 * 30)
    assert FOUND.peak(4, 4, 5, 2) == 100 + 4 * 2 + 1 + 4 * (40 + 3 * 30 + 2 * 3)
    assert FOUND.peak(4, 4, 5, 5) == 100 + 4 * 2 + 1 + 4 * (50 + 5 * 3), "recomputing a step is the peak"
    assert FOUND.peak(7, 3, 5, 0) == 100 + 7 * 2 + 3 * 1 + 3 * (40 + 5 * 30), "three passes"


def test_it_is_linear_in_tasks_and_steps_and_falls_with_recomputing():
    def second_difference(peaks):
        return {a - 2 * b + c for a, b, c in zip(peaks, peaks[1:], peaks[2:], strict=False)}

    assert second_difference([FOUND.peak(tasks, tasks, 5, 0) for tasks in range(1, 9)]) == {0}
    assert second_difference([FOUND.peak(4, 4, steps, 0) for steps in range(9)]) == {0}
    assert second_difference([FOUND.peak(4, 4, steps, steps) for steps in range(1, 9)]) == {0}
    falling = [FOUND.peak(4, 4, 5, recomputed) for recomputed in range(6)]
    assert falling == sorted(set(falling), reverse=True)


def tried(settings, **options):
    """The ways in the order in which they are chosen as the limit falls, down to the refusal."""
    limit, found = 10**6, []
    while True:
        try:
            plan = choose(settings, FOUND, 10, Budget(limit), **options)
        except ResourceError:
            return found
        found.append((plan.micro_batch, plan.recomputed))
        assert plan.peak <= limit
        limit = plan.peak - 1


def test_the_order_is_everything_then_recomputing_then_fewer_tasks():
    ways = tried(config())
    assert ways[:6] == [(4, recomputed) for recomputed in range(6)]
    assert [size for size, _ in ways[6:]] == sorted((size for size, _ in ways[6:]), reverse=True)
    assert ways[-1] == (1, 5)


def test_recomputing_is_left_to_the_exact_order_and_its_engine():
    assert tried(config(inner__order="first")) == [(4, 0), (2, 0), (1, 0)]
    assert tried(config(training__engine="loop")) == [(4, 0), (2, 0), (1, 0)]


def test_what_the_user_set_is_the_least_and_the_most():
    ways = tried(config(inner__checkpoint=3, training__micro_batch=2))
    assert ways[:3] == [(2, 3), (2, 4), (2, 5)]
    assert tried(config(), keep=True) == [(4, recomputed) for recomputed in range(6)]


def test_validations_are_fitted_too():
    assert choose(config(), FOUND, 10, Budget(10**6)).evaluation_batch == 3
    small = choose(config(inner__steps=1, training__tasks=1), FOUND, 50, Budget(202))
    assert (small.evaluation_batch, small.peak) == (2, 200)


def test_the_plan_says_what_it_is():
    found = Footprint(5 * 10**8, 0, 0, 10**8, 10**8, 10**6, 10**8)
    plan = choose(config(), found, 1, Budget(int(2 * GB)))
    assert str(plan) == ("memory: predicted peak 1.7 GB of 2.5 GB free: 4 tasks at once, 3 of 5 inner steps recomputed")
    assert str(choose(config(), found, 1, Budget(None))).startswith(
        "memory: predicted peak 2.9 GB (free memory unknown)"
    )
    assert plan.apply(config()).inner.checkpoint == 3
    few = choose(config(inner__order="first"), found, 1, Budget(int(1.5 * GB), asked=True))
    assert str(few) == "memory: predicted peak 1.1 GB of 1.5 GB allowed: 1 of 4 tasks at once"


@pytest.mark.parametrize(
    ("budget", "keep", "words"),
    [
        (Budget(10, asked=True), False, r"smallest plan \(1 task at once, 5 of 5 .* raise training.memory_gb$"),
        (Budget(10), False, r"--order first, or free memory, or set training.memory_gb$"),
        (Budget(10), True, r"this run was begun \(4 tasks at once, 5 of 5 .*--fit-memory"),
    ],
)
def test_the_refusal_says_what_the_smallest_takes_and_what_to_lower(budget, keep, words):
    with pytest.raises(ResourceError, match=words):
        choose(config(), FOUND, 10, budget, keep)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_the_setting_is_checked(value):
    with pytest.raises(ConfigError, match=r"training\.memory_gb: expected a positive number"):
        config(training__memory_gb=value).check()


def files(root, **texts):
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("memory/", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_free_is_the_machines_or_the_groups(tmp_path):
    assert usable_bytes(CPU, tmp_path) is None
    files(tmp_path, proc__meminfo="MemTotal: 900 kB\nMemAvailable:   600 kB\n")
    files(tmp_path, proc__self__status="VmRSS:\t 100 kB\n", proc__self__cgroup="4:memory:/a/b\n0::/c\n")
    assert resident_bytes(CPU, tmp_path) == 100 * 1024
    assert usable_bytes(CPU, tmp_path) == 700 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    (group / "c").mkdir(parents=True)
    (group / "c" / "memory.max").write_text("max\n")
    assert usable_bytes(CPU, tmp_path) == 700 * 1024
    (group / "memory" / "a").mkdir(parents=True)
    (group / "memory" / "a" / "memory.limit_in_bytes").write_text("500000\n")
    assert usable_bytes(CPU, tmp_path) == 500_000, "a limit of the group around"
    (group / "memory.max").write_text("400000\n")
    assert usable_bytes(CPU, tmp_path) == 400_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_growth_is_what_a_graph_holds():
    """A hand count: 40 squarings each save their input of 4 MB; the last output is alive beside them."""
    with Growth(CPU) as growth:
        x = torch.ones(1 << 20, requires_grad=True)
        y = x
        for _ in range(40):
            y = y * y
        held = growth.now()
        del x, y
    assert held == pytest.approx(41 * (4 << 20), rel=0.05)
    assert growth.peak >= held


def test_data_is_counted_by_hand():
    batch = random_tasks(Key.from_seed(0), tasks=1, ways=2, shots=3, queries=4, size=8).to("cpu", torch.float32)
    images, channels = 2 * (3 + 4), batch.support_images.shape[2]
    assert bytes_of(batch) == images * (channels * 8 * 8 * 4 + 8 + 1)


def test_recomputing_changes_no_bit():
    learner = replace(tiny_learner(), precision="fp32")
    params = {name: tensor.float() for name, tensor in generic_params(learner, Key.from_seed(0)).items()}
    batch = random_tasks(Key.from_seed(0), tasks=3, ways=3, shots=2, queries=2, size=12).to("cpu", torch.float32)
    results = [
        meta_gradient(learner, params, batch, InnerLoop(3, "momentum", 0.05, 1.0, checkpoint=count)).gradients
        for count in range(4)
    ]
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


LEAK = 10**9


class Leaking:
    """A problem on a made-up heap, which each support loss makes larger by `LEAK` bytes."""

    def __init__(self):
        learner = tiny_learner(nodes=1)
        self.params = generic_params(learner, Key.from_seed(0))
        self.start, self.query_loss, self.learner, self.heap = learner.start, learner.query_loss, learner, 1000

    def support_loss(self, params, batch, at):
        self.heap += LEAK
        return self.learner.support_loss(params, batch)


@pytest.mark.parametrize(("rule", "copies"), [("sgd", 1), ("momentum", 2), ("adam", 3)])
def test_a_probe_takes_steps_apart(monkeypatch, rule, copies):
    """A stored step is what the heap grew by between two losses; a recomputed one the parameters it moves, and the
    rule's memory of them. It begins its loss once before the query pass, and once after.
    """
    problem = Leaking()
    monkeypatch.setattr("metadarts.training.footprint.resident_bytes", lambda device: problem.heap)
    batch, inner = random_tasks(Key.from_seed(0), tasks=1), InnerLoop(5, rule, weight_rate=0.01, alpha_rate=0.0)
    start = problem.start({name: tensor.unsqueeze(0) for name, tensor in problem.params.items()}, batch)
    held = copies * sum(tensor.nbytes for name, tensor in start.items() if not is_alpha(name))
    found = footprint(problem, problem.params, batch, inner)
    assert (found.stored, found.outside) == (LEAK, 0)
    assert (found.recomputed, found.again) == (held, 2 * PASSING_STEPS * LEAK - PASSING_STEPS * held)


@dataclass(frozen=True)
class Drawing(Softmax):
    """Needs a draw for every inner step and the query pass."""

    def noise(self, shape, key):
        return torch.randn(shape, dtype=torch.float64, generator=key.torch())

    def weights(self, alpha, at, noise=None):
        return (alpha if noise is None else alpha + noise).softmax(-1)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("images", ["all", "two-fold"])
@pytest.mark.parametrize(("steps", "order"), [(0, "second"), (1, "second"), (1, "first"), (5, "second")])
def test_a_probe_of_more_steps_than_were_drawn_for(steps, order, images):
    plain = tiny_learner(nodes=1)
    learner = replace(plain, network=replace(plain.network, relaxation=Drawing()))
    inner = InnerLoop(steps, weight_rate=0.01, alpha_rate=0.1, order=order, alpha_images=images)
    batch = random_tasks(Key.from_seed(0), tasks=1).with_noise(learner.noise(1, steps, Key.from_seed(1)))
    found = footprint(learner, generic_params(learner, Key.from_seed(0)), batch, inner)
    assert found.base > 0


def planned(experiment, plan):
    return replace(experiment, config=plan.apply(experiment.config))


@pytest.fixture
def measured(monkeypatch):
    """(limit) -> plans are made from FOUND, for that limit."""

    def set_up(limit):
        monkeypatch.setattr(MODULE, "footprint", lambda *_, **__: FOUND)
        monkeypatch.setattr(MODULE, "validation_bytes", lambda *_: 10)
        monkeypatch.setattr(MODULE, "budget_of", lambda _: Budget(limit))

    return set_up


def test_a_resumed_run_keeps_its_tasks_per_pass(make, tmp_path, measured):
    """Begun with little memory and gone on with much: the tasks per pass, which would be rounded otherwise, stay."""
    experiment = make({"training.tasks": 4})
    measured(200)  # 1 step: 100 + 8 + passes + tasks * 70, or tasks * 53 recomputed
    plan = plan_search(experiment)
    assert (plan.micro_batch, plan.recomputed) == (1, 0)
    whole = RunFolder.create(tmp_path / "whole", experiment.config, {"memory": plan.facts()})
    expected = search(planned(experiment, plan), whole)
    run = RunFolder.create(tmp_path / "run", experiment.config, {"memory": plan.facts()})
    measured(10**6)
    assert plan_search(experiment).micro_batch == 4
    assert plan_search(experiment, run).micro_batch == 1, "nothing is saved yet: env.json says it"
    told = []
    with pytest.raises(SearchStopped):
        search(planned(experiment, plan), run, told.append, stop=lambda: len(told) == 2)
    (run.path / "env.json").unlink()
    again = plan_search(experiment, run)
    assert (again.micro_batch, again.evaluation_batch) == (1, plan.evaluation_batch), "the checkpoint says it"
    state = search(planned(experiment, again), run)
    assert all(torch.equal(tensor, expected.params[name]) for name, tensor in state.params.items())


def test_a_resumed_run_that_does_not_fit_is_refused_unless_it_may_shrink(make, tmp_path, measured):
    experiment = make({"training.tasks": 4})
    measured(10**6)
    run = RunFolder.create(tmp_path / "run", experiment.config, {"memory": plan_search(experiment).facts()})
    measured(200)
    with pytest.raises(ResourceError, match=r"this run was begun .*--fit-memory"):
        plan_search(experiment, run)
    assert plan_search(make({"training.tasks": 4, "training.fit_memory": True}), run).micro_batch == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_planning_changes_no_result(make, tmp_path, finished):
    experiment = make()
    plan = plan_search(experiment)
    assert (plan.micro_batch, plan.recomputed) == (2, 0)
    assert plan.peak > 10**8
    run = RunFolder.create(tmp_path / "run", experiment.config, {})
    state = search(planned(experiment, plan), run)
    assert all(torch.equal(tensor, finished.state.params[name]) for name, tensor in state.params.items())


REAL = """
from benchmarks.memory_plan import meta_step
from benchmarks.peers.worker import memory_mb
run = meta_step(tasks=8, steps=3, recomputed=1, channels=8, size=28, image_channels=1)
run()
print(run()["predicted_mb"], memory_mb("VmHWM"))
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_a_real_peak_is_within_a_fifth_of_its_prediction():
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predicted, peak = map(float, done.stdout.split())
    assert predicted == pytest.approx(peak, rel=0.2)
