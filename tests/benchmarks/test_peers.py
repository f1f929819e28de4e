"""The peers are what they claim: the right networks, and loops that agree, with each other and with differences."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import loops
from benchmarks.peers.conv4 import Conv4
from benchmarks.peers.loops import LOOPS, MetaStep
from benchmarks.peers.network import CANDIDATES, FactorizedReduce, MixedOp, SearchNetwork
from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from metadarts.core.types import TaskBatch, is_alpha

HAS_LEARN2LEARN = importlib.util.find_spec("learn2learn") is not None
RATES = {"steps": 2, "weight_rate": 0.05, "alpha_rate": 2.0}
ORDERS = pytest.mark.parametrize("exact", [True, False], ids=["second_order", "first_order"])
OTHERS = [
    "functional_call",
    pytest.param("learn2learn", marks=pytest.mark.skipif(not HAS_LEARN2LEARN, reason="learn2learn is not installed")),
]


def counts(network: nn.Module) -> tuple[int, int]:
    """Numbers of weights and of alphas."""
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    alphas = sum(size for name, size in sizes.items() if is_alpha(name))
    return sum(sizes.values()) - alphas, alphas


def search_network() -> SearchNetwork:
    """A float64 network for one channel and three ways, its alphas far enough from uniform to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = SearchNetwork(channels=1, ways=3)
        for alpha in network.alphas.parameters():
            nn.init.normal_(alpha, std=0.5)
    return network.double()


def small_batch() -> TaskBatch:
    """Two tasks of 16x16 images, 3-way; a padding row of garbage in each set checks the masks."""
    batch = random_batch(Episode(tasks=2, ways=3, shots=2, queries=2, channels=1, size=16), seed=5)
    support_mask, query_mask = batch.support_mask.clone(), batch.query_mask.clone()
    support_mask[1, -1] = query_mask[0, 0] = False
    batch.support_images[1, -1] = batch.query_images[0, 0] = torch.nan
    return replace(batch, support_mask=support_mask, query_mask=query_mask).to("cpu", torch.float64)


def meta_step(loop: str, network: nn.Module, exact: bool) -> MetaStep:
    return LOOPS[loop](network, small_batch(), **RATES, exact=exact)


@cache
def search_step(loop: str, exact: bool) -> MetaStep:
    """The meta-step of ``loop`` on the search network, computed once for all tests."""
    network = search_network()
    step = meta_step(loop, network, exact)
    assert all(parameter.grad is None for parameter in network.parameters()), "gradients left behind"
    return step


def relative_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    """By parameter: the norm of a - b over the norm of b; a gradient below 1e-12 counts as zero of the whole."""
    assert a.keys() == b.keys()
    whole = torch.cat([gradient.flatten() for gradient in b.values()]).norm()
    return {name: ((a[name] - b[name]).norm() / b[name].norm().clamp_min(1e-12 * whole)).item() for name in b}


@pytest.mark.parametrize("channels, weights", [(3, 201_181), (1, 200_749)], ids=["colour", "grey"])
def test_search_network_has_the_counts_of_the_recipe(channels: int, weights: int) -> None:
    assert counts(SearchNetwork(channels, ways=5)) == (weights, 224)


@pytest.mark.parametrize("channels, size, weights", [(3, 84, 32_901), (1, 28, 28_485)], ids=["mini", "omniglot"])
def test_conv4_has_the_counts_of_maml(channels: int, size: int, weights: int) -> None:
    network = Conv4(channels, size, ways=5)
    assert counts(network) == (weights, 0)
    assert network(torch.randn(2, channels, size, size)).shape == (2, 5)


