"""The search on networks other than the supernet: 4CONV, one discrete cell, and no inner step at all."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from metadarts.cli import main
from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.report import write_report
from metadarts.spaces import darts, random_genotype
from metadarts.tasks import ClassEntry, Source
from metadarts.training import (
    Config,
    RunFolder,
    discretised,
    evaluate_run,
    load_config,
    open_run,
    search,
    with_settings,
)
from metadarts.training.build import assemble
from metadarts.training.config import dump_config, to_settings
from metadarts.training.search import SearchStopped

CELL = str(random_genotype(darts(2), Key(("tests", "networks"))))
CONV4 = {"macro.name": "conv4"}
ONE_CELL = {"model.network": "cell", "model.genotype": CELL, "model.affine": True, "model.pool_norm": False}
NO_STEPS = {"inner.steps": 0, "evaluate.steps": 0, "model.head": "prototype"}
KINDS = {"conv4": CONV4, "cell": ONE_CELL, "supernet without steps": NO_STEPS, "protonet": CONV4 | NO_STEPS}
LESS = {"training.meta_steps": 3, "training.validations": 1, "training.validation_tasks": 2, "evaluate.queries": 2}


@pytest.fixture(scope="session")
def larger() -> Source:
    """Three classes a split, four 16x16 images each: the least that four halvings leave a pixel of."""
    images = Key(("tests", "networks", "images")).numpy().integers(0, 256, (36, 1, 16, 16), dtype=np.uint8)
    entries = tuple(ClassEntry(f"class {number}", np.arange(4 * number, 4 * number + 4)) for number in range(9))
    return Source("noise", images, entries, {"train": (0, 1, 2), "val": (3, 4, 5), "test": (6, 7, 8)})


@pytest.fixture(scope="session", params=KINDS)
def experiment(request, make, larger):
    return make(LESS | KINDS[request.param], larger)


@pytest.fixture
def folder(tmp_path):
    return lambda experiment, name="run": RunFolder.create(tmp_path / name, experiment.config, {"metadarts": "test"})


@pytest.fixture
def searched(make, larger, folder, request):
    """The finished run of the kind that the test is parametrized with."""
    experiment = make(LESS | KINDS[request.param], larger)
    run = folder(experiment)
    search(experiment, run)
    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.network": "cells"}, "model.network 'cells' is unknown; did you mean 'cell'?"),
        ({"macro.name": "conv5"}, "unknown macro network 'conv5': did you mean 'conv4'?"),
        ({"model.network": "cell"}, "model.genotype: "),
        ({"model.network": "cell", "model.genotype": "Genotype(normal=[], "}, "model.genotype: "),
        (ONE_CELL | {"space.nodes": 3}, "model.genotype: "),
        (
            {"model.genotype": CELL},
            "model.genotype: network 'supernet' has none; leave it empty, or set model.network to cell",
        ),
        (CONV4 | {"model.genotype": CELL}, "model.genotype: network 'supernet' has none"),
        (CONV4 | {"macro.channels": 0}, "macro.stem: expected the channels of at least one convolution"),
        (CONV4 | {"model.head": "linear"}, "model.head: expected one of shared, prototype, got 'linear'"),
        ({"inner.steps": -1}, "inner.steps"),
        ({"evaluate.steps": -1}, "evaluate.steps: expected at least 0, got -1"),
    ],
)  # fmt: skip
def test_faults_are_named(tiny, changes, words):
    with pytest.raises(ConfigError) as refused:
        tiny(changes)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["model.pool_norm", "model.network", "model.genotype"])
def test_a_value_of_another_type_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: expected"):
        with_settings(Config(), {name: 3})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back(tmp_path, tiny, kind):
    config = tiny(KINDS[kind])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_a_config_from_before_these_fields_is_the_supernet(tmp_path, tiny):
    config = tiny()
    table = to_settings(config)
    for name in ("network", "genotype", "pool_norm"):
        del table["model"][name]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(table))
    old = load_config(tmp_path / "config.yaml")
    assert old == config
    assert (old.model.network, old.model.genotype, old.model.pool_norm) == ("supernet", "", True)
    assert old.cell() is None


def test_the_settings_make_the_networks_they_name(make, larger):
    conv4 = make(CONV4, larger).network
    assert (conv4.spec.stem, conv4.spec.cells, conv4.spec.flat, conv4.genotype) == ((4,) * 4, (), 1, None)
    cell = make(ONE_CELL, larger).network
    assert str(cell.genotype) == CELL
    assert (cell.spec.affine, cell.spec.pool_norm, cell.mixes) == (True, False, False)
    assert make({}, larger).network.mixes


def test_the_last_map_of_conv4_follows_the_images(make, larger):
    images = np.zeros((36, 3, 35, 50), np.uint8)
    network = make(CONV4, replace(larger, images=images)).network
    assert (network.spec.in_channels, network.spec.flat, network.features) == (3, 2 * 3, 4 * 2 * 3)
    params = network.init(Key.from_seed(0))
    assert network.embed(params, torch.rand(2, 3, 35, 50, generator=Key.from_seed(0).torch())).shape == (2, 24)


def test_a_search_runs_and_changes_what_there_is(experiment, folder):
    """Without alphas there is nothing to record of them; with them there is, also when no inner step is taken."""
    run = folder(experiment)
    state = search(experiment, run)
    assert state.step == 3
    assert bool(run.records("alphas")) is experiment.network.mixes
    assert any(map(is_alpha, state.params)) is experiment.network.mixes
    (train,) = run.records("train")[:1]
    assert any(name.startswith(("entropy", "skips")) for name in train) is experiment.network.mixes
    assert len(train["support_losses"]) == experiment.config.inner.steps
    fresh = experiment.fresh_state().params
    moved = {name for name, tensor in state.params.items() if not torch.equal(tensor, fresh[name])}
    assert {"stem.conv1", "stem.norm2.weight"} <= moved
    validation = run.records("validate")[-1]
    assert len(validation["curve_accuracy"]) == experiment.config.evaluate.steps + 1
    assert run.load("best").facts["validation_accuracy"] == validation["accuracy"]
    assert evaluate_run(experiment, run.load("best"), "test", 2).evaluation.accuracies.shape == (2,)


def test_it_goes_on_to_the_same_last_bit(experiment, folder, monkeypatch):
    board = SimpleNamespace(add=lambda record: None, close=lambda: None)
    monkeypatch.setattr(
        sys.modules[search.__module__], "TensorBoardWriter", lambda *_: board
    )  # most of the time of so few steps
    whole = search(experiment, folder(experiment, "whole"))
    run = folder(experiment)
    for steps in (0, 1, 2):
        told: list[int] = []
        with pytest.raises(SearchStopped) as stopped:
            search(experiment, run, lambda now, told=told: told.append(now.step), lambda told=told: len(told) >= 1)
        assert stopped.value.step == steps + 1
    state = search(experiment, run)
    for ours, theirs in ((state.params, whole.params), (state.memory(), whole.memory())):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    first, second = (found.load("best").facts["sha256"] for found in (run, RunFolder(run.path.with_name("whole"))))
    assert first == second


@pytest.mark.parametrize("searched", ["conv4", "cell"], indirect=True)
def test_a_report_of_a_run_without_alphas_says_so(searched):
    page = unescape(write_report(open_run(searched.path)).read_text())
    cell = searched.config().cell()
    assert (str(cell) if cell else "No cell can be derived from the best checkpoint") in page
    assert "data:image/" in page, "the curves are there"


@pytest.mark.parametrize("searched", ["conv4", "cell"], indirect=True)
def test_derive_of_a_run_without_alphas_is_one_line(searched, monkeypatch, capsys):
    """As the command line says it; nothing is left in the folder."""
    before = sorted(searched.path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["metadarts", "derive", str(searched.path)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    kind = searched.config().network_name()
    assert said.endswith(f"trained the network {kind!r}, which has no alphas to derive a cell from\n")
    assert said.count("\n") == 1
    assert sorted(searched.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("device", "asked", "set_to"), [("cuda", False, [False]), ("cuda", True, [True]), ("cpu", True, [])]
)
def test_assembling_sets_the_precision_of_a_gpu(monkeypatch, tiny, larger, device, asked, set_to):
    """Whoever assembles: a search, a validation, a table. Off unless it is asked for."""
    told: list[bool] = []
    monkeypatch.setattr(importlib.import_module("metadarts.training.build"), "allow_tf32", told.append)
    assert assemble(tiny({"training.tf32": asked}), larger, device).device.type == device
    assert told == set_to
    assert Config().training.tf32 is False


PARTIAL = {"model.partial": 2, "macro.channels": 8, "space.inputs_by": "edges", "model.head": "prototype"}


def test_a_search_on_partial_channels_prunes_and_validates(make, folder):
    """A pruned supernet is of partial channels still; no weights of it fit a discrete cell."""
    drops = {"commit.operations": 0.5, "training.meta_steps": 4, "outer.alpha_rate": 0.1}
    experiment = make(LESS | PARTIAL | drops)
    run = folder(experiment)
    pruned = experiment.network.fitting(search(experiment, run).params)
    assert run.records("validate")
    assert pruned.kept is not None
    assert all(cell.mixed == cell.channels // 2 for cell in pruned.cells)
    with pytest.raises(ConfigError, match="no weights fit"):
        discretised(experiment, run.load("last"), random_genotype(experiment.network.space, Key(("tests", "partial"))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.partial": 0}, r"model\.partial: expected 1 \(all channels\) or more, got 0"),
        ({"model.partial": 3}, r"model\.partial: expected a number that divides half of a cell's 16 channels, got 3"),
        ({"model.partial": 4, "commit.cell": 0.5}, r"commit\.cell: a supernet of model\.partial above 1 hands no weig"),
    ],
)
def test_what_does_not_fit_partial_channels_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(Config(), {"training.meta_steps": 1} | settings).check()


def test_partial_channels_are_written_and_read(tmp_path):
    config = with_settings(Config(), {"training.meta_steps": 1, "model.partial": "4"}).check()
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml").structure().partial == 4
