"""4CONV (a network without cells) against plain torch, its counts, and its meta-gradient against differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, is_alpha
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, Network, NetworkSpec, supernet
from metadarts.spaces import darts
from metadarts.testing import ENGINES, check_close, check_params_close, clean_difference, generic_params, random_tasks

INNER = InnerLoop(steps=2, weight_rate=0.05)
MAML_BIASES = 4 * 32
"""Biases of MAML's convolutions: a batch norm behind each takes them out again, so ours has none."""


def conv4(channels: int = 4, size: int = 16, images: int = 1, head: str = "shared", **more) -> Network:
    spec = NetworkSpec(in_channels=images, stem=(channels,) * 4, cells=(), head=head, flat=(size // 16) ** 2, **more)
    return supernet(darts(2), spec)


@pytest.fixture(scope="module", params=["shared", "prototype"])
def learner(request) -> Learner:
    return Learner(conv4(head=request.param), precision="fp64")


@pytest.fixture(scope="module")
def params(learner) -> Params:
    return generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="module")
def batch() -> TaskBatch:
    return random_tasks(Key.from_seed(0), size=16)


def plain(params: Params, images: torch.Tensor, flat: bool = True) -> torch.Tensor:
    """[N, C, H, W] -> [N, F], written as MAML's section 5.2 has it: convolution, batch norm, ReLU, 2x2 max pooling."""
    x = images
    for block in (1, 2, 3, 4):
        x = F.conv2d(x, params[f"stem.conv{block}"], padding=1)
        x = F.batch_norm(
            x, None, None, params[f"stem.norm{block}.weight"], params[f"stem.norm{block}.bias"], training=True
        )
        x = F.max_pool2d(F.relu(x), 2)
    return x.permute(0, 2, 3, 1).flatten(1) if flat else x.mean((2, 3))


@pytest.mark.parametrize(("size", "images"), [(16, 1), (28, 1), (32, 3), (39, 3)], ids=["16", "28", "32", "odd"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "mean"])
def test_it_is_four_blocks_of_plain_torch(size, images, flat):
    """Values and the gradients of all parameters, at sizes that halve evenly and at those that do not."""
    network = conv4(size=size, images=images)
    if not flat:
        network = replace(network, spec=replace(network.spec, flat=0))
    point = generic_params(Learner(network, precision="fp64"), Key.from_seed(2))
    body = {name: tensor for name, tensor in point.items() if not name.startswith("head.")}
    x = torch.randn(6, images, size, size, dtype=torch.float64, generator=Key.from_seed(3).torch())
    ours, theirs = ({name: t.clone().requires_grad_() for name, t in body.items()} for _ in range(2))
    found, expected = network.embed(ours, x), plain(theirs, x, flat)
    assert found.shape == (6, network.features)
    check_close("features", found, expected, 1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=Key.from_seed(4).torch())
    grads = [
        torch.autograd.grad((out * weights).sum(), list(of.values())) for out, of in ((found, ours), (expected, theirs))
    ]
    check_params_close(*(dict(zip(body, grad, strict=True)) for grad in grads), 1e-10)


def test_with_a_task_axis_it_is_one_network_per_task(learner, batch):
    tasks = [generic_params(learner, Key.from_seed(seed)) for seed in (0, 1)]
    stacked = {name: torch.stack([task[name] for task in tasks]) for name in tasks[0]}
    together = learner.network.embed(stacked, batch.support_images)
    for index, task in enumerate(tasks):
        check_close(f"task {index}", together[index], plain(task, batch.support_images[index]), 1e-12)


@pytest.mark.parametrize(
    ("size", "images", "weights"), [(28, 1, 28_485), (84, 3, 32_901)], ids=["Omniglot", "miniImageNet"]
)
def test_it_counts_what_maml_counts(size, images, weights):
    """112,448 and 32,901 are quoted for filters of 64 and 32; these are 32 filters, 5-way, without needless biases."""
    network = conv4(channels=32, size=size, images=images)
    assert network.count(ways=5) == (weights - MAML_BIASES, 0)
    body = [tensor.numel() for name, tensor in network.init(Key.from_seed(0)).items() if not name.startswith("head.")]
    assert sum(body) + 5 * (network.features + 1) == weights - MAML_BIASES


def test_it_has_no_alphas(learner):
    assert not learner.network.mixes
    assert not any(map(is_alpha, learner.network.shapes()))
    assert not any(name.startswith("cells.") for name in learner.network.shapes())
    assert learner.network.features == 4


def query_loss(learner: Learner, point: Params, batch: TaskBatch, inner: InnerLoop) -> torch.Tensor:
    own = {name: tensor.expand(batch.tasks, *tensor.shape) for name, tensor in point.items()}
    adapted = adapt(learner.support_loss, learner.start(own, batch), batch, inner)
    return learner.query_loss(adapted.params, batch)[0].mean()


def error_along(learner, gradients, point, batch, inner, names) -> float:
    """The relative error of the gradient along the first direction over ``names`` without a kink within h."""
    for seed in range(8):
        generator = Key.from_seed(seed).child("direction").torch()
        direction = {
            name: (point[name].std() if point[name].numel() > 1 else 1.0)
            * torch.randn(point[name].shape, dtype=torch.float64, generator=generator)
            for name in names
        }

        def moved(step: float, direction: Params = direction) -> float:
            there = point | {name: point[name] + step * along for name, along in direction.items()}
            return float(query_loss(learner, there, batch, inner))

        difference = clean_difference(moved)
        if difference is not None:
            return difference.relative_error(sum(float((gradients[n] * d).sum()) for n, d in direction.items()))
    raise AssertionError("every direction has a kink within the smallest h")


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_its_exact_meta_gradient_equals_central_differences(learner, params, batch, bn):
    learner = replace(learner, bn=bn)
    gradients = meta_gradient(learner, params, batch, INNER).gradients
    assert set(gradients) == set(params)
    assert error_along(learner, gradients, params, batch, INNER, list(params)) < 1e-6
    if learner.network.spec.head == "prototype":
        assert error_along(learner, gradients, params, batch, INNER, ["head.scale"]) < 1e-6
    else:  # what is added to all rows alike never reaches a softmax
        assert float(gradients["head.vector"].abs().max()) < 1e-12


def test_the_differences_see_a_gradient_of_first_order(learner, params, batch):
    first = meta_gradient(learner, params, batch, replace(INNER, order="first")).gradients
    assert error_along(learner, first, params, batch, INNER, list(params)) > 1e-3


def test_the_meta_gradient_without_inner_steps_is_that_of_plain_training(learner, params, batch):
    """What ProtoNet is trained by."""
    none = InnerLoop(steps=0)
    gradients = meta_gradient(learner, params, batch, none).gradients
    own = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    found = torch.autograd.grad(query_loss(learner, own, batch, none), list(own.values()), allow_unused=True)
    expected = {n: torch.zeros_like(params[n]) if g is None else g for n, g in zip(own, found, strict=True)}
    check_params_close(gradients, expected, 1e-10)
    copied = learner.network.spec.head == "shared"  # one row for every class: the body cannot matter before a step
    assert bool(gradients["stem.conv1"].any()) is not copied


@pytest.mark.parametrize("order", ["second", "first"])
def test_three_engines_agree(learner, params, batch, order):
    inner = replace(INNER, order=order)
    expected = meta_gradient(learner, params, batch, inner)
    for engine in ("loop", "higher"):
        found = meta_gradient(learner, params, batch, inner, engine=ENGINES[engine])
        check_params_close(found.gradients, expected.gradients, 1e-9)
        check_close("losses", found.losses, expected.losses, 1e-9)


@pytest.mark.parametrize("size", [8, 15])
def test_images_too_small_are_refused(size):
    network = conv4()
    with pytest.raises(NumericsError, match=rf"4 convolutional blocks .* at least 16x16 pixels, got {size}x{size}"):
        network.embed(network.init(Key.from_seed(0)), torch.zeros(4, 1, size, size))


def test_one_image_of_one_last_pixel_is_refused():
    network = conv4()
    with pytest.raises(NumericsError, match=r"at least 2 values per channel, got 1 image\(s\) with a last map of 1x1"):
        network.embed(network.init(Key.from_seed(0)), torch.zeros(1, 1, 16, 16))


def test_faults_of_the_spec_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"network.flat: expected 0, or positions where there are no cells, got 4"):
        NetworkSpec(flat=4)
    with pytest.raises(ConfigError, match=r"network.flat: expected 0.* got -1"):
        NetworkSpec(cells=(), flat=-1)
    with pytest.raises(ConfigError, match=r"network.stem: expected the channels of at least one convolution, got \(\)"):
        NetworkSpec(cells=(), stem=())
    with pytest.raises(ConfigError, match=r"network.stem: .* got \(4, 0\)"):
        NetworkSpec(cells=(), stem=(4, 0))


def test_a_row_of_one_block_is_a_network_too():
    """`NetworkSpec` asks for at least one convolution: without cells, one is enough."""
    network = supernet(darts(2), NetworkSpec(in_channels=1, stem=(6,), cells=()))
    point = network.init(Key.from_seed(0))
    x = torch.randn(3, 1, 4, 4, generator=Key.from_seed(1).torch())
    assert network.embed(point, x).shape == (3, 6)
