"""Starts: from a run, to a file and back; what is damaged or hostile is refused in our own words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from metadarts.core.errors import ConfigError, DataError, RunError
from metadarts.core.rng import Key
from metadarts.fewshot import FewShotClassifier, open_start
from metadarts.fewshot.input_spec import InputSpec
from metadarts.fewshot.learn import AdaptSettings, adapt_start
from metadarts.fewshot.start import KEY, start_of_run, suited_start
from metadarts.spaces import darts, random_genotype
from metadarts.store.tensors import digest, unsealed
from metadarts.tasks import ClassEntry, Source
from metadarts.training import Config, RunFolder, build, open_run, search, with_settings
from metadarts.training.build import assemble
from metadarts.training.config import to_settings

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def described(path):
    """(description without its hash, tensors) of a start's file."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(unsealed(file.metadata()[KEY], digest(tensors))), tensors


@pytest.fixture(scope="module")
def told(grey):
    return described(grey)


@pytest.fixture
def rewritten(told, tmp_path):
    """(description or text, tensors) -> a start's file of it."""

    def write(description, tensors=None):
        text = description if isinstance(description, str) else json.dumps(description)
        path = tmp_path / "start.safetensors"
        path.write_bytes(save_tensors(told[1] if tensors is None else tensors, metadata={KEY: text}))
        return path

    return write


def test_a_file_comes_back(start, grey):
    found = open_start(grey)
    assert (found.name, found.form, found.facts) == ("tiny1.safetensors", start.form, dict(start.facts))
    assert found.config == with_settings(start.config, {"tasks.file": ""})
    assert found.rates is None
    assert found.params.keys() == start.params.keys()
    assert all(torch.equal(found.params[name], start.params[name]) for name in start.params)
    assert (found.network, found.learner.bn) == (start.network, "support")


def test_learned_rates_come_back(start, support, tmp_path):
    config = with_settings(start.config, {"inner.learn_rates": True, "inner.granularity": "step", "inner.steps": 2})
    rates = {"rates.weights": torch.tensor([0.1, 0.2]), "rates.alphas": torch.tensor([3.0, 4.0])}
    learned = replace(start, config=config, rates=rates)
    learned.save(tmp_path / "a.safetensors")
    found = open_start(tmp_path / "a.safetensors")
    assert found.rates.keys() == rates.keys()
    assert all(torch.equal(found.rates[name], rates[name]) for name in rates)
    one, two = (adapt_start(own, support, AdaptSettings(3)).params for own in (learned, found))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "rates",
    [
        {"rates.weights": torch.tensor(0.1)},
        {"rates.weights": torch.tensor([0.1]), "rates.alphas": torch.tensor(1.0)},
        {"rates.weights": torch.tensor(float("nan")), "rates.alphas": torch.tensor(1.0)},
        {"rates.weights": torch.tensor(1), "rates.alphas": torch.tensor(1.0)},
    ],
    ids=["one lacks", "a shape", "nan", "integers"],
)
def test_learned_rates_that_do_not_fit_are_refused_when_opened(start, tmp_path, rates):
    replace(start, rates=rates).save(tmp_path / "a.safetensors")
    with pytest.raises(RunError, match="is damaged"):
        open_start(tmp_path / "a.safetensors")


def test_no_path_of_this_machine_is_packed(start, grey):
    assert start.config.tasks.file == "/somewhere/secret"
    content = Path(grey).read_bytes()
    for text in (b"secret", b"/tmp", b"/root", b"/home"):
        assert text not in content


