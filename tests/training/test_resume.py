"""Going on with a search: from any point, after any kind of end, to the same last bit."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metadarts.core.errors import NumericsError, RunError
from metadarts.meta import MetaState
from metadarts.store.files import append_line
from metadarts.training import RunFolder, search
from metadarts.training.search import SearchStopped
from tests.training.stopping import Crash, crash_at, same_state

MODULE = importlib.import_module("metadarts.training.search")


@pytest.fixture
def folder(tmp_path):
    """(experiment) -> a fresh run folder for it."""
    return lambda experiment, name="run": RunFolder.create(tmp_path / name, experiment.config, {})


def validations_of(run):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in run.records("validate")]


def stop_and_crash(experiment, run, step):
    """Stop in good order after two steps, go on, and crash at ``step``."""
    with pytest.raises(SearchStopped):
        search(experiment, run, stop=lambda: len(run.records("train")) == 2)
    with pytest.raises(Crash):
        search(experiment, run, crash_at(step))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("step", "save_seconds"), [(1, 60.0), (2, 60.0), (3, 60.0), (3, 0.0), (4, 60.0)])
def test_a_crash_at_any_step_changes_no_bit(finished, make, folder, step, save_seconds):
    experiment = make({"training.save_seconds": save_seconds})
    run = folder(experiment)
    with pytest.raises(Crash):
        search(experiment, run, crash_at(step))
    assert not run.is_finished
    state = search(experiment, RunFolder.open(run.path))
    assert same_state(state, finished.state)
    assert validations_of(run) == validations_of(finished.run)
    assert run.load("best").facts == finished.run.load("best").facts
    assert run.is_finished


@pytest.mark.parametrize("name", ["amortised", "per-domain"])
def test_alphas_of_tasks_go_on_bit_for_bit(make, folder, source, name):
    """Also what was taken from training tasks before the first step, and which domain a task has."""
    classes = tuple(replace(entry, domain="ab"[number % 2]) for number, entry in enumerate(source.classes))
    settings = {"alphas.name": name, "tasks.ways": 2, "inner.alpha_rate": 0.0}
    settings |= {"alphas.width": 4, "alphas.scales": 2} if name == "amortised" else {}
    experiment = make(settings, replace(source, classes=classes))
    whole, stopped = folder(experiment, "whole"), folder(experiment, "stopped")
    expected = search(experiment, whole)
    with pytest.raises(Crash):
        search(experiment, stopped, crash_at(3))
    assert same_state(search(experiment, RunFolder.open(stopped.path)), expected)
    fresh = experiment.fresh_state().params
    moved = [key for key in fresh if not torch.equal(fresh[key], expected.params[key])]
    assert any(key.startswith("start.alphas.") for key in moved)
    assert not any(key.startswith("start.fixed.") for key in moved)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_cell_is_compared_with_that_of_the_process_before(make, folder, damaged):
    """A damaged line costs the comparison, not the search."""
    experiment = make()
    run, told = folder(experiment), []
    with pytest.raises(SearchStopped):
        search(experiment, run, told.append, stop=lambda: len(told) == 1)
    metrics = run.path / "metrics.jsonl"
    if damaged:
        metrics.write_bytes(metrics.read_bytes().replace(b'{"', b'["', 1))
    search(experiment, run)
    if damaged:
        metrics.write_bytes(metrics.read_bytes().replace(b'["', b'{"', 1))
    compared = ["stability" in record for record in run.records("alphas")]
    assert compared[:2] == [False, not damaged]
    assert all(compared[2:])


def test_learned_rates_clipping_and_the_running_figures_go_on_too(make, folder):
    """A norm to clip is a sum over all tensors: it must run over them in the order of the first process."""
    settings = {"inner.learn_rates": True, "inner.granularity": "tensor-step", "outer.final": 0.1, "outer.clip": 0.02}
    experiment = make(settings | {"training.meta_steps": 8})
    told, whole = [], []
    expected = search(experiment, folder(experiment, "whole"), whole.append)
    run = folder(experiment)
    for step in (2, 5):
        with pytest.raises(SearchStopped) as stopped:
            search(experiment, run, told.append, stop=lambda step=step: len(told) >= step)
        assert stopped.value.step == step
    assert same_state(search(experiment, run, told.append), expected)
    assert [(now.step, now.loss, now.accuracy, now.best) for now in told] == [
        (now.step, now.loss, now.accuracy, now.best) for now in whole
    ]


def test_alphas_that_follow_a_rule_of_their_own_go_on_too(make, folder):
    rules = {"inner.alpha_rule": "exponentiated", "inner.rule": "momentum", "outer.alpha_rule": "exponentiated"}
    experiment = make(rules | {"inner.alpha_rate": 1.0, "outer.alpha_rate": 0.1})
    expected, run = search(experiment, folder(experiment, "whole")), folder(experiment)
    with pytest.raises(Crash):
        search(experiment, run, crash_at(3))
    assert same_state(search(experiment, RunFolder.open(run.path)), expected)


PLUGINS = Path(__file__).parents[1] / "extension" / "plugins"
RELAXATIONS = {
    "constant": ({}, ()),
    "scheduled": ({"relaxation.name": "cooling", "relaxation.end": 0.05}, (str(PLUGINS / "cooling.py"),)),
}
"""Settings and plug-ins; the scheduled one computes with how far the run is."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("version", ["today", "0.1"])
def test_a_stop_within_a_validation_keeps_the_state_before_it(make, folder, monkeypatch, relaxation, version):
    """The validation comes before the next step: it measures at the progress of the step before the stop."""
    settings, plugins = RELAXATIONS[relaxation]
    experiment, asked = make({"evaluate.batch": 1, **settings}, plugins=plugins), []
    whole, run = folder(experiment, "whole"), folder(experiment)
    expected = search(experiment, whole)

    def stop():
        return len(asked) >= 3

    monkeypatch.setattr(MODULE, "evaluate", _counting(MODULE.evaluate, asked))
    with pytest.raises(SearchStopped):
        search(experiment, run, stop=stop)
    assert len(asked) == 3, "the validation was not run to its end"
    assert run.records("validate") == []
    monkeypatch.undo()
    if version == "0.1":
        without_progress(run.path / "checkpoints" / "last.json")
    assert same_state(search(experiment, run), expected)
    assert validations_of(run) == validations_of(whole)
    assert run.load("best").facts == whole.load("best").facts
    assert 0.0 < run.load("best").facts["progress"] < 1.0


