"""Operations, blocks, macro networks and spaces of a user's own are exported; the file is run without any of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from metadarts.core.errors import ConfigError, ModelError
from metadarts.core.rng import Key
from metadarts.export import SUFFIXES, check, difference, export_model, freeze, open_model
from metadarts.networks import Network, NetworkSpec, supernet
from metadarts.operations import OPERATIONS, Operation
from metadarts.spaces import SearchSpace, darts, random_genotype

KEY = Key.from_seed(0)


@pytest.fixture(scope="module")
def networks(own):
    """Name -> (network, size of its images)."""
    flat = {inputs: own.Flat(in_channels=1, head="prototype", inputs=inputs) for inputs in (1, 2, 3)}
    reducing = {inputs: own.Reducing(in_channels=3, head="prototype", inputs=inputs, affine=True) for inputs in (1, 3)}
    conv4 = NetworkSpec(in_channels=3, stem=(4, 4, 4), cells=(), flat=6, head="prototype")
    found = {f"flat {inputs}": (own.network_of(spec, own.space_of(inputs)), 12) for inputs, spec in flat.items()}
    found |= {f"reducing {n}": (own.network_of(spec, own.space_of(n)), (40, 28)) for n, spec in reducing.items()}
    genotype = random_genotype(own.space_of(3), KEY)
    found["discrete"] = (own.network_of(reducing[3], own.space_of(3), genotype), (40, 28))
    found["without cells"] = (supernet(darts(1), conv4), (24, 16))
    return found


NAMES = ("flat 1", "flat 2", "flat 3", "reducing 1", "reducing 3", "discrete", "without cells")


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_classifier_is_the_network(cases, networks, name):
    network, size = networks[name]
    case = cases.make_case(network, size, head=0.5)
    pixels = cases.noise(case, 9)
    assert difference(cases.ship(case).logits(pixels), case.source(pixels)) < 1e-5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("name", ["flat 2", "discrete", "without cells"])
def test_every_format_passes_the_checks_of_an_export(cases, networks, name, format, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "RUNS", 1)
    for package in ("onnx", "onnxruntime", "onnxscript") if format == "onnx" else ():
        pytest.importorskip(package)
    network, size = networks[name]
    case = cases.make_case(network, size, head=0.5)
    path = tmp_path / f"model{SUFFIXES[format]}"
    found = export_model(cases.ship(case), path, format, case.source, cases.noise(case, 3))
    assert max(found.difference, found.alone) < 1e-5
    assert difference(open_model(path).logits(case.images), case.source(case.images)) < 1e-5


OPEN = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from metadarts.export import open_model
assert "own" not in sys.modules
torch.set_num_threads(int(sys.argv[4]))  # the bits of a convolution depend on it
pixels = load_file(sys.argv[2])["pixels"]
save_file({"logits": open_model(Path(sys.argv[1])).logits(pixels).contiguous()}, sys.argv[3])
"""


def test_a_process_that_knows_none_of_it_opens_and_runs_the_file(cases, networks, tmp_path):
    case = cases.make_case(*networks["flat 2"], head=0.5)
    model, pixels = cases.ship(case), cases.noise(case, 5)
    model.save(tmp_path / "model.safetensors")
    save_file({"pixels": pixels}, tmp_path / "pixels.safetensors")
    words = [tmp_path / "model.safetensors", tmp_path / "pixels.safetensors", tmp_path / "logits.safetensors"]
    words = [*map(str, words), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", OPEN, *words], check=True)
    assert torch.equal(load_file(words[2])["logits"], model.logits(pixels))


@pytest.mark.parametrize("cell", ["normal", "reduce"])
@pytest.mark.parametrize("affine", [False, True])
def test_an_operation_at_each_stride(cases, own, affine, cell):
    space = SearchSpace("one", ("none", "conv_1x5_5x1"), nodes=1)
    case = cases.make_case(own.network_of(cases.spec(cells=(cell,), affine=affine), space), 21, head=0.5)
    pixels = cases.noise(case, 9)
    assert difference(cases.ship(case).logits(pixels), case.source(pixels)) < 1e-5


def norm_then_relu(layers, x):
    """What it returns is followed by a layer that nothing reads."""
    y = layers.batch_norm(strided(layers, x), "norm")
    layers.relu(y)
    return y


def relu_then_norm(layers, x):
    y = layers.relu(strided(layers, x))
    layers.batch_norm(y, "norm")
    return y


def strided(layers, x):
    return x if layers.stride == 1 else layers.every_second(x)


def sampled(state, context):
    return state[:, :, :: context.stride, :: context.stride].unsqueeze(1)


FORMS = {
    "the state itself": (strided, sampled),
    "a relu at the end": (
        lambda layers, x: layers.relu(strided(layers, x)),
        lambda state, context: torch.relu(sampled(state, context)),
    ),
    "a norm of the state": (
        lambda layers, x: layers.batch_norm(strided(layers, x), "norm"),
        lambda state, context: context.batch_norm(sampled(state, context), "norm"),
    ),
    "a norm before a layer that nothing reads": (
        norm_then_relu,
        lambda state, context: context.batch_norm(sampled(state, context), "norm"),
    ),
    "a relu before a norm that nothing reads": (
        relu_then_norm,
        lambda state, context: torch.relu(sampled(state, context)),
    ),
    "a sum": (
        lambda layers, x: layers.add(strided(layers, x), layers.relu(strided(layers, x))),
        lambda state, context: sampled(state, context) + torch.relu(sampled(state, context)),
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mixed", [True, False])
def test_a_weight_is_taken_in_whatever_an_operation_ends_in(cases, own, name, mixed):
    """The state, which has just been made and which two nodes read, keeps its values."""
    fold, run = FORMS[name]
    table = OPERATIONS.plus("own", Operation(run=run, fold=fold))
    space = SearchSpace("one", ("own", "max_pool_3x3"), nodes=2, inputs=1, edges_per_node=1)
    genotype = None if mixed else random_genotype(space, KEY)
    structure = own.Reducing(in_channels=1, head="prototype", inputs=1)
    case = cases.make_case(Network(structure, space, genotype, table), 40)
    pixels = cases.noise(case, 9)
    assert difference(cases.ship(case).logits(pixels), case.source(pixels)) < 1e-5


def test_a_fold_that_is_not_the_operation_is_refused(cases, own, tmp_path, monkeypatch):
    wrong = replace(own.CROSS, fold=lambda layers, x: own.CROSS.fold(layers, layers.relu(layers.relu(x))) and x)
    table = OPERATIONS.plus("conv_1x5_5x1", wrong)
    space = SearchSpace("one", ("none", "conv_1x5_5x1", "skip_connect"), nodes=1, cell_types=("normal",))
    case = cases.make_case(Network(cases.spec(cells=("normal",)), space, None, table), 16)
    with pytest.raises(ModelError, match="of an image's largest logit"):
        export_model(cases.ship(case), tmp_path / "model.safetensors", None, case.source, case.images)


def test_an_operation_without_a_fold_is_named(cases, own):
    table = OPERATIONS.plus("conv_1x5_5x1", replace(own.CROSS, fold=None))
    space = SearchSpace("one", ("none", "conv_1x5_5x1"), nodes=1)
    case = cases.make_case(Network(cases.spec(), space, None, table), 16)
    with pytest.raises(ConfigError, match="operation 'conv_1x5_5x1' has no `fold`"):
        freeze(case.network, case.params, case.normalise(case.images))
