"""Recording the tasks of a run: each record is its task's own adaptation, and a call that stopped goes on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError, DataError, ResourceError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.derive import derive_genotype
from metadarts.papers import recording
from metadarts.papers.cells import adapt_batch
from metadarts.papers.recording import record_tasks, recorded_episodes, run_of, settings_of, tensors_sha256
from metadarts.predictor.archive import Archive
from metadarts.predictor.archive_check import check_origins, check_records
from metadarts.predictor.rebuild import rebuild
from metadarts.predictor.task_record import ADAPTED, EPISODE
from metadarts.spaces import darts, random_genotype
from metadarts.training import discretised, evaluate_run, with_settings
from metadarts.training.build import held_out
from metadarts.training.checkpoints import Checkpoint
from tests.papers.cases import relaxed, tiny

TASKS = 5


@pytest.fixture(scope="module")
def experiment():
    return tiny(tasks__train_ways=6, inner__alpha_rate=20.0, evaluate__steps=2)


@pytest.fixture(scope="module")
def checkpoint(experiment):
    return Checkpoint(experiment.fresh_state().params, {}, {"step": 0, "sha256": "c" * 64})


@pytest.fixture(scope="module")
def full(experiment, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "a.sqlite"
    with Archive.open(path, write=True) as archive:
        found = record_tasks(experiment, checkpoint, archive, TASKS)
    return path, found


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.sqlite", write=True) as opened:
        yield opened


def test_every_record_is_its_own_tasks_adaptation(experiment, checkpoint, full):
    path, found = full
    with Archive.open(path) as archive:
        records = list(archive)
    assert len(records) == len(found.names) == TASKS
    assert (found.known, found.diverged) == (0, 0)
    for record in records:
        batch = rebuild([record.origin], experiment.source)
        assert (batch.ways, batch.support_images.shape[1], batch.query_images.shape[1]) == (3, 3, 12)
        params, after = adapt_batch(experiment, checkpoint, batch)
        own = {kind: torch.tensor(table) for kind, table in record.alphas.items()}
        for kind, table in own.items():
            torch.testing.assert_close(table, params[f"alphas.{kind}"][0], rtol=1e-5, atol=1e-6)
            assert not torch.equal(table, checkpoint.params[f"alphas.{kind}"])
        assert record.genotype == derive_genotype(own, experiment.network.space).canonical()
        assert record.after == pytest.approx(float(after[0]), abs=1e-6)
        start = experiment.learner.start({n: t[None] for n, t in checkpoint.params.items()}, batch)
        with torch.no_grad():
            assert record.before == pytest.approx(float(experiment.learner.query_loss(start, batch)[1]), abs=1e-6)
        assert (record.role, record.origin.kind, record.run, record.seed) == (ADAPTED, EPISODE, "c" * 64, 0)
        assert record.settings["steps"] == 2
    assert found.after == pytest.approx(sum(record.after for record in records) / TASKS)
    assert found.before == pytest.approx(sum(record.before for record in records) / TASKS)
    assert len({record.before for record in records}) > 1


def test_the_cell_recorded_is_that_of_the_runs_relaxation(experiment, checkpoint, archive, tmp_path):
    """Its settings name the relaxation; without that name the record would be refused, as its cell is not softmax's."""
    own, start = relaxed(tmp_path, inner__alpha_rate=20.0, evaluate__steps=1)
    space, relaxation = own.network.space, own.network.relaxation
    record_tasks(own, start, archive, 3)
    records = list(archive)
    tables = [{kind: torch.tensor(table) for kind, table in record.alphas.items()} for record in records]
    assert [r.genotype for r in records] == [derive_genotype(each, space, relaxation).canonical() for each in tables]
    assert all(record.settings["relaxation"] == {"name": "logistic"} for record in records)
    assert check_records(archive).faults == ()
    other = next(
        r for r, each in zip(records, tables, strict=True) if r.genotype != derive_genotype(each, space).canonical()
    )
    settings = {name: value for name, value in other.settings.items() if name != "relaxation"}
    with pytest.raises(DataError, match="not those of the genotype"):
        archive.add([replace(other, settings=settings)])
    assert "relaxation" not in settings_of(experiment, checkpoint)


def test_training_tasks_have_the_ways_of_the_test(experiment, full):
    with Archive.open(full[0]) as archive:
        origins = [record.origin for record in archive]
    allowed = set(experiment.source.class_numbers("train"))
    for origin in origins:
        assert origin.facts["split"] == "train"
        assert len(origin.facts["classes"]) == 3, "not tasks.train_ways"
        assert set(origin.facts["classes"]) <= allowed
    assert len({origin.sha256 for origin in origins}) == TASKS


def test_test_tasks_are_those_that_evaluate_measures(experiment, checkpoint, archive):
    found = record_tasks(experiment, checkpoint, archive, 4, split="test", seed=3)
    expected = evaluate_run(experiment, checkpoint, "test", 4, seed=3).evaluation.accuracies
    assert found.after == pytest.approx(float(expected.mean()))
    assert sorted(record.after for record in archive) == pytest.approx(sorted(expected.tolist()))
    batch = held_out(experiment, "test", 3).batch(0, 4)
    images = {
        tuple(rebuild([origin], experiment.source).support_images.flatten().tolist()) for origin, _ in archive.tasks()
    }
    assert images == {tuple(own.flatten().tolist()) for own in batch.support_images}