def without_progress(path):
    facts = json.loads(path.read_text())
    del facts["progress"]
    path.write_text(json.dumps(facts))


def _counting(evaluate, asked):
    def counted(*args, progress, **options):
        def watch(*figures):
            asked.append(figures)
            progress(*figures)

        return evaluate(*args, progress=watch, **options)

    return counted


def poison(monkeypatch, at):
    experiment = importlib.import_module("metadarts.training.build").Experiment
    clean = experiment.training_batch

    def batch(self, step):
        made = clean(self, step)
        if step == at:
            made.support_images[:] = torch.nan
        return made

    monkeypatch.setattr(experiment, "training_batch", batch)


def test_nan_stops_names_the_step_and_keeps_what_was_good(make, folder, monkeypatch, finished):
    experiment = make()
    run = folder(experiment)
    poison(monkeypatch, at=2)
    with pytest.raises(
        NumericsError, match=r"^meta-step 3: no task of this batch stayed finite .*\(step 2 is kept in .* new run"
    ):
        search(experiment, run)
    last = run.load("last")
    assert last.facts["step"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (last.params | last.memory).values())
    monkeypatch.undo()
    assert same_state(search(experiment, run), finished.state), "with the data mended it goes on"


def test_an_update_that_leaves_the_numbers_is_not_kept(make, folder, monkeypatch):
    experiment = make({"training.validations": 4})
    run = folder(experiment)
    clean = MetaState.apply

    def apply(self, gradients, progress):
        norms = clean(self, gradients, progress)
        if self.step == 3:
            self.params["stem.conv1"].fill_(torch.inf)
        return norms

    monkeypatch.setattr(MetaState, "apply", apply)
    with pytest.raises(NumericsError, match=r"^meta-step 3: the outer update left the finite numbers"):
        search(experiment, run)
    last = run.load("last")
    assert last.facts["step"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in last.params.values())


def test_records_after_the_checkpoint_are_dropped_and_told_again(make, folder, monkeypatch):
    monkeypatch.setattr(MODULE, "RECORD_SECONDS", 0.0)
    experiment = make({"training.validations": 1})
    run = folder(experiment)
    stop_and_crash(experiment, run, 3)
    assert [line["step"] for line in run.records("train")] == [1, 2, 3]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # as a kill leaves it
    assert [line["step"] for line in run.records("train")] == [1, 2, 3]
    search(experiment, run)
    assert [line["step"] for line in run.records("train")] == [1, 2, 3, 4]
    assert [line["step"] for line in run.records("resume")] == [2, 2], "its first act is to save"


def test_tensorboard_shows_each_step_once(make, folder, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(MODULE, "RECORD_SECONDS", 0.0)
    experiment = make({"training.validations": 1})
    run = folder(experiment)
    stop_and_crash(experiment, run, 4)
    search(experiment, run)
    events = EventAccumulator(str(run.path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]


def test_a_damaged_line_that_is_not_the_last_is_not_passed_over(finished, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train"}\nnothing\n{"kind": "train"}\n')
    with pytest.raises(RunError, match=r"is damaged: line 2: expected JSON, .*expected one JSON record per line"):
        RunFolder.open(tmp_path).records("train")


def test_a_crash_between_the_last_save_and_the_end_repeats_no_validation(make, folder, finished, monkeypatch):
    experiment = make()
    run = folder(experiment)

    def crash(name, value):
        raise Crash

    monkeypatch.setattr(run, "write_json", crash)
    with pytest.raises(Crash):
        search(experiment, run)
    assert not run.is_finished
    state = search(experiment, RunFolder.open(run.path))
    assert same_state(state, finished.state)
    assert validations_of(run) == validations_of(finished.run)
    assert run.is_finished


def test_memory_of_another_network_is_refused(finished):
    state = finished.state
    memory = state.memory()
    assert {name.rpartition("/")[2] for name in memory} == {"step", "exp_avg", "exp_avg_sq"}
    name = next(name for name in memory if name.endswith("exp_avg"))
    less = {key: tensor for key, tensor in memory.items() if key != name}
    for wrong in (memory | {"other/exp_avg": memory[name]}, memory | {name: memory[name].new_zeros(3, 3)}, less, {}):
        with pytest.raises(RunError, match=r"the optimiser's memory .* fits no"):
            MetaState.restore(state.params, state.log_rates, wrong, 4, state.outer)


def test_two_searches_never_share_a_folder(make, folder):
    experiment = make()
    run = folder(experiment)
    with run.lock(), pytest.raises(RunError, match="another search is running in it"):
        search(experiment, run)
    assert search(experiment, run).step == 4


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    import resource

    path = tmp_path / "lines"
    append_line(path, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(RunError, match=r"cannot write .*File too large"):
            append_line(path, "a second line that goes beyond the limit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "first\n"
