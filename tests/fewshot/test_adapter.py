"""`Adapter`: from images to a learnt, measured and saved task; and that it computes on one device alone."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, DataError
from metadarts.fewshot import Adapter, AdaptSettings, FewShotClassifier
from metadarts.fewshot.adapter import PlacedModel
from metadarts.fewshot.folder import FACTS, load_task
from metadarts.fewshot.labelled import Labelled
from metadarts.fewshot.learn import adapt_start, derive, inherited, retrained
from metadarts.fewshot.measure import measured
from metadarts.fewshot.start import Start
from metadarts.fewshot.task import Support, logits
from metadarts.inner import InnerLoop, adapt
from metadarts.ops.choice import implementation
from metadarts.testing import ENGINES

SETTINGS = AdaptSettings(2)
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def elsewhere():
    """The script beside this file; tests/ is no package, so it has no name to import it by."""
    spec = importlib.util.spec_from_file_location("elsewhere", Path(__file__).with_name("elsewhere.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def learnt_from(cases):
    pixels, labels = cases.images((4, 2, 5))
    return Labelled(pixels, (), CLASSES, labels)


@pytest.fixture(scope="module")
def measured_on(cases):
    pixels, labels = cases.images((3, 3, 3), seed=1)
    return Labelled(pixels, (), CLASSES, labels)


@pytest.fixture
def opened(grey, learnt_from, measured_on):
    return Adapter.open(grey, learnt_from, settings=SETTINGS, held_out=measured_on)


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_the_three_finishes_one_after_another(opened):
    start, support = opened.start, opened.task.support
    first = opened.adapt()
    assert first is opened.task.solution()
    assert same(first.params, adapt_start(start, support, SETTINGS).params)
    assert [step.accuracy is None for step in first.history] == [False] * 3
    opened.finish("inherited")
    opened.finish("retrained", 3)
    assert list(opened.task.solutions) == list(opened.finishes) == ["supernet", "inherited", "retrained"]
    found = opened.task.solution
    assert same(found("inherited").params, inherited(start, support, first, SETTINGS).params)
    assert same(found("retrained").params, retrained(start, support, derive(first), AdaptSettings(3)).params)


def test_an_operation_that_cannot_be_shipped_is_refused_before_a_step(monkeypatch, start, grey, learnt_from):
    network = start.network
    without = {**network.operations, "skip_connect": replace(network.operations["skip_connect"], fold=None)}
    monkeypatch.setattr(Start, "network", property(lambda self: replace(network, operations=without)))
    with pytest.raises(ConfigError, match="operation 'skip_connect' has no `fold`"):
        Adapter.open(grey, learnt_from)


@pytest.mark.parametrize("finish", ["supernet", "soft", "inherted", "", None])
def test_another_finish_is_refused_and_changes_nothing(opened, finish):
    adapted = opened.adapt()
    with pytest.raises(ConfigError, match=r"is no discrete one; .*valid names: inherited, retrained"):
        opened.finish(finish, 0)
    assert opened.task.solutions == {"supernet": adapted}


def test_a_finish_under_its_name_of_version_0_1_has_todays(opened):
    opened.adapt()
    opened.finish("scratch", 0)
    assert list(opened.task.solutions) == ["supernet", "retrained"]


def test_how_long_a_derived_cell_is_learnt(opened):
    settings = AdaptSettings(7, 3.0, 0.5)
    opened.settings = settings
    assert opened.settings_of("inherited") == settings
    assert opened.settings_of("inherited", 0) == AdaptSettings(0, 3.0, 0.5)
    assert opened.settings_of("retrained") == AdaptSettings(100, 3.0, 0.5)
    assert opened.settings_of("retrained", 4) == AdaptSettings(4, 3.0, 0.5)


def test_what_is_measured(opened):
    opened.adapt()
    opened.finish("inherited", 1)
    gaps, facts = opened.measure(), opened.task.facts
    assert list(gaps) == ["inherited"]
    assert list(facts["measured"]) == ["supernet", "inherited"]
    for name, solution in opened.task.solutions.items():
        wanted, _ = measured(opened.task, solution, opened.held_out)
        assert facts["measured"][name] == wanted | {key: facts["measured"][name][key] for key in ("weights", "flops")}
    assert facts["measured"]["supernet"]["weights"] > facts["measured"]["inherited"]["weights"]
    assert set(facts["baselines"]) == {"logistic regression on pixels", "nearest class mean on pixels"}


@pytest.mark.parametrize("empty", [False, True])
def test_without_held_out_images_sizes_are_known(grey, learnt_from, measured_on, empty):
    none = measured_on.take(np.arange(0)) if empty else None
    adapter = Adapter.open(grey, learnt_from, settings=AdaptSettings(0), held_out=none)
    adapter.adapt()
    assert (adapter.held_out, adapter.measure()) == (None, {})
    assert set(adapter.task.facts["measured"]["supernet"]) == {"weights", "flops"}
    assert "baselines" not in adapter.task.facts


def test_saved_it_is_a_task_folder_with_pictures(opened, tmp_path):
    opened.adapt()
    opened.finish("inherited", 1)
    opened.measure()
    opened.task.put_first("inherited")
    opened.save(tmp_path / "task")
    names = {path.name for path in (tmp_path / "task").iterdir()}
    assert names == {"task.json", "task.safetensors", "cells.png", "cells.svg", "predictions.png"}
    found = load_task(tmp_path / "task")
    assert list(found.solutions) == ["inherited", "supernet"]
    assert all(same(found.solution(name).params, own.params) for name, own in opened.task.solutions.items())
    assert found.facts["measured"] == json.loads(json.dumps(opened.task.facts["measured"]))
    assert found.facts["start"]["name"] == "tiny1.safetensors"


def test_the_estimator_is_the_same_to_the_bit(opened, grey, learnt_from):
    opened.adapt()
    opened.finish("inherited")
    opened.finish("retrained", 3)
    fitted = FewShotClassifier(grey, steps=2).fit(learnt_from.images, learnt_from.labels)
    for name, own in {
        "supernet": fitted, "inherited": fitted.discretise(), "retrained": fitted.discretise("retrained", 3),
    }.items():  # fmt: skip
        assert own.finish_ == name
        assert same(own.task_.solution(name).params, opened.task.solution(name).params)
        assert torch.equal(own.model_.tensors["head.weight"], opened.task.model(name).tensors["head.weight"])


def test_a_seed_is_that_of_mini_batches_and_of_fresh_weights(grey, cases):
    pixels, labels = cases.images((40, 30))
    many = Labelled(pixels, (), CLASSES[:2], labels)
    adapters = [Adapter.open(grey, many, settings=AdaptSettings(1), seed=seed) for seed in (1, 2, 2)]
    found = [(each.adapt(), each.finish("retrained", 0)) for each in adapters]
    for one, other, again in zip(*found, strict=True):
        assert not torch.equal(one.params["stem.conv1"], other.params["stem.conv1"])
        assert same(other.params, again.params)


def test_what_cannot_be_opened(grey, learnt_from):
    short = Labelled(learnt_from.images[:-1], (), CLASSES, learnt_from.labels)
    with pytest.raises(DataError, match="one label for each image, got 10 images and 11 labels"):
        Adapter.open(grey, short)
    with pytest.raises(DataError, match="class 'dog' has no image"):
        Adapter.open(grey, Labelled(learnt_from.images, (), (*CLASSES, "dog"), learnt_from.labels))
    with pytest.raises(ConfigError, match="no start 'nothing'"):
        Adapter.open("nothing", learnt_from)
    with pytest.raises(ConfigError, match="unknown device 'tpu': valid names: auto, cpu, cuda"):
        Adapter.open(grey, learnt_from, device="tpu")


# ------------------------------------------------------------------------------------------------------------- devices


@pytest.fixture
def placed_elsewhere(monkeypatch, elsewhere):
    """The made-up device is one that may be chosen."""
    monkeypatch.setattr("metadarts.fewshot.adapter.choose_device", lambda device: device)
    return elsewhere


def all_of(adapter):
    """Everything that computes; the finishes, and what is known of them."""
    adapter.adapt()
    adapter.finish("inherited")
    adapter.finish("retrained", 2)
    return adapter


@pytest.mark.parametrize("counts", [(4, 2, 5), (50, 30, 20)], ids=["together", "mini-batches"])
def test_a_task_is_computed_on_its_device_and_lies_on_the_cpu(placed_elsewhere, grey, cases, measured_on, counts):
    pixels, labels = cases.images(counts)
    learnt = Labelled(pixels, (), CLASSES, labels)
    with implementation("folded"):  # what the made-up device has
        here = all_of(Adapter.open(grey, learnt, settings=SETTINGS, held_out=measured_on))
        here.measure()
    with placed_elsewhere.Elsewhere() as watch:
        there = Adapter.open(grey, learnt, settings=SETTINGS, held_out=measured_on, device=placed_elsewhere.NAME)
        all_of(there)
        assert watch.convolved == {placed_elsewhere.NAME}, "nothing was computed here"
        there.measure()
    for name, solution in here.task.solutions.items():
        own = there.task.solution(name)
        assert {type(tensor) for tensor in own.params.values()} == {torch.Tensor}
        assert same(own.params, solution.params)
        assert [(step.loss, step.accuracy) for step in own.history] == [
            (step.loss, step.accuracy) for step in solution.history
        ]
    assert there.task.facts["measured"] == here.task.facts["measured"]
    assert there.task.facts["baselines"] == here.task.facts["baselines"]


def test_learned_rates_and_a_shared_head_are_placed_too(placed_elsewhere, cases, learnt_from, tmp_path):
    start = cases.make_start(1, model__head="shared", inner__learn_rates=True)
    rates = {"rates.weights": torch.tensor(0.1), "rates.alphas": torch.tensor(3.0)}
    path = tmp_path / "learned.safetensors"
    type(start)(start.name, start.config, start.form, start.params, rates, start.facts).save(path)
    with implementation("folded"):
        here = all_of(Adapter.open(str(path), learnt_from, settings=SETTINGS))
    with placed_elsewhere.Elsewhere():
        there = all_of(Adapter.open(str(path), learnt_from, settings=SETTINGS, device=placed_elsewhere.NAME))
    assert all(same(there.task.solution(name).params, here.task.solution(name).params) for name in there.finishes)


def test_what_is_not_placed_fails_there(placed_elsewhere, grey, learnt_from, monkeypatch):
    monkeypatch.setattr(Support, "placed", lambda self, params: params)
    with placed_elsewhere.Elsewhere(), pytest.raises(RuntimeError, match="to be on the same device"):
        Adapter.open(grey, learnt_from, settings=SETTINGS, device=placed_elsewhere.NAME).adapt()


def test_a_task_saved_from_elsewhere_answers_here(placed_elsewhere, grey, learnt_from, measured_on, tmp_path):
    with placed_elsewhere.Elsewhere():
        there = Adapter.open(grey, learnt_from, settings=SETTINGS, held_out=measured_on, device=placed_elsewhere.NAME)
        there.adapt()
        there.save(tmp_path / "task")
    found, pixels = load_task(tmp_path / "task"), there.held_out.pixels
    assert found.support.device == "cpu"
    assert "device" not in json.loads((tmp_path / "task" / FACTS).read_text())
    solution = found.solution()
    with implementation("folded"):
        wanted = logits(found.support, solution.network, solution.with_axis(), pixels)
    torch.testing.assert_close(found.model().logits(pixels), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_losses_of_no_step_are_where_the_tasks_are(elsewhere, start, support, engine):
    with elsewhere.Elsewhere():
        placed = replace(support, device=elsewhere.NAME)
        batch = placed.batch(support.frozen)
        params = start.learner.start(placed.placed({n: t[None] for n, t in start.params.items()}), batch)
        found = adapt(start.learner.support_loss, params, batch, InnerLoop(0), engine=ENGINES[engine])
        assert (found.losses.shape, str(found.losses.device)) == ((0, 1), elsewhere.NAME)


class Asked(torch.nn.Module):
    """Says where it and its pixels are."""

    def __init__(self):
        super().__init__()
        self.places, self.seen = [], []

    def module(self):
        return self

    def to(self, device):
        self.places.append(device)
        return self

    def forward(self, pixels):
        self.seen.append(str(pixels.device))
        return pixels.float()


def test_a_placed_model_sends_pixels_and_brings_logits_back(placed_elsewhere):
    asked = Asked()
    with placed_elsewhere.Elsewhere():
        found = PlacedModel.of(asked, placed_elsewhere.NAME)(torch.ones(2, 3, dtype=torch.uint8))
        assert str(found.device) == "cpu"
    assert (asked.places, asked.seen) == ([placed_elsewhere.NAME], [placed_elsewhere.NAME])


def test_the_made_up_device_keeps_tensors_apart(elsewhere):
    here = torch.ones(2)
    with elsewhere.Elsewhere():
        there = here.to("xpu")
        assert (str(there.device), str((there * 2).device), str(there.cpu().device)) == ("xpu", "xpu", "cpu")
        assert str(torch.zeros(2, device=there.device).device) == "xpu"
        assert float((there + torch.tensor(1.0)).sum()) == 4.0
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_estimator_takes_a_device(grey, learnt_from, device, tmp_path):
    fitted = FewShotClassifier(grey, steps=0, device=device).fit(learnt_from.images, learnt_from.labels)
    fitted.save(tmp_path / "task")
    loaded = FewShotClassifier.load(tmp_path / "task", device)
    assert (loaded.device, FewShotClassifier.load(tmp_path / "task").device) == (device, "cpu")
    np.testing.assert_array_equal(loaded.logits(learnt_from.images), fitted.logits(learnt_from.images))
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        FewShotClassifier(grey, steps=0, device="tpu").fit(learnt_from.images, learnt_from.labels)
