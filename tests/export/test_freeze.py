"""The plain classifier is the network it was made from, under its support set's statistics."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.export import difference, freeze
from metadarts.networks import Network, NetworkSpec, discrete_network, supernet
from metadarts.spaces import SearchSpace, darts, random_genotype

KEY = Key.from_seed(0)
SPACE = darts(nodes=2)


@pytest.fixture(scope="module")
def apart(cases):
    """(case, form of the images) -> the largest difference of a logit from the network's, relative to the largest."""

    def measure(case, **image):
        pixels = cases.noise(case, 9)
        return difference(cases.ship(case, **image).logits(pixels), case.source(pixels))

    return measure


def network_of(kind: str, spec: NetworkSpec) -> Network:
    return supernet(SPACE, spec) if kind == "supernet" else discrete_network(random_genotype(SPACE, KEY), SPACE, spec)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("kind", ["supernet", "discrete"])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 30), (1, 21), (3, (20, 27))], ids=str)
def test_logits_are_the_networks(cases, apart, kind, channels, size, affine):
    assert apart(cases.make_case(network_of(kind, cases.spec(in_channels=channels, affine=affine)), size)) < 1e-5


@pytest.mark.parametrize("kind", ["supernet", "discrete"])
@pytest.mark.parametrize(
    "changes",
    [
        {"pool_norm": False},
        {"pool_norm": False, "affine": True},
        {"cells": ("normal", "reduce", "normal")},
        {"cells": ("reduce", "reduce", "normal")},
        {"cells": ("normal",)},
        {"head": "shared"},
    ],
    ids=str,
)
def test_other_networks(cases, apart, kind, changes):
    assert apart(cases.make_case(network_of(kind, cases.spec(**changes)), 25)) < 1e-5


@pytest.mark.parametrize("cell", ["normal", "reduce"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", [name for name in SPACE.primitives if name != "none"])
def test_each_operation_at_each_stride(cases, apart, name, affine, cell):
    """With the inputs as the only sources a reduction cell has stride 2 everywhere and a normal cell nowhere."""
    space = SearchSpace("one", ("none", name), nodes=1)
    case = cases.make_case(supernet(space, cases.spec(cells=(cell,), affine=affine)), 21)
    assert apart(case) < 1e-5
    edges = {part for part in cases.ship(case).tensors if part.startswith("cells.0.edges.")}
    assert {part.split(".")[3] for part in edges} == {"0", "1"}


@pytest.mark.parametrize(
    "image", [{"invert": True}, {"mean": 0.45, "std": 0.25}, {"invert": True, "mean": -1.0}], ids=str
)
def test_pixels_are_brought_to_what_the_network_takes(cases, apart, image):
    case = cases.make_case(supernet(darts(nodes=1), cases.spec()), 16, **image)
    assert apart(case, **image) < 1e-5
    assert apart(case, **{**image, "invert": not image.get("invert", False)}) > 1e-3


def test_weights_take_the_place_of_the_alphas_and_what_weighs_nothing_is_left_out(cases, apart):
    network = supernet(SPACE, cases.spec())
    alphas = {kind: torch.randn(SPACE.alpha_shape, generator=KEY.child(kind).torch()) for kind in SPACE.cell_types}
    weights = {kind: torch.where(table > 0.2, table.softmax(-1), 0.0) for kind, table in alphas.items()}
    for table in weights.values():
        table[[0, 2], 1] = 0.5  # each node has an operation that counts
    case = cases.make_case(network, 28, weights=weights)
    assert apart(case) < 1e-5
    kept = sum(int((table[:, 1:] != 0).sum()) for table in weights.values())
    edges = {tuple(name.split(".")[:4]) for name in cases.ship(case).tensors if ".edges." in name}
    assert len(edges) == kept


def test_a_node_that_nothing_reaches_is_refused(cases, apart):
    network = supernet(SPACE, cases.spec())
    weights = {kind: torch.zeros(SPACE.alpha_shape) for kind in SPACE.cell_types}
    case = cases.make_case(network, 28)
    with pytest.raises(ValueError, match=r"node 0 of cells\.0 has no edge"):
        freeze(network, case.params, case.normalise(case.images), weights)


def test_a_genotype_of_the_supernets_alphas(cases, apart):
    network = supernet(SPACE, cases.spec())
    alphas = {kind: network.init(KEY)[f"alphas.{kind}"] for kind in SPACE.cell_types}
    assert (
        apart(cases.make_case(discrete_network(derive_genotype(alphas, SPACE), SPACE, cases.spec(affine=True)), 28))
        < 1e-5
    )


def test_an_answer_does_not_depend_on_the_batch(cases, apart):
    case = cases.make_case(supernet(SPACE, cases.spec()), 28)
    model, pixels = cases.ship(case), cases.noise(case, 65)
    together = model.logits(pixels)
    assert difference(torch.cat([model.logits(pixels[:1]), model.logits(pixels[64:])]), together[[0, 64]]) < 1e-5


def test_tensors_are_float32_and_nothing_of_the_parameters_is_changed(cases, apart):
    case = cases.make_case(supernet(SPACE, cases.spec()), 28)
    before = {name: tensor.clone() for name, tensor in case.params.items()}
    _, tensors = freeze(case.network, case.params, case.normalise(case.images))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.params.items())
