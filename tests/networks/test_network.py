"""Counts from the recipe card, fresh parameters, and what a network refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError, GenotypeError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.networks import Learner, Network, NetworkSpec, discrete_network, inherit, supernet
from metadarts.networks.cell import Cells
from metadarts.operations import OPERATIONS, Statistics
from metadarts.spaces import Genotype, SearchSpace, darts
from metadarts.testing import generic_params, random_tasks, tiny_learner

# The genotypes that Auto-MAML released (Lian et al., ICLR 2020).
ONE_SHOT = Genotype(
    normal=(
        ("avg_pool_3x3", 0), ("avg_pool_3x3", 1), ("avg_pool_3x3", 1), ("avg_pool_3x3", 2),
        ("avg_pool_3x3", 1), ("avg_pool_3x3", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("avg_pool_3x3", 0), ("dil_conv_5x5", 1), ("avg_pool_3x3", 0), ("dil_conv_5x5", 1),
        ("skip_connect", 3), ("dil_conv_5x5", 2), ("skip_connect", 4), ("skip_connect", 3),
    ),
    reduce_concat=(2, 3, 4, 5),
)  # fmt: skip
FIVE_SHOT = Genotype(
    normal=(
        ("dil_conv_5x5", 1), ("dil_conv_5x5", 0), ("dil_conv_5x5", 2), ("dil_conv_3x3", 1),
        ("sep_conv_5x5", 2), ("sep_conv_3x3", 3), ("skip_connect", 4), ("dil_conv_3x3", 3),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("sep_conv_5x5", 0), ("avg_pool_3x3", 1), ("avg_pool_3x3", 1), ("skip_connect", 2),
        ("skip_connect", 2), ("avg_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)  # fmt: skip
EVALUATION = NetworkSpec(affine=True, pool_norm=False)


@pytest.mark.parametrize(("channels", "weights"), [(3, 201_181), (1, 200_749)])
def test_the_supernet_counts_what_tnas_counts(channels, weights):
    assert supernet(darts(), NetworkSpec(in_channels=channels)).count(ways=5) == (weights, 224)


@pytest.mark.parametrize(("genotype", "weights"), [(ONE_SHOT, 23_213), (FIVE_SHOT, 26_061)], ids=["1-shot", "5-shot"])
def test_the_released_genotypes_count_what_the_paper_counts(genotype, weights):
    assert discrete_network(genotype, darts(), EVALUATION).count(ways=5) == (weights, 0)


def test_counts_are_those_of_the_tensors():
    learner = tiny_learner(affine=True)
    params = learner.network.init(Key.from_seed(0))
    assert {name: tuple(tensor.shape) for name, tensor in params.items()} == learner.network.shapes()
    start = learner.start(
        {n: t.unsqueeze(0) for n, t in params.items()}, random_tasks(Key.from_seed(0), tasks=1, ways=7)
    )
    assert sum(tensor.numel() for tensor in start.values()) == sum(learner.network.count(ways=7))


def test_fresh_parameters_are_fixed_by_their_key_and_name():
    network = tiny_learner().network
    one, same, other = (network.init(Key.from_seed(seed)) for seed in (0, 0, 1))
    more = tiny_learner(affine=True).network.init(Key.from_seed(0))
    for name, tensor in one.items():
        assert torch.equal(tensor, same[name])
        assert torch.equal(tensor, more[name])  # other parameters do not shift the draws of this one
        assert ".norm" in name or name == "head.bias" or not torch.equal(tensor, other[name])


def test_fresh_parameters_have_the_sizes_of_torchs_layers():
    """Uniform within 1 / sqrt(fan in); alphas 1e-3 N(0, 1); norms the identity."""
    params = supernet(darts(), NetworkSpec(affine=True)).init(Key.from_seed(0))
    for name, fan_in in (
        ("stem.conv1", 27),
        ("stem.conv2", 216),
        ("cells.0.preprocess0.conv", 48),
        ("cells.1.preprocess1.conv", 64),
        ("cells.0.sep_conv_5x5.depthwise1", 25),
        ("cells.1.sep_conv_3x3.stride2.pointwise1", 32),
        ("cells.1.skip_connect.stride2.even", 32),
        ("head.vector", 128),
    ):
        bound = 1.0 / math.sqrt(fan_in)
        assert float(params[name].abs().max()) <= bound
        assert float(params[name].std()) == pytest.approx(bound / math.sqrt(3.0), rel=0.15), name
    assert float(params["alphas.normal"].std()) == pytest.approx(1e-3, rel=0.3)
    norms = {name: tensor for name, tensor in params.items() if ".norm" in name and not is_alpha(name)}
    assert len(norms) > 20
    assert all(bool((tensor == float(name.endswith("weight"))).all()) for name, tensor in norms.items())


def test_faults_are_refused_with_what_was_expected():
    with pytest.raises(ConfigError, match=r"network.head: expected one of shared, prototype, got 'linear'"):
        NetworkSpec(head="linear")
    with pytest.raises(ConfigError, match=r"network.channels: expected an even number.* got 5"):
        NetworkSpec(channels=5)
    with pytest.raises(ConfigError, match=r"no implementation for primitives \['conv_7x1'\]"):
        Network(NetworkSpec(), SearchSpace("odd", ("none", "conv_7x1"), nodes=2))
    with pytest.raises(GenotypeError):
        discrete_network(ONE_SHOT, darts(nodes=2))
    with pytest.raises(ConfigError, match="unknown batch-norm policy 'suport': did you mean 'support'"):
        Learner(tiny_learner().network, bn="suport")
    with pytest.raises(ConfigError, match="unknown precision 'fp16'"):
        Learner(tiny_learner().network, precision="fp16")


def test_inheriting_from_a_network_of_another_spec_is_refused():
    parent = supernet(darts(), NetworkSpec())
    with pytest.raises(ConfigError, match="inherit: expected a parent of the same spec and space"):
        inherit(discrete_network(ONE_SHOT, darts(), EVALUATION), parent.init(Key.from_seed(0)), parent)


def test_statistics_over_a_mask():
    statistics = Statistics.over(torch.tensor([[True, True, False], [True, True, True], [False, True, False]]))
    third = 1.0 / 3.0
    expected = torch.tensor([[0.5, 0.5, 0.0], [third, third, third], [0.0, 1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(statistics.rows.double(), expected, rtol=1e-6, atol=0.0)
    assert statistics.images == 1


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_bf16_gives_float32_logits_near_those_of_float32(bn):
    """bfloat16 has 8 bits: a hundredth or so of the logits' size after two cells."""
    wide = tiny_learner(bn=bn, precision="fp32")
    narrow = replace(wide, precision="bf16")
    params = {name: tensor.float() for name, tensor in generic_params(wide, Key.from_seed(1)).items()}
    batch = random_tasks(Key.from_seed(0), dtype=torch.float32)
    start = wide.start({name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}, batch)
    own = start | {"head.weight": start["head.weight"] * torch.tensor([1.0, -1.0, 0.5])[:, None]}
    truth, found = wide.query_logits(own, batch), narrow.query_logits(own, batch)
    assert found.dtype == torch.float32
    assert float((truth - found).abs().max()) < 0.05 * float(truth.abs().max())


