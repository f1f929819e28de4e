"""``metadarts metamodel`` end to end: train, predict, evaluate; and ``adapt --start predicted``."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import typer

from metadarts.cli.main import app
from metadarts.core.rng import Key
from metadarts.fewshot import open_start
from metadarts.predictor import Archive, open_model
from metadarts.spaces import Genotype, darts, random_genotype
from metadarts.training import RunFolder
from tests.fewshot import cases
from tests.predictor.tabular import made_tables

COUNTS = {"ant": 4, "bee": 6}


@pytest.fixture(scope="module")
def archive(installed, run, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "a.sqlite"
    answer = installed("archive", "add", path, "--run", run, "--tasks", 6, "--device", "cpu", "--threads", 1)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture(scope="module")
def trained(installed, archive, run, data, tmp_path_factory):
    """A meta-model that the installed program made, and what it said."""
    out = tmp_path_factory.mktemp("models") / "m.safetensors"
    words = ["--out", out, "--start", run, "--epochs", 2, "--data-root", data, "--threads", 1]
    return out, installed("metamodel", "train", archive, *words)


def test_every_verb_explains_itself(metadarts):
    group = typer.main.get_command(app).commands["metamodel"]
    assert set(group.commands) == {"train", "predict", "evaluate"}
    for name, command in group.commands.items():
        answer = metadarts("metamodel", name, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert command.help
        assert all(parameter.help for parameter in command.params)


def test_train_says_what_it_learnt_from(trained, archive, run):
    path, answer = trained
    assert answer.code == 0, answer.err
    assert "look at 6 tasks" in answer.out
    assert "on its 6 training tasks: " in answer.out
    model, facts = open_model(path)
    checkpoint = RunFolder.open(run).load("best")
    assert (facts["run"], facts["split"], facts["settings"]["steps"]) == (checkpoint.facts["sha256"], "train", 2)
    assert facts["experiences"] == model.fitted == 6
    stem = checkpoint.params["stem.conv1"]
    assert bool((model.extractor.params["stem.conv1"] == stem).all()), "images are seen by the run's stem"


def test_the_same_archive_gives_the_same_file(metadarts, trained, archive, run, data, tmp_path):
    path, _ = trained
    out = tmp_path / "again.safetensors"
    words = ["--out", out, "--start", run, "--epochs", 2, "--data-root", data, "--threads", 1]
    assert metadarts("metamodel", "train", archive, *words).code == 0
    assert out.read_bytes() == path.read_bytes()


def test_a_runs_stem_needs_neither_its_configuration_nor_its_data(metadarts, trained, archive, run, data, tmp_path):
    moved, out = tmp_path / "run", tmp_path / "m.safetensors"
    shutil.copytree(run, moved)
    (moved / "config.yaml").write_text("plugins: {unknown: 00}\n", encoding="utf-8")
    words = ["--out", out, "--start", moved, "--epochs", 2, "--data-root", data, "--threads", 1]
    answer = metadarts("metamodel", "train", archive, *words)
    assert answer.code == 0, answer.err
    assert open_model(out)[0].extractor.params.keys() == open_model(trained[0])[0].extractor.params.keys()


def test_tune_tells_what_it_tried(metadarts, monkeypatch, archive, run, data, tmp_path):
    from metadarts.predictor import tuning

    monkeypatch.setattr(tuning, "GRID", ({"width": 4, "rate": 1e-3}, {"width": 8, "rate": 1e-2}))
    out = tmp_path / "m.safetensors"
    words = ["--out", out, "--start", run, "--epochs", 2, "--data-root", data, "--tune"]
    answer = metadarts("metamodel", "train", archive, *words)
    assert answer.code == 0, answer.err
    assert answer.out.count("held-out loss") == 2
    model, facts = open_model(out)
    assert len(facts["tuned"]) == 2
    assert facts["tuned"][0]["held_out_loss"] <= facts["tuned"][1]["held_out_loss"]
    assert model.spec.width == facts["tuned"][0]["width"]


def test_evaluate_writes_figures_and_page(metadarts, trained, run, tmp_path):
    path, _ = trained
    out = tmp_path / "figures.json"
    answer = metadarts(
        "metamodel", "evaluate", path, "--run", run, "--tasks", 4, "--json", out, "--device", "cpu", "--threads", 1
    )
    assert answer.code == 0, answer.err
    told = json.loads(out.read_text())
    assert told["format"] == "metadarts.prediction"
    assert told["facts"]["tasks"] == len(told["per_task"]["accuracy 0 meta"]) == 4
    assert told["metamodel"]["experiences"] == 6
    assert out.with_suffix(".md").read_text() in answer.out
    assert "# Is a task's architecture predictable?" in answer.out


def test_evaluate_measures_a_table_and_draws_it(metadarts, monkeypatch, tmp_path):
    from metadarts.predictor import tabular

    whole = tabular.evaluate_table
    monkeypatch.setattr(
        tabular, "evaluate_table", lambda path, seeds, progress: whole(path, seeds, made_tables.TINY, progress)
    )
    table = made_tables.write(tmp_path / "table.npz", made_tables.transnas_arrays())
    out = tmp_path / "figures.json"
    answer = metadarts("metamodel", "evaluate", "--table", table, "--seeds", 2, "--json", out, "--threads", 1)
    assert answer.code == 0, answer.err
    assert json.loads(out.read_text())["kind"] == "transnas"
    assert out.with_suffix(".md").read_text() in answer.out
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert drawn == ["figures-macro.svg", "figures-micro.svg"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return cases.save_pictures(tmp_path_factory.mktemp("images") / "zoo", COUNTS)


def test_predict_prints_a_cell_of_the_space(metadarts, trained, zoo, tmp_path):
    path, _ = trained
    out = tmp_path / "said.json"
    answer = metadarts("metamodel", "predict", path, "--images", zoo, "--json", out)
    assert answer.code == 0, answer.err
    line = next(line for line in answer.out.splitlines() if line.startswith("Genotype("))
    Genotype.parse(line).validate(darts(2))
    told = json.loads(out.read_text())
    assert np.array(told["alphas"]["normal"]).shape == darts(2).alpha_shape
    assert Genotype.from_json(json.dumps(told["genotype"]), darts(2)) == Genotype.parse(line)


def test_adapt_begins_at_the_predicted_alphas(metadarts, trained, zoo, tmp_path):
    """Zero steps leave the alphas where they began: at what the model says of the very support set."""
    import torch

    from metadarts.fewshot.folder import load_task

    path, _ = trained
    start = cases.save_start(cases.make_start(1), tmp_path)
    words = ["--images", zoo, "--steps", 0, "--threads", 1, "--out"]
    answer = metadarts("adapt", start, *words, tmp_path / "task", "--start", "predicted", "--metamodel", path)
    assert answer.code == 0, answer.err
    usual = metadarts("adapt", start, *words, tmp_path / "usual")
    assert usual.code == 0, usual.err
    task, other = (load_task(tmp_path / name) for name in ("task", "usual"))
    model, _ = open_model(path)
    batch = task.support.batch(torch.arange(len(task.support.labels)))
    found = task.solution("supernet").params["alphas.normal"].view(-1, *darts(2).alpha_shape)[0]
    torch.testing.assert_close(found, model.predict(batch).alphas["normal"][0])
    before = open_start(start).params["alphas.normal"]
    torch.testing.assert_close(other.solution("supernet").params["alphas.normal"].view(-1, *before.shape)[0], before)


def test_a_model_is_not_measured_on_tasks_of_the_split_or_run_that_it_is_not_for(
    metadarts, refused, trained, run, other_run, data, tmp_path
):
    """Tasks of "val" that were recorded are those that evaluate measures on."""
    path, out = tmp_path / "a.sqlite", tmp_path / "m.safetensors"
    words = ["--device", "cpu", "--threads", 1]
    assert metadarts("archive", "add", path, "--run", run, "--tasks", 2, "--split", "val", *words).code == 0
    learnt = ["--start", run, "--epochs", 1, "--data-root", data, "--split", "val", "--out", out]
    assert metadarts("metamodel", "train", path, *learnt).code == 0
    assert "fitted on tasks of split 'val'" in refused("metamodel", "evaluate", out, "--run", run, "--split", "val")
    assert "another checkpoint" in refused("metamodel", "evaluate", trained[0], "--run", other_run)
    # Two supernets' alphas cannot be held against each other: one archive with both asks which.
    assert metadarts("archive", "add", path, "--run", other_run, "--tasks", 2, "--split", "val", *words).code == 0
    fresh = [*learnt[:-1], tmp_path / "n.safetensors"]
    assert "2 checkpoints" in refused("metamodel", "train", path, *fresh)
    with Archive.open(path) as opened:
        first = next(iter(opened)).run
    assert metadarts("metamodel", "train", path, *fresh, "--run", first[:8]).code == 0


@pytest.fixture(scope="module")
def other_run(installed, search_words, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "other"
    answer = installed(*search_words(out, "--seed", "1"))
    assert answer.code == 0, answer.err
    return out


def test_candidates_are_ranked(metadarts, trained, zoo, tmp_path):
    path, _ = trained
    said = metadarts("metamodel", "predict", path, "--images", zoo)
    line = next(line for line in said.out.splitlines() if line.startswith("Genotype("))
    best, worse = tmp_path / "best.txt", tmp_path / "worse.txt"
    best.write_text(line)
    worse.write_text(str(random_genotype(darts(2), Key.from_seed(0))))
    answer = metadarts("metamodel", "predict", path, "--images", zoo, "--candidate", worse, "--candidate", best)
    assert answer.code == 0, answer.err
    ranked = [line for line in answer.out.splitlines() if " nats  " in line]
    assert [line.endswith(str(name)) for line, name in zip(ranked, (best, worse), strict=True)] == [True, True]


def test_what_does_not_fit_is_refused(refused, trained, archive, run, data, zoo, tmp_path):
    path, _ = trained
    start = cases.save_start(cases.make_start(1), tmp_path)
    task = ["--images", zoo, "--out", tmp_path / "task"]
    assert "need a meta-model" in refused("adapt", start, *task, "--start", "predicted")
    assert "is for --start predicted" in refused("adapt", start, *task, "--metamodel", path)
    assert "did you mean 'predicted'" in refused("adapt", start, *task, "--start", "predictd", "--metamodel", path)
    assert "alone" in refused("metamodel", "evaluate", path)
    assert "alone" in refused("metamodel", "evaluate", path, "--run", run, "--table", data)
    assert "expected val or test" in refused("metamodel", "evaluate", path, "--run", run, "--split", "train")
    assert "ending in .safetensors" in refused("metamodel", "train", archive, "--out", tmp_path / "m.json")
    assert "exists" in refused("metamodel", "train", archive, "--out", path)
    out = tmp_path / "m.safetensors"
    assert "no adapted task of split 'val'" in refused("metamodel", "train", archive, "--split", "val", "--out", out)
    assert "no adapted task" in refused("metamodel", "train", archive, "--run", "0" * 12, "--out", out)
    assert "there is no folder" in refused("metamodel", "train", archive, "--out", tmp_path / "none" / "m.safetensors")
    assert "ending in .json" in refused("metamodel", "evaluate", path, "--run", run, "--json", tmp_path / "page.md")
    colour = cases.save_start(cases.make_start(3), tmp_path)
    assert "channels" in refused("adapt", colour, *task, "--start", "predicted", "--metamodel", path)
