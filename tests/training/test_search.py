"""The search: reproducible, watched on validation classes only, and safe against what goes wrong on the way."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import NumericsError, ResourceError
from metadarts.meta import CapturedStep, Evaluation, MetaState
from metadarts.tasks import Source
from metadarts.training import Experiment, RunFolder, search
from metadarts.training.clock import Clock
from metadarts.training.config import Training
from metadarts.training.search import SearchProgress

MODULE = importlib.import_module("metadarts.training.search")  # in the package, the function hides it


@pytest.fixture
def start(make, tmp_path):
    """(settings, source) -> an experiment and its fresh run folder."""

    def started(changes=None, **options):
        experiment = make(changes, **options)
        return experiment, RunFolder.create(tmp_path / f"run {len(list(tmp_path.iterdir()))}", experiment.config, {})

    return started


@pytest.fixture
def scripted(monkeypatch):
    """(accuracies) -> the list of parameters seen at each validation; validation then gives these accuracies."""

    def script(accuracies):
        seen, left = [], iter(accuracies)

        def validate(learner, params, batches, inner, **options):
            seen.append({name: tensor.clone() for name, tensor in params.items()})
            value = torch.full((options["tasks"],), next(left))
            return Evaluation(value, value, torch.zeros(0))

        monkeypatch.setattr(MODULE, "evaluate", validate)
        return seen

    return script


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def validations_of(run):
    """The validation records, without the time that they took."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in run.records("validate")]


def test_a_run_leaves_its_documented_files(finished):
    names = sorted(str(path.relative_to(finished.run.path)) for path in finished.run.path.rglob("*") if path.is_file())
    events = [name for name in names if name.startswith("events.out.tfevents.")]
    tensors = [name for name in names if name.startswith("checkpoints/") and name.endswith(".safetensors")]
    assert (len(events), [name[12:16] for name in tensors]) == (1, ["best", "last"])
    assert sorted(set(names) - set(events) - set(tensors) - {".lock"}) == [
        "checkpoints/best.json",
        "checkpoints/last.json",
        "config.yaml",
        "data.json",
        "env.json",
        "finished.json",
        "metrics.jsonl",
    ]


def test_tensorboard_can_read_what_was_recorded(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.run.path)).Reload()
    validations = [(event.step, pytest.approx(event.value)) for event in events.Scalars("validate/accuracy")]
    assert [(line["step"], line["accuracy"]) for line in finished.run.records("validate")] == validations
    assert {"train/loss", "train/accuracy", "inner/support_loss/0"} <= set(events.Tags()["scalars"])


def test_metrics_are_plain_json_with_finite_numbers(finished):
    lines = (finished.run.path / "metrics.jsonl").read_text().splitlines()
    for line in lines:
        facts = json.loads(line, parse_constant=pytest.fail)
        assert all(math.isfinite(value) for value in facts.values() if isinstance(value, float))
    (first,) = [line for line in finished.run.records("train") if line["step"] == 1]
    assert first["finite_tasks"] == 2
    assert {"loss", "accuracy", "seconds", "gradient_weights", "gradient_alphas", "entropy_normal"} <= set(first)


def test_records_of_alphas_say_how_far_they_have_chosen(finished):
    first, *later = finished.run.records("alphas")
    assert (first["progress"], "stability" in first) == (0.0, False)
    assert later
    assert all(0.0 <= line["stability"] <= 1.0 and line["progress"] > 0.0 for line in later)
    assert all(line["mixing_entropy_normal"] == pytest.approx(line["entropy_normal"], rel=1e-6) for line in later)


def test_it_stops_after_its_meta_steps_and_validates_at_the_end(finished):
    assert finished.state.step == 4
    validations = finished.run.records("validate")
    assert len(validations) == 2
    assert validations[-1]["step"] == 4


def test_it_moved_weights_and_alphas(finished):
    fresh = finished.experiment.fresh_state().params
    moved = {name for name, tensor in finished.state.params.items() if not torch.equal(tensor, fresh[name])}
    assert moved == set(fresh)


