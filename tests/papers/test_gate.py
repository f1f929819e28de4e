"""The gate: every operation trained alone, on the same episodes, and what is said of the table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.core.types import batched, is_alpha
from metadarts.papers.gate import GatePlan, as_markdown, as_text, candidates, draw_gate, gate, verdict
from metadarts.papers.gate.study import weights_of
from metadarts.spaces import darts
from metadarts.stats import Estimate
from metadarts.stats.components import Components
from metadarts.testing import random_tasks, tiny_learner
from metadarts.training import Config, with_settings
from metadarts.training.build import assemble
from tests.papers.cases import TINY
from tests.tasks.test_mixture import plain

PLAN = GatePlan(steps=3, mixed=1, tasks=4, queries=1, train_ways=3)
SPACE = darts(nodes=2, none=False)


def family(seed=0):
    """Two domains of noise, 12x12."""
    source = plain("noise", 0, size=12, classes=18, each=8)
    images = np.random.Generator(np.random.Philox(seed)).integers(0, 256, source.images.shape, dtype=np.uint8)
    classes = tuple(replace(entry, domain="ab"[n % 2]) for n, entry in enumerate(source.classes))
    split = {of: tuple(range(6 * n, 6 * n + 6)) for n, of in enumerate(("train", "val", "test"))}
    return replace(source, images=images, classes=classes, split=split)


def experiment(source, **settings):
    chosen = TINY | {"space.none": False, "tasks.shots": 1} | settings
    return assemble(with_settings(Config(), chosen).check(), source)


@pytest.fixture(scope="module")
def found():
    torch.set_num_threads(1)
    return gate(experiment(family()), PLAN)


def test_the_candidates():
    found = candidates(SPACE, 2, Key(("c",)))
    assert list(found) == [*SPACE.operations, "mixed 1", "mixed 2"]
    for name in SPACE.operations:
        assert {op for cell in ("normal", "reduce") for op, _ in found[name].pairs(cell)} == {name}
        assert [source for _, source in found[name].normal] == [0, 1, 1, 2]


def test_one_network_with_fixed_weights_is_each_cell():
    """The supernet under a candidate's weights gives the logits of that discrete network."""
    learner, batch = tiny_learner(head="prototype", nodes=2), random_tasks(Key.from_seed(0), tasks=1)
    network = replace(learner.network, space=SPACE)
    params = {n: t.double() for n, t in network.init(Key.from_seed(1)).items()}
    from metadarts.networks import inherit

    for genotype in candidates(SPACE, 1, Key(("c",))).values():
        fixed = replace(learner, network=network, weights=weights_of(SPACE, [genotype]))
        cell = network.discrete(genotype)
        alone = replace(learner, network=cell)
        plain = batched({n: t for n, t in params.items() if not is_alpha(n)}, 1)
        cut = batched(inherit(cell, params, network), 1)
        torch.testing.assert_close(
            fixed.query_logits(fixed.start(plain, batch), batch), alone.query_logits(alone.start(cut, batch), batch)
        )


def test_the_table(found):
    assert found.domains == ("a", "b")
    assert found.table.shape == (2, 2, 4, 8, 2)
    assert ((found.table >= 0) & (found.table <= 1)).all()
    assert not np.array_equal(found.table[0], found.table[1])
    assert not np.array_equal(found.table[..., 0], found.table[..., 1])


def test_same_seed_same_table(found):
    assert np.array_equal(gate(experiment(family()), PLAN).table, found.table)


def test_networks_learn_on_training_classes_and_are_measured_on_others(monkeypatch):
    from metadarts.papers.gate import study

    seen = []

    class Watched(study.EpisodeSampler):
        def plan(self, key, tasks, first=0):
            made = super().plan(key, tasks, first)
            seen.append((self.split, self.domain, made))
            return made

    monkeypatch.setattr(study, "EpisodeSampler", Watched)
    source = family()
    gate(experiment(source), PLAN)
    for split, domain, plan in seen:
        assert set(plan.classes.flatten().tolist()) <= set(source.domain_classes(split)[domain])
    assert {split for split, _, _ in seen} == {"train", "val"}
    for _, _, plan in seen:
        rows = np.concatenate([plan.support_rows.ravel(), plan.query_rows.ravel()])
        assert len(set(rows.tolist())) == len(rows)  # draws share no image


def test_pages(found, tmp_path):
    page, text = as_markdown(found), as_text(found)
    for shown in (page, text):
        assert verdict(found.parts, 2)[:20] in shown.replace("\n", " ")
        for name in (*found.names, "operation x domain", "operation x task", "each domain's best operation"):
            assert name in shown
    draw_gate(found, tmp_path / "gate.png")
    assert (tmp_path / "gate.png").stat().st_size > 5000
    facts = json.loads(json.dumps(found.as_json()))
    assert facts["accuracy"]["a"]["skip_connect"] == pytest.approx(found.table[:, 0, :, 2].mean())


def parts(domain_gain, task_gain, most):
    flat = Estimate(0.0, 0.0, 0.0)
    return Components(flat, flat, flat, flat, flat, Estimate(*domain_gain), Estimate(*task_gain), Estimate(*most))


@pytest.mark.parametrize(
    ("found", "domains", "said"),
    [
        (parts((0.03, 0.02, 0.04), (0.0, 0.0, 0.0), (0.1, 0.1, 0.1)), 2, "Yes: the best operation of each domain"),
        (parts((0.0, -0.01, 0.004), (0.0, 0.0, 0.0), (0.02, 0.01, 0.03)), 2, "Not by domain: "),
        (parts((0.0, -0.01, 0.02), (0.0, 0.0, 0.0), (0.02, 0.01, 0.03)), 2, "Not shown: "),
        (parts((0.0, 0.0, 0.0), (0.01, 0.006, 0.02), (0.02, 0.01, 0.03)), 1, "Yes: the best operation of each task"),
        (parts((0.0, 0.0, 0.0), (0.0, -0.01, 0.01), (0.0, 0.0, 0.004)), 1, "No: "),
        (parts((0.0, 0.0, 0.0), (0.0, -0.01, 0.01), (0.0, 0.0, 0.04)), 1, "Not shown: "),
    ],
)
def test_the_verdict(found, domains, said):
    assert verdict(found, domains).startswith(said)


def test_what_a_gate_refuses():
    with pytest.raises(ConfigError, match=r"model\.head prototype"):
        gate(experiment(family(), **{"model.head": "shared"}), PLAN)
    source = family()
    moved = replace(source, split={**source.split, "train": (0, 2, 4)})
    with pytest.raises(DataError, match="no training classes of domain 'b'"):
        gate(experiment(moved), PLAN)