def test_what_was_recorded_verifies(experiment, full):
    with Archive.open(full[0]) as archive:
        assert check_records(archive).faults == ()
        asked = []

        def opened(data):
            asked.append(data)
            return experiment.source

        found = check_origins(archive, opened)
        assert (found.checked, found.faults, found.unchecked) == (TASKS, (), 0)
        assert [(data.source, data.opened, data.size, data.channels) for data in asked] == [("glyphs", "glyphs", 0, 0)]
        other = replace(experiment.source, name="other")
        assert len(check_origins(archive, lambda data: other).faults) == TASKS


def test_a_call_that_stopped_goes_on(experiment, checkpoint, archive, full, monkeypatch):
    real, told = recording.adapt_batch, []

    def failing(experiment, checkpoint, batch):
        if len(archive) == 2:
            raise KeyboardInterrupt
        return real(experiment, checkpoint, batch)

    monkeypatch.setattr(recording, "adapt_batch", failing)
    with pytest.raises(KeyboardInterrupt):
        record_tasks(experiment, checkpoint, archive, TASKS)
    assert len(archive) == 2
    monkeypatch.setattr(recording, "adapt_batch", real)
    found = record_tasks(
        experiment, checkpoint, archive, TASKS, progress=lambda now: told.append((now.done, now.value))
    )
    assert (len(found.names), found.known, len(archive)) == (TASKS - 2, 2, TASKS)
    assert [done for done, _ in told] == [4, 5]
    assert told[-1][1] == found.after
    with Archive.open(full[0]) as other:
        assert archive.sha256 == other.sha256, "as if it had never stopped"
    again = record_tasks(experiment, checkpoint, archive, TASKS)
    assert (again.names, again.known, len(archive)) == ((), TASKS, TASKS)
    assert math.isnan(again.after)


def test_other_settings_and_another_checkpoint_are_other_records(experiment, checkpoint, archive):
    for steps in (1, 2):
        own = replace(experiment, config=with_settings(experiment.config, {"evaluate.steps": steps}))
        assert len(record_tasks(own, checkpoint, archive, 2).names) == 2
    other = replace(checkpoint, facts={"step": 0, "sha256": "d" * 64})
    assert len(record_tasks(experiment, other, archive, 2).names) == 2
    assert [len(found) for _, found in archive.tasks()] == [3, 3]


def test_zero_steps_leave_alphas_and_accuracy_as_they_were(experiment, checkpoint, archive):
    still = replace(experiment, config=with_settings(experiment.config, {"evaluate.steps": 0}))
    record_tasks(still, checkpoint, archive, 2)
    for record in archive:
        assert record.before == record.after
        assert all(
            torch.equal(torch.tensor(t), checkpoint.params[f"alphas.{kind}"]) for kind, t in record.alphas.items()
        )


def test_a_task_that_left_the_finite_numbers_is_counted_and_not_recorded(experiment, checkpoint, archive, monkeypatch):
    real = recording.adapt_batch

    def poisoned(experiment, checkpoint, batch):
        params, accuracies = real(experiment, checkpoint, batch)
        if experiment.config.evaluate.steps:
            params = {name: t.clone().index_fill_(0, torch.tensor(0), torch.nan) for name, t in params.items()}
        return params, accuracies

    monkeypatch.setattr(recording, "adapt_batch", poisoned)
    found = record_tasks(experiment, checkpoint, archive, 4)
    assert (len(found.names), found.diverged, len(archive)) == (2, 2, 2)
    assert check_records(archive).faults == ()


def test_memory_that_runs_out_halves_the_pass_where_it_may(experiment, checkpoint, archive, monkeypatch):
    real, sizes = recording.adapt_batch, []

    def narrow(experiment, checkpoint, batch):
        sizes.append(batch.tasks)
        if batch.tasks > 1:
            raise MemoryError
        return real(experiment, checkpoint, batch)

    monkeypatch.setattr(recording, "adapt_batch", narrow)
    with pytest.raises(ResourceError, match="memory ran out with 2 tasks at once"):
        record_tasks(experiment, checkpoint, archive, 2)
    fitting = replace(experiment, config=with_settings(experiment.config, {"training.fit_memory": True}))
    assert len(record_tasks(fitting, checkpoint, archive, 2).names) == 2
    assert set(sizes) == {1, 2}


def test_learned_rates_are_told_and_a_checkpoint_without_a_file_has_a_name(experiment, checkpoint):
    learned = replace(checkpoint, log_rates={"rates.weights": torch.tensor(0.1).log()})
    assert settings_of(experiment, learned)["learned_rates"] is True
    assert settings_of(experiment, checkpoint)["learned_rates"] is False
    assert run_of(checkpoint) == "c" * 64
    names = [run_of(replace(each, facts={"step": 0})) for each in (checkpoint, learned)]
    assert len(set(names)) == 2
    moved = {name: t + 1 if is_alpha(name) else t for name, t in checkpoint.params.items()}
    assert names[0] == tensors_sha256(checkpoint.params, None) != tensors_sha256(moved, None)


def test_what_cannot_be_recorded_is_refused(experiment, checkpoint, archive):
    cell = random_genotype(darts(1), Key(("cell",)))
    with pytest.raises(ConfigError, match="expected the run of a supernet"):
        record_tasks(*discretised(experiment, checkpoint, cell), archive, 2)
    with pytest.raises(ConfigError, match="keeps no rows to build a task again from"):
        recorded_episodes(replace(experiment, source=object()), "train")
    with pytest.raises(DataError, match="unknown split 'tset'"):
        record_tasks(experiment, checkpoint, archive, 2, split="tset")
    with pytest.raises(DataError, match="tasks must be at least 1"):
        record_tasks(experiment, checkpoint, archive, 0)
    assert len(archive) == 0