def test_one_seed_gives_one_result_bit_for_bit(finished, start):
    experiment, run = start()
    assert same(search(experiment, run, watch=lambda now: torch.rand(3)).params, finished.state.params)
    ours, theirs = (
        {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
        for folder in (run.path, finished.run.path)
    )
    assert len(ours) == 4
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"last.json"}, "it holds the time spent"
    assert validations_of(run) == validations_of(finished.run)


def test_another_seed_gives_another_result(finished, start):
    state = search(*start({"training.seed": 1}))
    assert all(not torch.equal(tensor, finished.state.params[name]) for name, tensor in state.params.items())


def images_of(experiment, step):
    return experiment.training_batch(step).support_images


def test_a_search_with_two_folds_runs_to_its_end_and_validates(make, tmp_path):
    experiment = make({"inner.alpha_images": "two-fold", "inner.steps": 2, "tasks.shots": 2, "training.meta_steps": 1})
    run = RunFolder.create(tmp_path / "run", experiment.config, {})
    state = search(experiment, run)
    assert state.step == 1
    assert run.records("validate")
    assert RunFolder.open(run.path).config().inner.alpha_images == "two-fold"


def test_training_batches_are_a_function_of_seed_and_step(make):
    experiment, other = make(), make({"evaluate.queries": 1, "inner.steps": 0, "training.meta_steps": 50})
    drawn = [images_of(experiment, step) for step in (0, 1, 2)]
    torch.rand(5)
    assert torch.equal(images_of(other, 2), drawn[2])
    assert torch.equal(images_of(other, 0), drawn[0])
    assert len({images_of(experiment, step).numpy().tobytes() for step in range(8)}) == 8
    assert not torch.equal(images_of(make({"training.seed": 1}), 2), drawn[2])
    assert torch.equal(images_of(make({"training.tasks": 1}), 2), drawn[2][:1])


def test_training_and_held_out_tasks_have_their_own_numbers_of_queries(make):
    experiment = make()
    assert experiment.training_batch(0).query_images.shape[:2] == (2, 3 * 2)
    assert (experiment.sampler("train").queries, experiment.sampler("val").queries) == (2, 3)


def test_training_tasks_may_have_more_classes_than_held_out_ones(make):
    experiment = make({"tasks.train_ways": 5})
    assert experiment.training_batch(0).ways == 5
    assert (experiment.sampler("val").ways, experiment.sampler("test").ways) == (3, 3)
    assert make().training_batch(0).ways == 3
    assert make({"tasks.train_ways": 50}).training_batch(0).ways == 5, "all there are"


def test_the_best_checkpoint_is_that_of_the_highest_validation_accuracy(start, scripted):
    accuracies = [0.3, 0.7, 0.5, 0.7, 0.6]
    seen = scripted(accuracies)
    experiment, run = start({"training.meta_steps": 5, "training.validations": 5})
    watched: list[SearchProgress] = []
    state = search(experiment, run, watched.append)
    validations = run.records("validate")
    assert [line["accuracy"] for line in validations] == pytest.approx(accuracies)
    best = run.load("best")
    assert best.facts["validation_accuracy"] == max(line["accuracy"] for line in validations)
    assert best.facts["step"] == validations[3]["step"], "of equals, the one that trained longer"
    assert same(best.params, seen[3])
    assert not same(best.params, state.params)
    assert best.facts["validation_tasks"] == 4
    assert [now.best for now in watched][:2] == [None, pytest.approx(0.3)]


def test_the_checkpoint_of_a_real_run_is_its_best(finished):
    validations = finished.run.records("validate")
    highest = max(line["accuracy"] for line in validations)
    facts = finished.run.load("best").facts
    assert facts["validation_accuracy"] == highest
    assert facts["step"] in [line["step"] for line in validations if line["accuracy"] == highest]


