"""Partial channels: a cell against PC-DARTS's mixed edge written out, exact gradients, what does not fit refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.derive import derive_genotype
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, NetworkSpec, inherit, supernet
from metadarts.networks.cell import candidate_prefix
from metadarts.operations import OPERATIONS, EdgeContext, Statistics
from metadarts.relaxations import scores_of
from metadarts.relaxations.gdas import GDAS
from metadarts.spaces import Kept, darts
from metadarts.testing import ENGINES, check_params_close, error_along, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
K = 2
CHANNELS = 4 * K


def edges_learner(relaxation=None, **spec) -> Learner:
    """A supernet with alphas for inputs, of partial channels."""
    space = replace(darts(nodes=2), inputs_by="edges")
    structure = NetworkSpec(**{"in_channels": 1, "channels": CHANNELS, "stem": (4, 6), "partial": K} | spec)
    network = supernet(space, structure)
    return Learner(network if relaxation is None else replace(network, relaxation=relaxation), precision="fp64")


def shuffle(x, groups):
    """channel_shuffle of PC-DARTS on [N, C, H, W]."""
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def mixed_edge(cell, params, edge, state, p):
    """MixedOp.forward of PC-DARTS: [N, C, H, W] of one task. ``p`` weighs the primitives, ``none`` too."""
    node, source = edge
    part, rest = state[:, : cell.channels // K], state[:, cell.channels // K :]
    total, stride = 0.0, cell.stride(source)
    for name, weight in p.items():
        if OPERATIONS[name].run is None:
            continue
        row, own = cell.edges_at(name, stride).index((node, source)), cell.prefix + candidate_prefix(name, stride)
        mine = {key.removeprefix(own): t[:, row : row + 1] for key, t in params.items() if key.startswith(own)}
        context = EdgeContext({k: t for k, t in mine.items() if "stride2." not in k}, stride, Statistics(), True)
        output = OPERATIONS[name].run(part.permute(0, 2, 3, 1)[None], context)[0, 0].permute(0, 3, 1, 2)
        total = total + weight * output
    rest = F.max_pool2d(rest, 2, 2, ceil_mode=True) if stride == 2 else rest
    return shuffle(torch.cat([total, rest], dim=1), K)


@pytest.mark.parametrize("size", [6, 7], ids=["even", "odd"])
@pytest.mark.parametrize("which", [0, 1], ids=["normal", "reduce"])
def test_a_cell_is_that_of_pc_darts(which, size):
    learner = edges_learner()
    network, cell = learner.network, learner.network.cells[which]
    params = {name: tensor[None] for name, tensor in generic_params(learner, Key.from_seed(1)).items()}
    draw = Key(("tests", "partial")).torch()
    images = [torch.randn(1, 3, size, size, c, dtype=torch.float64, generator=draw) for c in cell.inputs]
    found = cell.run(params, images, network._mixing(params, None, 1, False), Statistics())
    states = [cell._preprocess(params, i, x, Statistics())[0].permute(0, 3, 1, 2) for i, x in enumerate(images)]
    operations = params[f"alphas.{cell.kind}"][0].softmax(-1)
    for node in range(cell.nodes):
        betas = params[f"alphas.{cell.kind}.inputs{node}"][0, 0].softmax(-1)
        edges = []
        for source, beta in enumerate(betas):
            p = dict(zip(network.space.primitives, operations[network.space.edge_index(node, source)], strict=True))
            edges.append(beta * mixed_edge(cell, params, (node, source), states[source], p))
        states.append(sum(edges))
    expected = torch.cat([states[state] for state in cell.concat], dim=1)
    torch.testing.assert_close(found[0].permute(0, 3, 1, 2), expected, rtol=1e-10, atol=1e-12)


def test_candidates_have_parameters_for_their_channels_alone():
    whole, part = (edges_learner(partial=k).network for k in (1, K))
    for cell in part.cells:
        name = f"{cell.prefix}sep_conv_3x3.depthwise1"
        assert part.shapes()[name][1] * K == whole.shapes()[name][1] == cell.channels
        assert part.shapes()[f"{cell.prefix}preprocess0.conv"] == whole.shapes()[f"{cell.prefix}preprocess0.conv"]


def test_every_parameter_has_a_gradient_and_only_1_is_all_channels():
    with pytest.raises(ConfigError, match=r"network\.partial: expected 1 \(all channels\) or more, got 0"):
        NetworkSpec(partial=0)
    with pytest.raises(ConfigError, match=r"network\.partial: expected a number that divides half of a cell's 8 chan"):
        edges_learner(partial=3)
    learner = edges_learner(head="prototype", affine=True)
    params, batch = generic_params(learner, Key.from_seed(1)), random_tasks(Key.from_seed(0))
    gradients = meta_gradient(learner, params, batch, INNER).gradients
    assert all(bool(gradient.any()) for gradient in gradients.values())


@pytest.fixture(scope="module")
def batch():
    return random_tasks(Key.from_seed(0))


@pytest.mark.parametrize("order", ["second", "first"])
def test_engines_parts_and_recomputed_steps_agree(batch, order):
    learner, inner = edges_learner(head="prototype"), replace(INNER, order=order)
    params = generic_params(learner, Key.from_seed(1))
    expected = meta_gradient(learner, params, batch, inner).gradients
    for options in ({"engine": ENGINES["loop"]}, {"engine": ENGINES["higher"]}, {"micro_batch": 1}):
        check_params_close(meta_gradient(learner, params, batch, inner, **options).gradients, expected, 1e-9)
    again = meta_gradient(learner, params, batch, replace(inner, checkpoint=2)).gradients
    assert all(torch.equal(again[name], gradient) for name, gradient in expected.items())


def test_the_exact_meta_gradient_equals_central_differences(batch):
    learner = edges_learner(head="prototype")
    params = generic_params(learner, Key.from_seed(1))
    found = meta_gradient(learner, params, batch, INNER).gradients

    def loss(point):
        own = {name: tensor.expand(2, *tensor.shape) for name, tensor in point.items()}
        with torch.no_grad():
            ends = adapt(learner.support_loss, learner.start(own, batch), batch, INNER).params
            return learner.query_loss(ends, batch)[0].mean()

    for wanted in (False, True):
        assert error_along(loss, found, params, [name for name in params if is_alpha(name) == wanted]) < 1e-6


class Thorough(GDAS):
    """Runs every candidate."""

    zeros_learn = True


def test_candidates_of_weight_zero_are_skipped_and_nothing_is_lost(batch):
    found = []
    for relaxation in (GDAS(), Thorough()):
        learner = edges_learner(relaxation, head="prototype")
        tasks = batch.with_noise(learner.noise(2, INNER.steps, Key.from_seed(2)))
        params = generic_params(learner, Key.from_seed(1))
        found.append(meta_gradient(learner, params, tasks, INNER, progress=0.5).gradients)
    check_params_close(*found, 1e-9)


def test_a_discrete_network_runs_on_all_channels_and_inherits_nothing(batch):
    learner = edges_learner(head="prototype")
    network, params = learner.network, generic_params(learner, Key.from_seed(1))
    alphas = {name.removeprefix("alphas."): tensor for name, tensor in params.items() if is_alpha(name)}
    genotype = derive_genotype(scores_of(alphas), network.space)
    discrete = network.discrete(genotype)
    assert all(cell.mixed == cell.channels for cell in discrete.cells)
    assert discrete.shapes() == edges_learner(partial=1, head="prototype").network.discrete(genotype).shapes()
    with pytest.raises(
        ConfigError, match=r"inherit: this supernet's candidates run on 1/2 .*: train the cell from scr"
    ):
        inherit(discrete, params, network)


def test_a_partial_supernet_is_not_exported():
    cell = tiny_learner(channels=8, partial=2).network.cells[0]
    with pytest.raises(ConfigError, match="a supernet that mixes 1/2 of its channels cannot be exported"):
        cell.fold(None, [], None)


def test_without_alphas_for_inputs_what_passes_by_weighs_one(batch):
    """All edges alike, as in the operations' softmax; a finished network is the same for images and for tasks."""
    learner = tiny_learner(channels=8, partial=2)
    params = {name: tensor[None] for name, tensor in generic_params(learner, Key.from_seed(1)).items()}
    mixing = learner.network._mixing(params, None, 1, False)
    assert sorted(mixing.edges) == ["normal", "reduce"]
    for tables in mixing.edges.values():
        for weights in tables.values():
            torch.testing.assert_close(weights, torch.ones_like(weights))
    assert learner.network._mixing(params, None, 1, False).edges["normal"][0].shape == (1, 2)
    assert tiny_learner().network._mixing(params, None, 1, False).edges == {}


def test_a_pruned_supernet_is_the_supernet_whose_dropped_candidates_are_closed(batch):
    learner = edges_learner(head="prototype")
    network, params = learner.network, generic_params(learner, Key.from_seed(1))
    scores = {name.removeprefix("alphas."): t.softmax(-1).tolist() for name, t in params.items() if is_alpha(name)}
    pruned = network.pruned(Kept.everything(network.space).best_operations(network.space, scores))
    own = inherit(pruned, params, network)
    closed = params | {name: tensor for name, tensor in own.items() if is_alpha(name)}
    sides = []
    for side, tensors in ((network, closed), (pruned, own)):
        expanded = {name: tensor.expand(2, *tensor.shape) for name, tensor in tensors.items()}
        sides.append(replace(learner, network=side).features(expanded, batch)[1])
    torch.testing.assert_close(*sides, rtol=1e-10, atol=1e-12)
