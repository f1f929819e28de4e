"""Files that version 0.1 wrote, whose structure names operations of cells: each opens, and is read as layers.

``version1/`` was written by that version, from the networks below, with the cases of these tests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from metadarts.core.errors import ModelError
from metadarts.export import check, difference, open_model, read_model, verify
from metadarts.export.model import LIMIT, read_facts
from metadarts.networks import discrete_network, supernet
from metadarts.spaces import Genotype, darts

FILES = Path(__file__).with_name("version1")
IMAGE = {"invert": True, "mean": 0.4, "std": 0.3}
GENOTYPE = Genotype(
    normal=(("sep_conv_3x3", 0), ("max_pool_3x3", 1)),
    normal_concat=(2,),
    reduce=(("skip_connect", 0), ("dil_conv_5x5", 1)),
    reduce_concat=(2,),
)


@pytest.fixture(scope="module")
def small(cases):
    return cases.spec(stem=(2, 4), channels=2, cells=("normal", "reduce", "normal"))


@pytest.fixture(scope="module")
def discrete(cases, small):
    return cases.make_case(discrete_network(GENOTYPE, darts(1), small), 17, **IMAGE)


@pytest.fixture
def old(tmp_path):
    """The files; the python file has the name that its text says."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.py.txt").rename(tmp_path / "model.py")
    return tmp_path


@pytest.mark.parametrize("suffix", [".safetensors", ".py", ".pt2", ".onnx"])
def test_every_format_answers_as_its_network(cases, discrete, old, suffix, monkeypatch):
    monkeypatch.setattr(check, "RUNS", 1)
    for name in ("onnx", "onnxruntime", "onnxscript") if suffix == ".onnx" else ():
        pytest.importorskip(name)
    pixels = cases.noise(discrete, 9)
    assert difference(open_model(old / f"model{suffix}").logits(pixels), discrete.source(pixels)) < LIMIT
    assert verify(old / f"model{suffix}")[0].difference < LIMIT


def test_what_is_read_is_what_this_version_writes(cases, discrete, small):
    """The supernet has every operation at both strides, the row of cells a map that is taken at every second pixel."""
    network = cases.make_case(supernet(darts(1), small), 17)
    for name, case, image in (("supernet", network, {}), ("model", discrete, IMAGE)):
        old, new = read_model(FILES / f"{name}.safetensors"), cases.ship(case, **image)
        wanted = json.loads(json.dumps(new.facts))
        measured = {"probes": None, "tensors_sha256": None}
        assert old.facts | measured == wanted | measured
        assert old.tensors.keys() == new.tensors.keys()
        assert difference(old.logits(cases.noise(case, 9)), case.source(cases.noise(case, 9))) < LIMIT


def test_a_model_that_was_read_is_written_anew(old, tmp_path):
    model = read_model(old / "supernet.safetensors")
    model.save(tmp_path / "new.safetensors")
    again = read_model(tmp_path / "new.safetensors")
    assert again.facts == model.facts
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in model.tensors.items())


def test_a_python_file_that_was_edited_is_refused(old):
    text = (old / "model.py").read_text(encoding="utf-8")
    for change in (("/ 255.0", "/ 256.0"), ("# images", "# pictures"), ("WEIGHTS = 'model", "WEIGHTS = 'other")):
        assert change[0] in text
        (old / "model.py").write_text(text.replace(*change), encoding="utf-8")
        with pytest.raises(ModelError, match="not what this version"):
            open_model(old / "model.py")


def facts():
    with safe_open(str(FILES / "supernet.safetensors"), framework="pt") as file:
        return json.loads(file.metadata()["metadarts"])


def with_cell(told, **changes):
    return told | {"cells": [told["cells"][0] | changes, *told["cells"][1:]]}


HOSTILE = {
    "one number for a stem": lambda f: f | {"stem": [2]},
    "a bool in the stem": lambda f: f | {"stem": [True, 4]},
    "cells in text": lambda f: f | {"cells": "normal"},
    "no cells": lambda f: f | {"cells": []},
    "channels of text": lambda f: with_cell(f, channels="a" * 1_000_000, concat=[2] * 1_000_000),
    "a float for channels": lambda f: with_cell(f, channels=2.0),
    "other channels than the states before": lambda f: with_cell(f, inputs=[4, 5]),
    "three inputs": lambda f: with_cell(f, inputs=[4, 4, 4]),
    "a hundred thousand edges": lambda f: with_cell(f, edges=[[0, 0, "skip_connect", 1]] * 100_000),
    "a node far away": lambda f: with_cell(f, edges=[[10**12, 0, "skip_connect", 1]]),
    "a node that cannot be one": lambda f: with_cell(f, edges=[[[], 0, "skip_connect", 1]]),
    "a source that is not there": lambda f: with_cell(f, edges=[[0, 2, "skip_connect", 1]]),
    "an operation of Python's": lambda f: with_cell(f, edges=[[0, 0, "__class__", 1]]),
    "a stride of 3": lambda f: with_cell(f, edges=[[0, 0, "sep_conv_3x3", 3]]),
    "a stride of text": lambda f: with_cell(f, edges=[[0, 0, "sep_conv_3x3", "2"]]),
    "strides that do not fit": lambda f: with_cell(f, edges=[[0, 0, "skip_connect", 1], [0, 1, "skip_connect", 2]]),
    "an input beside smaller maps": lambda f: with_cell(f, edges=[[0, 0, "skip_connect", 2]], concat=[0, 2]),
    "a node without edges": lambda f: with_cell(f, edges=[[1, 0, "skip_connect", 1]]),
    "odd channels": lambda f: with_cell(f, channels=3),
    "nothing to join": lambda f: with_cell(f, concat=[]),
    "an image of text": lambda f: f | {"image": f["image"] | {"height": "17"}},
    "no image": lambda f: {name: value for name, value in f.items() if name != "image"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description(name):
    read_facts(json.dumps(facts()), Path("file"))
    with pytest.raises(ModelError) as caught:
        read_facts(json.dumps(HOSTILE[name](facts())), Path("file"))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_no_model_is_not_read_as_one_of_version_0_1(version):
    """A start's file, which has a version of its own."""
    told = {"format": "metadarts.start", "version": version, "config": {}, "form": {}, "facts": {}}
    with pytest.raises(
        ModelError, match=r"^start: format: expected 'metadarts\.model', got 'metadarts\.start'; give a"
    ):
        read_facts(json.dumps(told), Path("start"))