def test_search_never_opens_the_test_split(start, monkeypatch):
    opened, classes = set(), Source.class_numbers
    monkeypatch.setattr(Source, "class_numbers", lambda self, split: opened.add(split) or classes(self, split))
    search(*start({"training.meta_steps": 1}))
    assert opened == {"train", "val"}


def test_other_test_images_change_no_bit_of_a_search(finished, start, source):
    images = source.images.copy()
    for number in source.split["test"]:
        images[source.classes[number].rows] = 255 - images[source.classes[number].rows]
    assert not np.array_equal(images, source.images)
    experiment, run = start(source=replace(source, images=images))
    assert same(search(experiment, run).params, finished.state.params)
    assert validations_of(run) == validations_of(finished.run)


def test_validation_takes_the_same_tasks_every_time(start, monkeypatch):
    seen, evaluate = [], MODULE.evaluate

    def validate(learner, params, batches, inner, **options):
        seen.append(batches(0, options["tasks"]).query_images)
        return evaluate(learner, params, batches, inner, **options)

    monkeypatch.setattr(MODULE, "evaluate", validate)
    search(*start({"training.meta_steps": 2}))
    assert len(seen) == 2
    assert torch.equal(*seen)


def poison(monkeypatch, at, tasks):
    clean = Experiment.training_batch

    def batch(self, step):
        made = clean(self, step)
        if step == at:
            made.support_images[tasks] = torch.nan
        return made

    monkeypatch.setattr(Experiment, "training_batch", batch)


def test_a_batch_that_is_not_finite_ends_the_run_and_names_its_step(start, monkeypatch):
    poison(monkeypatch, at=2, tasks=slice(None))
    experiment, run = start({"training.validations": 4})
    with pytest.raises(NumericsError, match=r"^meta-step 3: no task of this batch stayed finite"):
        search(experiment, run)
    best = run.load("best")
    assert best.facts["step"] in (1, 2)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in best.params.values())
    assert [line["step"] for line in run.records("validate")] == [1, 2]


def test_a_single_task_that_is_not_finite_is_left_out(start, monkeypatch):
    poison(monkeypatch, at=2, tasks=slice(0, 1))
    monkeypatch.setattr(MODULE, "RECORD_SECONDS", 0.0)
    experiment, run = start()
    state = search(experiment, run)
    assert [line["finite_tasks"] for line in run.records("train")] == [2, 2, 1, 2]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.params.values())


def test_learned_rates_are_saved_with_the_checkpoint(start):
    experiment, run = start({"inner.learn_rates": True, "training.meta_steps": 2, "training.validations": 1})
    state = search(experiment, run)
    found = run.load("best")
    assert found.log_rates
    assert same(found.log_rates, state.log_rates)
    assert not same(found.log_rates, experiment.fresh_state().log_rates)


def test_progress_tells_steps_time_and_figures(start):
    watched: list[SearchProgress] = []
    search(*start(), watched.append)
    assert [now.step for now in watched] == [1, 2, 3, 4]
    assert [now.fraction for now in watched] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(0 <= now.accuracy <= 1 and math.isfinite(now.loss) for now in watched)


@pytest.mark.parametrize(
    ("steps", "minutes", "seconds", "step", "fraction"),
    [
        (10, 0.0, 99.0, 5, 0.5),
        (0, 1.0, 30.0, 500, 0.5),
        (10, 1.0, 30.0, 9, 0.9),
        (10, 1.0, 57.0, 1, 0.95),
        (10, 1.0, 99.0, 1, 1.0),
        (10, 0.0, 0.0, 11, 1.0),
    ],
)
def test_steps_or_time_whichever_ends_first(monkeypatch, steps, minutes, seconds, step, fraction):
    monkeypatch.setattr("metadarts.training.clock.time.monotonic", lambda: 1000.0 + seconds)
    clock = Clock(Training(meta_steps=steps, minutes=minutes), started=1000.0)
    assert clock.fraction(step) == pytest.approx(fraction)


