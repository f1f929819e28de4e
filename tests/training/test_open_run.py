"""`open_run`: what a verb is given of a run on disk, and what is read only when it is asked for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, DataError, RunError
from metadarts.training import RunFolder, evaluate_run, open_run
from metadarts.training.config import dump_config


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to take things from."""
    return RunFolder(shutil.copytree(finished.run.path, tmp_path / "run"))


@pytest.fixture
def moved(source, tmp_path):
    """The run's data in a file, which moved since."""
    label = np.empty(len(source.images), dtype=np.int64)
    for number, entry in enumerate(source.classes):
        label[entry.rows] = number
    np.savez(tmp_path / "moved.npz", images=source.images[:, 0], label=label)
    return tmp_path / "moved.npz"


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_as_it_was(finished, source):
    opened = open_run(finished.run.path)
    assert (opened.folder.path, opened.config, opened.device) == (finished.run.path, finished.run.config(), "cpu")
    assert equal(opened.checkpoint.params, finished.run.load("best").params)
    assert opened.checkpoint is opened.checkpoint, "read once"
    experiment = opened.experiment(source)
    assert (experiment.config, experiment.learner) == (finished.experiment.config, finished.experiment.learner)
    own, same = (
        evaluate_run(of, opened.checkpoint, "test", 4).evaluation.accuracies for of in (experiment, finished.experiment)
    )
    assert torch.equal(own, same)


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_checkpoint_that_is_named(finished, name):
    found = open_run(finished.run.path, checkpoint=name).checkpoint
    assert found.facts == finished.run.load(name).facts
    assert bool(found.memory) == (name == "last")


def test_settings_stand_above_the_runs_and_none_leaves_them(finished, source):
    opened = open_run(finished.run.path, settings={"evaluate.steps": 1, "model.bn": "support", "tasks.ways": None})
    ours, theirs = opened.config, finished.run.config()
    assert (ours.evaluate.steps, ours.model.bn, ours.tasks.ways) == (1, "support", theirs.tasks.ways)
    assert (ours.training, ours.inner) == (theirs.training, theirs.inner)
    assert opened.experiment(source).learner.bn == "support"
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        open_run(finished.run.path, settings={"evaluate.step": 1})


def test_what_is_not_asked_for_is_not_read(run):
    shutil.rmtree(run.path / "checkpoints")
    opened = open_run(run.path, settings={"model.bn": "none", "tasks.file": "/nowhere"})
    with pytest.raises(RunError, match="no readable checkpoint 'best'"):
        _ = opened.checkpoint
    with pytest.raises(ConfigError, match=r"model\.bn 'none' is unknown"):
        opened.experiment()


def test_data_are_read_from_where_they_lie_now(run, source, moved):
    (run.path / "data.json").unlink()  # the file has other splits than the fixture
    opened = open_run(run.path, data=str(moved))
    assert (opened.config.tasks.source, opened.config.tasks.file) == ("npz", str(moved))
    found = opened.experiment().source
    assert np.array_equal(found.images, source.images)
    with pytest.raises(ConfigError, match="no such file, and not the name of a source"):
        open_run(run.path, data="/nowhere")
    with pytest.raises(ConfigError, match="is a path already: leave out --data-root"):
        open_run(run.path, data=str(moved), data_root=moved.parent)
    with pytest.raises(ConfigError, match="there is nothing at that place"):
        open_run(run.path, data="omniglot", data_root=moved.parent / "gone")


def test_a_root_alone_is_that_of_the_runs_own_source(run, moved):
    assert open_run(run.path, data_root=moved.parent).config.tasks.file == str(moved.parent)
    config = open_run(run.path, data=str(moved)).config
    run.write("config.yaml", dump_config(config))
    with pytest.raises(ConfigError, match="reads a path, not a name"):
        open_run(run.path, data_root=moved.parent)


def test_a_search_that_has_not_ended_is_opened_unless_it_must_have(run):
    assert open_run(run.path, finished=True).folder.path == run.path
    (run.path / "finished.json").unlink()
    assert open_run(run.path).checkpoint.facts["step"] > 0
    with pytest.raises(RunError, match="its search has not ended"):
        open_run(run.path, finished=True)


def test_a_checkpoint_of_another_network_is_refused(finished, source):
    opened = open_run(finished.run.path, settings={"model.channels": 8})
    with pytest.raises(ConfigError, match="checkpoint of another space or network"):
        opened.experiment(source)


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        open_run(tmp_path)


def test_data_that_are_none_are_named(run, tmp_path):
    (tmp_path / "broken.npz").write_text("text")
    with pytest.raises(DataError, match=r"broken\.npz"):
        open_run(run.path, data=str(tmp_path / "broken.npz")).experiment()