def test_cells_need_a_space_of_two_inputs():
    edge = SearchSpace("edge", ("skip_connect",), nodes=1, inputs=1, edges_per_node=1)
    with pytest.raises(ConfigError, match="expected a space of 2 inputs, got 'edge' of 1"):
        Network(NetworkSpec(), edge)
    Network(NetworkSpec(cells=()), edge)


def test_a_node_may_keep_one_edge():
    space = SearchSpace("chain", ("skip_connect", "avg_pool_3x3"), nodes=2, edges_per_node=1)
    genotype = Genotype((("skip_connect", 0), ("avg_pool_3x3", 2)), (2, 3), (("skip_connect", 1),) * 2, (3,), 1)
    network = discrete_network(genotype, space)
    features = network.embed(network.init(Key.from_seed(0)), torch.rand(3, 3, 16, 16))
    assert features.shape == (3, network.features)


def test_only_affine_batch_norms_begin_as_batch_norms():
    """An operation's own tensors are left to its `init`, whatever their names."""
    sep = OPERATIONS["sep_conv_3x3"]
    odd = replace(
        sep,
        shapes=lambda channels, stride: sep.shapes(channels, stride) | {"normaliser.weight": (channels,)},
        init=lambda name, shape, key: torch.full(shape, 7.0),
    )
    operations = OPERATIONS.plus("normal_conv", odd)
    space = SearchSpace("odd", ("none", "normal_conv"), nodes=1)
    params = Network(NetworkSpec(affine=True), space, operations=operations).init(Key.from_seed(0))
    own = {name: tensor for name, tensor in params.items() if ".normal_conv." in name}
    norms = {name for name in own if name.split(".")[-2] in sep.norms(1) + sep.norms(2)}
    assert any("normaliser" in name for name in own)
    assert all(bool((own[name] == 7.0).all()) for name in own.keys() - norms)
    assert all(bool((own[name] == float(name.endswith("weight"))).all()) for name in norms)


def test_weights_of_a_network_without_alphas_are_refused():
    network = discrete_network(ONE_SHOT, darts())
    with pytest.raises(ConfigError, match="has no alphas"):
        network.weights_of(network.init(Key.from_seed(0)))


def test_a_cell_of_an_odd_number_of_channels_is_refused():
    cells = Cells(darts(nodes=1), None, OPERATIONS)
    with pytest.raises(ConfigError, match="expected an even number, got 3"):
        cells.cell("cell0.", "reduce", 3, (-1, -1), (3, 3))