def test_a_run_limited_by_time_ends_with_a_validation(start):
    experiment, run = start({"training.meta_steps": 0, "training.minutes": 0.01})
    state = search(experiment, run)
    assert state.step > 0
    assert run.records("validate")[-1]["step"] == state.step


class Replayed:
    """Stands for a CUDA graph: a replay does what was recorded by running it again."""

    def warm(self, run):
        return run()

    def record(self, run):
        return run


def test_a_search_whose_steps_are_recorded_is_the_search(start, monkeypatch):
    """On a GPU steps are recorded; here the state is put where it can be, and the recorder stands in."""
    create = MetaState.create
    monkeypatch.setattr(MetaState, "create", lambda *arguments: create(*arguments, on_device=True))
    monkeypatch.setattr("metadarts.meta.capture.CudaGraphs", Replayed)
    monkeypatch.setattr(MODULE, "RECORD_SECONDS", 0.0)  # every step is noted, whatever the clock says
    read = CapturedStep._read
    replays = []
    monkeypatch.setattr(CapturedStep, "_read", lambda step, what: replays.append(step.state.step) or read(step, what))
    found = []
    for capture in (False, True):
        experiment, run = start({"training.meta_steps": 5, "training.capture": capture})
        found.append((search(experiment, run), run))
        assert replays == ([1, 2, 3, 4] if capture else [])
    (plain, plain_run), (recorded, recorded_run) = found
    assert recorded.step == plain.step == 5
    assert same(recorded.params, plain.params)
    assert same(recorded.memory(), plain.memory())
    assert validations_of(recorded_run) == validations_of(plain_run)
    keys = ("step", "loss", "accuracy", "finite_tasks", "support_losses", "gradient_weights", "gradient_alphas")
    noted = [[[line[key] for key in keys] for line in run.records("train")] for run in (plain_run, recorded_run)]
    assert [line[0] for line in noted[0]] == [1, 2, 3, 4, 5]
    assert noted[0] == noted[1]


def test_a_search_with_recorded_steps_halves_its_parts_when_memory_runs_out(start, monkeypatch):
    create = MetaState.create
    monkeypatch.setattr(MetaState, "create", lambda *arguments: create(*arguments, on_device=True))
    monkeypatch.setattr("metadarts.meta.capture.CudaGraphs", Replayed)
    step = CapturedStep._step_by_step

    def full(captured, batch, progress):
        if captured.micro_batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(captured, batch, progress)

    monkeypatch.setattr(CapturedStep, "_step_by_step", full)
    settings = {"training.meta_steps": 3, "training.tasks": 2, "training.fit_memory": True}
    experiment, run = start(settings)
    assert search(experiment, run).step == 3
    assert [line["micro_batch"] for line in run.records("memory")] == [1]


@pytest.mark.parametrize("capture", [False, True])
def test_an_update_that_broke_off_is_neither_saved_nor_taken_again(start, monkeypatch, capture):
    """Some parameters have moved and others not: with --fit-memory as without, there is nothing to go on with."""
    create, taken = MetaState.create, []
    monkeypatch.setattr(MetaState, "create", lambda *arguments: create(*arguments, on_device=True))
    monkeypatch.setattr("metadarts.meta.capture.CudaGraphs", Replayed)
    step = MetaState._step

    def broken(state, group, *arguments):
        if group.name == "alphas":
            taken.append(state)
            if len(taken) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return step(state, group, *arguments)

    monkeypatch.setattr(MetaState, "_step", broken)
    settings = {"training.meta_steps": 5, "training.tasks": 2, "training.fit_memory": True, "training.capture": capture}
    experiment, run = start(settings)
    with pytest.raises(ResourceError, match="memory ran out"):
        search(experiment, run)
    assert len(taken) == 3
    assert run.load("last").facts["step"] == 1  # written after the first step, and not since
