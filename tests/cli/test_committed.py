"""A run that committed, on the command line: every verb has the one cell that it was left with."""

from __future__ import annotations

import json
import shutil
from html import unescape

import numpy as np
import pytest

from metadarts.core.rng import Key

COMMIT = (
    "--set", "training.meta_steps=4", "--set", "space.inputs_by=pairs", "--set", "space.none=false", "--set",
    "relaxation.name=annealed", "--set", "relaxation.begin=0.0", "--set", "relaxation.finish=0.4", "--set",
    "outer.alpha_warmup=0.1", "--set", "commit.drop_below=0.05", "--set", "commit.cell=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(installed, search_words, tmp_path_factory):
    out = tmp_path_factory.mktemp("committed") / "run"
    answer = installed(*search_words(out), *COMMIT)
    assert answer.code == 0, answer.err
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    draw = Key(("tests", "cli", "committed")).numpy()
    patterns = draw.integers(0, 160, (3, 1, 28, 28)) + draw.integers(0, 96, (3, 6, 28, 28))
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=patterns.reshape(-1, 28, 28).astype(np.uint8), label=np.repeat([0, 1, 2], 6))
    return path


@pytest.fixture
def succeed(metadarts):
    """(words) -> what the program says where it succeeds."""

    def call(*words):
        answer = metadarts(*words)
        assert answer.code == 0, answer
        return answer.out

    return call


def genotype_of(run):
    return json.loads((run / "checkpoints" / "best.json").read_text())["genotype"]


def test_derive_reads_off_the_cell(run, succeed):
    said = succeed("derive", run)
    assert said.splitlines()[0] == genotype_of(run)
    assert (run / "alphas.png").is_file()


def test_evaluate_measures_the_cell(run, succeed):
    said = succeed("evaluate", run, "--split", "val", "--tasks", 4, "--device", "cpu")
    assert "val:" in said
    (found,) = [json.loads(path.read_text()) for path in run.glob("evaluation-val*.json")]
    assert found["genotype"] == genotype_of(run)


def test_evaluate_measures_the_supernet_before_the_cut_too(run, succeed, tmp_path):
    succeed("evaluate", run, "--checkpoint", "supernet", "--split", "val", "--tasks", 4, "--device", "cpu",
            "--json", tmp_path / "found.json")  # fmt: skip
    assert json.loads((tmp_path / "found.json").read_text())["genotype"] is None


def test_a_search_goes_on_with_its_cell(run, succeed, tmp_path):
    """Killed between the last step and the end."""
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "finished.json").unlink()
    said = succeed("search", "--resume", copy, "--device", "cpu")
    assert " 0 alphas" in said
    assert (copy / "finished.json").is_file()
    assert genotype_of(copy) == genotype_of(run)


def test_evaluate_cuts_no_cell_out_of_a_cell(run, refused, tmp_path):
    (tmp_path / "genotype.txt").write_text(genotype_of(run))
    said = refused("evaluate", run, "--genotype", tmp_path / "genotype.txt", "--split", "val", "--device", "cpu")
    assert "the checkpoint 'best' is of one cell" in said


def test_more_steps_of_a_cell_are_refused(run, images, refused, tmp_path):
    said = refused("adapt", run, "--images", images, "--out", tmp_path / "a", "--finish", "inherited",
                   "--more-steps", 3)  # fmt: skip
    assert "its finish inherited takes --steps alone" in said


def test_diagnose_refuses_its_supernet_too_whose_alphas_choose_inputs(run, refused):
    said = refused("diagnose", run, "--checkpoint", "supernet", "--split", "val", "--tasks", 2, "--device", "cpu")
    assert "diagnose the run of a space whose inputs_by is 'rule'" in said


def test_an_archive_of_it_is_refused_before_it_is_made(run, refused, tmp_path):
    assert "stays a supernet" in refused(
        "archive", "add", tmp_path / "t.sqlite", "--run", run, "--tasks", 2, "--device", "cpu"
    )
    assert not (tmp_path / "t.sqlite").exists()


def test_a_checkpoint_that_no_run_has_is_refused(run, refused):
    for verb in ("evaluate", "derive", "diagnose"):
        assert "--checkpoint 'first': expected best, last, supernet" in refused(verb, run, "--checkpoint", "first")


def test_options_of_a_rule_are_refused_where_there_is_nothing_to_choose(run, refused):
    assert "has committed to its cell" in refused("derive", run, "--set", "cells=3")


def test_adapt_predict_and_export_have_the_cell(run, images, succeed, tmp_path):
    task = tmp_path / "task"
    said = succeed("adapt", run, "--images", images, "--out", task, "--steps", 2, "--finish", "all")
    assert "cell" in said
    assert "retrained" in said
    assert "supernet" not in said
    solutions = json.loads((task / "task.json").read_text())["solutions"]
    assert list(solutions) == ["cell", "retrained"]
    assert {facts["genotype"] for facts in solutions.values()} == {genotype_of(run)}
    succeed("export", task, "--format", "python", "--out", tmp_path / "model.py")
    again = succeed(
        "adapt", run, "--images", images, "--out", tmp_path / "again", "--steps", 1, "--finish", "inherited"
    )
    assert "predict and export" not in again


def test_what_needs_alphas_refuses_it(run, images, refused, tmp_path):
    said = refused("adapt", run, "--images", images, "--out", tmp_path / "a", "--archive", tmp_path / "tasks.sqlite")
    assert "is one cell, give a whole supernet" in said
    assert not (tmp_path / "a").exists()
    assert "expected the run of a supernet" in refused("diagnose", run, "--tasks", 2, "--device", "cpu")


def test_report_shows_the_cell(run, succeed):
    succeed("report", run)
    page = unescape((run / "report.html").read_text())
    assert genotype_of(run) in page
    assert "No cell can be derived" not in page
