"""The alpha ablation: five uses of one checkpoint on the same tasks, and rows that agree where two uses are one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import alpha_ablation
from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of, is_alpha
from metadarts.derive import derive_genotype
from metadarts.spaces import Genotype
from metadarts.training import Config, RunFolder, build, evaluate_run, with_settings
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import evaluation_inner

TASKS, RANDOM = 4, 2
SETTINGS = {
    "tasks.source": "omniglot",
    "tasks.ways": 3,
    "macro.channels": 4,
    "space.nodes": 2,
    "macro.stem": (4, 6),
    "model.head": "prototype",
    "inner.alpha_rate": 5.0,
    "training.meta_steps": 1,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
    "evaluate.batch": 3,
}


@pytest.fixture(scope="module")
def experiment(one_thread, tmp_path_factory):
    """On a file of Omniglot's form with one character (four classes) a split: a pattern under noise."""
    draw = Key(("tests", "ablation")).numpy()
    images = draw.integers(0, 160, (3, 1, 28, 28)) + draw.integers(0, 96, (3, 6, 28, 28))
    path = tmp_path_factory.mktemp("data") / "patterns.npz"
    np.savez(
        path,
        images=images.reshape(-1, 28, 28).astype(np.uint8),
        character=np.repeat(np.arange(3), 6),
        drawer=np.tile(np.arange(6), 3),
        character_vinyals=np.arange(3),
    )
    return build(with_settings(Config(), SETTINGS | {"tasks.file": str(path)}).check())


@pytest.fixture(scope="module")
def checkpoint(experiment):
    """Fresh weights, and alphas that prefer something."""
    params = experiment.network.init(Key.from_seed(0))
    params |= {n: torch.randn(t.shape, generator=Key(("alpha", n)).torch()) for n, t in params.items() if is_alpha(n)}
    return Checkpoint(params, {}, {"step": 0})


@pytest.fixture(scope="module")
def rows(experiment, checkpoint):
    return alpha_ablation.run(experiment, checkpoint, TASKS, RANDOM)


def test_one_row_for_each_use(rows):
    assert [row["variant"] for row in rows] == [
        "full adaptation",
        "inner alpha steps off",
        "alphas uniform",
        "derived cell at its mixing weights",
        "derived cell, inherited weights",
        "random cell 0, inherited weights",
        "random cell 1, inherited weights",
    ]


def test_the_full_adaptation_is_evaluates(rows, experiment, checkpoint):
    facts = evaluate_run(experiment, checkpoint, "test", TASKS).facts
    assert (rows[0]["accuracy"], rows[0]["interval95"]) == (facts["accuracy"], facts["interval95"])
    assert (rows[0]["paired_difference"], rows[0]["paired_interval95"]) == (0.0, 0.0)


def test_curves_run_from_the_start_to_the_last_step(rows, experiment):
    for row in rows:
        assert len(row["curve"]) == experiment.config.evaluate.steps + 1
        assert row["curve"][-1] == pytest.approx(row["accuracy"], abs=1e-6)


def test_differences_are_from_the_full_adaptation(rows):
    for row in rows:
        difference = row["accuracy"] - rows[0]["accuracy"]
        assert row["paired_difference"] == pytest.approx(difference, abs=1e-6)
        assert row["paired_interval95"] >= 0.0
    assert any(row["paired_difference"] for row in rows)


def test_discrete_cells_are_printed_and_smaller(rows, experiment, checkpoint):
    space, whole = experiment.network.space, experiment.network.count(3)[0]
    assert [row["weights"] for row in rows[:4]] == [whole] * 4
    assert rows[3]["genotype"] == rows[4]["genotype"]
    assert [row["genotype"] for row in rows[:3]] == [None] * 3
    cells = [Genotype.parse(row["genotype"]) for row in rows[4:]]
    assert cells[0] == derive_genotype(alphas_of(checkpoint.params), space)
    assert len(set(cells)) == 3
    for row, cell in zip(rows[4:], cells, strict=True):
        cell.validate(space)
        assert row["weights"] < whole


def test_all_take_the_same_number_of_steps_from_the_same_weights(experiment, checkpoint):
    inner = evaluation_inner(experiment.config)
    full, *others = alpha_ablation.variants(experiment, checkpoint, RANDOM)
    assert full.inner == inner
    for variant in others:
        assert (variant.inner.steps, variant.inner.weight_rate) == (inner.steps, inner.weight_rate)
        assert variant.inner.alpha_rate == 0.0
    for variant in (full, *others):
        assert torch.equal(variant.params["stem.conv1"], checkpoint.params["stem.conv1"])
        assert variant.learner.bn == experiment.learner.bn


def test_random_cells_are_the_same_in_every_run(experiment, checkpoint):
    once, again = (list(alpha_ablation.variants(experiment, checkpoint, RANDOM)) for _ in range(2))
    assert [variant.genotype for variant in once] == [variant.genotype for variant in again]


def test_alphas_of_zero_are_uniform_and_without_effect_when_still(experiment, checkpoint):
    """The softmax of zeros weighs all alike, so two of the uses are one."""
    params = {n: torch.zeros_like(t) if is_alpha(n) else t for n, t in checkpoint.params.items()}
    _, still, uniform, *_ = alpha_ablation.run(experiment, Checkpoint(params, {}, {"step": 0}), TASKS, 0)
    for key in ("accuracy", "interval95", "paired_difference", "paired_interval95"):
        assert still[key] == pytest.approx(uniform[key], abs=1e-6)


def test_uniform_weights_do_not_see_the_alphas(rows, experiment, checkpoint):
    params = {n: -3.0 * t if is_alpha(n) else t for n, t in checkpoint.params.items()}
    other = alpha_ablation.run(experiment, Checkpoint(params, {}, {"step": 0}), TASKS, 0)
    assert other[2]["accuracy"] == rows[2]["accuracy"]
    assert other[3]["genotype"] != rows[3]["genotype"]


def test_the_program_writes_rows_and_what_they_are_of(experiment, checkpoint, rows, tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run", experiment.config, {})
    state = experiment.fresh_state()
    state.params = checkpoint.params
    run.save("best", state)
    file = tmp_path / "rows.json"
    words = [str(run.path), "--tasks", str(TASKS), "--steps", "2", "--random-cells", str(RANDOM), "--device", "cpu"]
    words += ["--threads", "1", "--json", str(file)]
    with pytest.raises(RunError, match="its search has not ended"):
        alpha_ablation.main(words)
    run.write_json("finished.json", {"steps": 0, "seconds": 0.0})
    assert alpha_ablation.main(words) == 0
    facts = json.loads(file.read_text())
    assert facts["rows"] == rows
    assert (facts["tasks"], facts["steps"], facts["bn"], facts["checkpoint_step"]) == (TASKS, 2, "transductive", 0)
    assert facts["episodes_sha256"] == evaluate_run(experiment, checkpoint, "test", TASKS).facts["episodes_sha256"]
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