def test_a_start_that_cannot_be_written(start, tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        start.save(tmp_path / "gone" / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(cases, tmp_path_factory):
    """A finished run of two meta-steps on light drawings of 20x16 pixels, dark on light."""
    folder = tmp_path_factory.mktemp("start of a run")
    draw = Key(("tests", "api", "run")).numpy()
    images = np.full((72, 20, 16), 240, np.uint8)
    images[:, 4:16, 4:12] = draw.integers(0, 200, (72, 12, 8))
    np.savez(folder / "mine.npz", images=images, label=np.repeat(np.arange(12), 6))
    changes = {
        "tasks.source": "npz", "tasks.file": str(folder / "mine.npz"), "tasks.ways": 2, "tasks.queries": 2,
        "inner.steps": 1, "training.meta_steps": 2, "training.tasks": 2, "training.validations": 1,
        "training.validation_tasks": 2, "evaluate.queries": 2,
    }  # fmt: skip
    experiment = build(with_settings(Config(), cases.TINY | changes).check())
    made = RunFolder.create(folder / "my run", experiment.config, {"metadarts": "test", "data_sha256": "abc"})
    search(experiment, made)
    return made.path


def test_a_run_whose_data_are_gone_is_a_start(run, tmp_path):
    gone = shutil.copytree(run, tmp_path / "my run")
    config = (gone / "config.yaml").read_text()
    (gone / "config.yaml").write_text(config.replace(str(run.parent / "mine.npz"), str(tmp_path / "gone.npz")))
    found, known = open_start(gone), open_start(run)
    assert (found.form, found.facts) == (known.form, known.facts)
    (gone / "data.json").unlink()  # as runs of before had none: then the data are asked for
    with pytest.raises(DataError, match=r"gone\.npz"):
        open_start(gone)
    (gone / "data.json").write_text(json.dumps(json.loads((run / "data.json").read_text()) | {"form": {"channels": 2}}))
    with pytest.raises(RunError, match="form of its images"):
        open_start(gone)


def test_a_finished_run_is_a_start(cases, run, tmp_path):
    found = open_start(run)
    assert found.name == "my run"
    assert found.form == InputSpec(1, 16, 16, found.form.mean, found.form.std, "light")
    assert found.facts["source"] == "npz"
    assert found.facts["data_sha256"] == open_run(run).experiment().source.content_sha256
    assert found.facts["meta_steps"] in (1, 2)
    assert 0 <= found.facts["validation_accuracy"] <= 1
    best = RunFolder.open(run).load("best").params
    assert all(torch.equal(found.params[name], best[name]) for name in best)
    found.save(tmp_path / "packed.safetensors")
    packed = open_start(tmp_path / "packed.safetensors")
    assert (packed.form, packed.facts) == (found.form, found.facts)
    assert str(run.parent).encode() not in (tmp_path / "packed.safetensors").read_bytes()
    data = cases.images((3, 3))
    one, two = (FewShotClassifier(str(own), steps=1).fit(*data) for own in (run, tmp_path / "packed.safetensors"))
    np.testing.assert_array_equal(one.logits(data[0]), two.logits(data[0]))


@pytest.fixture
def run_without_alphas(cases, tmp_path):
    """(settings) -> the configuration and the folder of a run that has just begun."""

    def made(settings):
        config = with_settings(Config(), cases.TINY | settings).check()
        source = Source("npz", np.zeros((2, 1, 16, 16), np.uint8), (ClassEntry("a", np.arange(2)),), {"train": (0,)})
        folder = RunFolder.create(tmp_path / "run", config, {})
        folder.save("best", assemble(config, source).fresh_state(), validation_accuracy=0.5)
        return config, folder.path

    return made


def test_a_run_without_cells_is_no_start(cases, told, rewritten, run_without_alphas):
    """In one sentence: as a run folder, as a start's file, and as the start of a classifier."""
    config, run = run_without_alphas({"model.network": "conv4"})
    description = json.loads(json.dumps(told[0]))
    description["config"] = to_settings(config)
    words = "expected the run of a supernet, .* its network is 'conv4': give the run folder of a search"
    for name in (run, rewritten(description)):
        with pytest.raises((ConfigError, RunError), match=words) as refused:
            open_start(name)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=words):
        FewShotClassifier(str(run), steps=1).fit(*cases.images((2, 2)))


@pytest.mark.parametrize("finish", ["supernet", "inherited", "retrained"])
def test_a_run_of_one_cell_is_a_start_whose_cell_is_adapted(cases, run_without_alphas, tmp_path, finish):
    genotype = random_genotype(darts(cases.TINY["space.nodes"]), Key(("tests", "api", "cell")))
    _, run = run_without_alphas({"model.network": "cell", "model.genotype": str(genotype)})
    start = open_start(run)
    assert start.is_cell
    start.save(tmp_path / "cell.safetensors")
    data = cases.images((3, 3))
    one, two = (
        FewShotClassifier(str(own), steps=1, finish=finish).fit(*data) for own in (run, tmp_path / "cell.safetensors")
    )
    assert one.genotype_ == genotype
    assert one.finish_ == ("retrained" if finish == "retrained" else "cell")
    np.testing.assert_array_equal(one.logits(data[0]), two.logits(data[0]))
    with pytest.raises(ConfigError, match="is one cell, adapted already"):
        two.discretise("inherited", steps=7)
    one.save(tmp_path / "task")
    np.testing.assert_array_equal(FewShotClassifier.load(tmp_path / "task").logits(data[0]), one.logits(data[0]))


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        start_of_run(tmp_path)


@pytest.mark.parametrize("name", ["glyps", "cifar", "", "/nowhere/start.safetensors", "a\0b"])
def test_what_is_no_start_is_said_with_the_names_there_are(name):
    with pytest.raises((ConfigError, RunError), match=r"glyphs|is not a run folder"):
        open_start(name)


def test_auto_is_by_the_channels():
    assert (suited_start(1), suited_start(3)) == ("glyphs-cell", "cifar-fs-cell")
    assert (suited_start(1, alphas=True), suited_start(3, alphas=True)) == ("glyphs", "cifar-fs")


def test_a_missing_bundled_start_says_so(monkeypatch, tmp_path):
    assert files("metadarts.fewshot").is_dir()
    start = open_start.__globals__
    monkeypatch.setitem(start, "files", lambda package: tmp_path)
    with pytest.raises(RunError, match="is missing from this installation"):
        open_start("glyphs")


@FUZZ
@given(size=st.integers(0, 2**20))
def test_a_truncated_file_is_refused(grey, tmp_path, size):
    content = Path(grey).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: size % len(content)])
    with pytest.raises(RunError):
        open_start(path)