def test_parameter_names_follow_the_documented_scheme() -> None:
    names = {name for name, _ in SearchNetwork().named_parameters()}
    expected = {f"stem.{part}" for part in ("conv1.weight", "conv2.weight")}
    expected |= {f"stem.norm{index}.{part}" for index in (1, 2) for part in ("weight", "bias")}
    expected |= {f"cells.{cell}.preprocess{index}.conv.weight" for cell in (0, 1) for index in (0, 1)}
    for edge in (f"cells.{cell}.edges.{edge}" for cell in (0, 1) for edge in range(14)):
        for size in ("3x3", "5x5"):
            for kind in ("depthwise", "pointwise"):
                expected |= {f"{edge}.sep_conv_{size}.{kind}{index}.weight" for index in (1, 2)}
                expected.add(f"{edge}.dil_conv_{size}.{kind}1.weight")
    strided = [node * (node + 3) // 2 + source for node in range(4) for source in (0, 1)]
    expected |= {f"cells.1.edges.{edge}.skip_connect.{part}.weight" for edge in strided for part in ("even", "odd")}
    expected |= {"alphas.normal", "alphas.reduce", "head.weight", "head.bias"}
    assert names == expected


@pytest.mark.parametrize("size", [32, 28, 84], ids=["even", "odd_reduction_7", "odd_reduction_21"])
def test_search_network_takes_any_size(size: int) -> None:
    assert SearchNetwork(channels=3, ways=4)(torch.randn(2, 3, size, size)).shape == (2, 4)


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("stride", [1, 2])
def test_candidates_halve_by_rounding_up(name: str, stride: int) -> None:
    out = CANDIDATES[name](6, stride)(torch.randn(2, 6, 7, 10))
    assert out.shape == (2, 6, -(-7 // stride), -(-10 // stride))


def test_mixed_op_with_one_hot_weights_is_that_candidate() -> None:
    edge, x = MixedOp(6, 1), torch.randn(2, 6, 5, 5)
    for index, candidate in enumerate(edge.values()):
        torch.testing.assert_close(edge(x, F.one_hot(torch.tensor(index), 8).float()), candidate(x))


def test_factorized_reduce_reads_even_and_odd_pixels() -> None:
    reduce, x = FactorizedReduce(4).double(), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    halves = []
    for weight, start in ((reduce.even.weight, 0), (reduce.odd.weight, 1)):
        halves.append(torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x[:, :, start::2, start::2].relu()))
    torch.testing.assert_close(reduce(x), reduce.norm(torch.cat(halves, dim=1)))


@ORDERS
@pytest.mark.parametrize("other", OTHERS)
def test_loops_agree(other: str, exact: bool) -> None:
    oracle, candidate = search_step("higher", exact), search_step(other, exact)
    assert candidate.loss == pytest.approx(oracle.loss, rel=1e-12)
    differences = relative_difference(candidate.gradients, oracle.gradients)
    assert max(differences.values()) < 1e-9, differences


def test_orders_differ_in_every_parameter() -> None:
    first, second = (search_step("functional_call", exact).gradients for exact in (False, True))
    differences = relative_difference(first, second)
    assert min(differences.values()) > 1e-4, differences


@pytest.mark.parametrize("loop", ["higher", "functional_call"])
@ORDERS
def test_zero_steps_give_the_plain_gradient(loop: str, exact: bool) -> None:
    network, batch = search_network(), small_batch()
    step = LOOPS[loop](network, batch, steps=0, weight_rate=0.05, alpha_rate=2.0, exact=exact)
    losses = [F.cross_entropy(network(task.query_images), task.query_labels) for task in loops.tasks_of(batch)]
    plain = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))
    differences = relative_difference(step.gradients, dict(zip(step.gradients, plain, strict=True)))
    assert max(differences.values()) < 1e-9, differences


def test_networks_without_alphas_are_taken() -> None:
    network = Conv4(channels=1, size=16, ways=3).double()
    oracle, hand = (meta_step(loop, network, exact=True) for loop in ("higher", "functional_call"))
    for name in oracle.gradients:
        torch.testing.assert_close(hand.gradients[name], oracle.gradients[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", ["weights", "alphas"])
def test_exact_gradient_matches_a_central_difference(part: str) -> None:
    network, generator, h = search_network(), torch.Generator().manual_seed(11), 1e-6
    direction = {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for name, parameter in network.named_parameters()
        if is_alpha(name) == (part == "alphas")
    }
    length = torch.cat([value.flatten() for value in direction.values()]).norm()
    gradients = search_step("functional_call", exact=True).gradients
    slope = sum((gradients[name] * value).sum() / length for name, value in direction.items())

    def loss_at(shift: float) -> float:
        moved = search_network()
        with torch.no_grad():
            for name, value in direction.items():
                moved.get_parameter(name).add_(value / length, alpha=shift)
        return meta_step("functional_call", moved, exact=False).loss

    difference = (loss_at(h) - loss_at(-h)) / (2 * h)
    assert float(slope) == pytest.approx(difference, rel=1e-5)


@pytest.mark.skipif(HAS_LEARN2LEARN, reason="learn2learn is installed")
def test_missing_learn2learn_says_how_to_install_it() -> None:
    with pytest.raises(ImportError, match=r"needs learn2learn 0\.2\.0.*CYTHON_FORCE_REGEN=1 pip install"):
        meta_step("learn2learn", search_network(), exact=True)


TINY = {"tasks": 1, "ways": 2, "shots": 1, "queries": 1, "channels": 1, "size": 8}


def test_isolated_run_reports_times_memory_and_result() -> None:
    kwargs = {"loop": "functional_call", "exact": False, "episode": TINY, "steps": 1}
    workload = "benchmarks.peers.workloads:peer_meta_step"
    answer = run_isolated(workload, kwargs, repetitions=2, warmups=1, threads=1, timeout=600)
    assert len(answer["seconds"]) == 2
    assert len(answer["warmup_seconds"]) == 1
    assert min(answer["seconds"]) > 0
    assert answer["peak_mb"] >= answer["start_mb"] > 50
    assert answer["result"] > 0
    assert (answer["threads"], answer["torch_threads"]) == (1, 1)


def test_isolated_peak_does_not_inherit_this_process() -> None:
    ballast = torch.ones(100_000_000)  # 400 MB here; the child loads no torch and makes an empty dict
    answer = run_isolated("builtins:dict", {}, repetitions=0, warmups=0, timeout=600)
    assert ballast.numel() * 4 / 1e6 > 4 * answer["peak_mb"] > 0
    assert (answer["seconds"], answer["torch"]) == ([], None)


def test_isolated_run_passes_the_childs_error_on() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)no_such_name ended with exit code 1:.*AttributeError"):
        run_isolated("benchmarks.peers.workloads:no_such_name", {}, timeout=600)