@FUZZ
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7), header=st.booleans())
def test_a_flipped_bit_is_refused_or_harmless(grey, tmp_path, place, bit, header):
    content = bytearray(Path(grey).read_bytes())
    end = 8 + int.from_bytes(content[:8], "little") if header else len(content)
    content[place % end] ^= 1 << bit
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    try:
        found = open_start(path)
    except RunError:
        return
    assert all(bool(tensor.isfinite().all()) for tensor in found.params.values())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(10**400)
    | st.just("support"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value, above=()):
    """Every path in nested dictionaries."""
    for name, inner in value.items():
        yield (*above, name)
        if isinstance(inner, dict):
            yield from places(inner, (*above, name))


@FUZZ
@given(data=st.data())
def test_hostile_json_is_refused_or_can_be_used(told, rewritten, support, data):
    description = json.loads(json.dumps(told[0]))
    place = data.draw(st.sampled_from(sorted(places(description))))
    group = description
    for name in place[:-1]:
        group = group[name]
    if data.draw(st.booleans()):
        del group[place[-1]]
    else:
        group[place[-1]] = data.draw(JSON)
    path, said = rewritten(description), ""
    try:
        found = open_start(path)
        found.network.shapes()
        assert found.form.height == found.form.width
        found.save(path.with_name("again.safetensors"))
    except (RunError, ConfigError) as error:
        said = str(error)
    assert "\n" not in said


def test_a_file_of_something_else(rewritten, tmp_path):
    (tmp_path / "text.safetensors").write_text("{}")
    for path in (
        tmp_path / "text.safetensors",
        rewritten("{}"),
        rewritten('{"format": "metadarts.start", "version": 2}'),
    ):
        with pytest.raises(RunError, match=r"give what `Start\.save` wrote"):
            open_start(path)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("model", "nodes", 10**7), ("model", "nodes", 17), ("model", "channels", 10**15), ("model", "stem", [10**9, 1]),
        ("model", "bn", "none"), ("model", "head", "none"), ("inner", "steps", -1), ("inner", "rule", "__import__"),
        ("tasks", "ways", "*a"), ("modle", "nodes", 2),
    ],
)  # fmt: skip
def test_a_configuration_out_of_range(told, rewritten, group, name, value):
    description = json.loads(json.dumps(told[0]))
    description["config"].setdefault(group, {})[name] = value
    with pytest.raises(RunError, match="is damaged"):
        open_start(rewritten(description))


def test_tensors_of_another_network(told, rewritten):
    description, tensors = told
    name = "param/stem.conv1"
    for spoilt in (
        {own: tensor for own, tensor in tensors.items() if own != name},
        tensors | {"param/more": torch.zeros(1)},
        tensors | {name: torch.zeros(1)},
        tensors | {name: tensors[name].double()},
        tensors | {name: tensors[name] * torch.inf},
        {},
    ):
        with pytest.raises(RunError, match="is damaged"):
            open_start(rewritten(description, spoilt))


def test_a_plugin_beside_a_bundled_start_is_looked_at():
    with pytest.raises(ConfigError, match="there is no such file"):
        open_start("glyphs-cell", ["gone.py"])
