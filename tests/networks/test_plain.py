"""The folded supernet against DARTS written the plain way: one task, one edge, one candidate at a time, NCHW.

Nothing here is shared with metadarts.networks but the names of the tensors.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.rng import Key
from metadarts.networks import discrete_network
from metadarts.spaces import darts, random_genotype
from metadarts.testing import check_close, generic_params, random_tasks, tiny_learner


def norm(x, params=None, name="", row=None):
    weight, bias = ((params or {}).get(f"{name}.{part}") for part in ("weight", "bias"))
    if row is not None and weight is not None:
        weight, bias = weight[row], bias[row]
    return F.batch_norm(x, None, None, weight, bias, training=True)


def separable(x, params, row, half, stride, dilation):
    depthwise, pointwise = params[f"depthwise{half}"][row], params[f"pointwise{half}"][row]
    pad = dilation * (depthwise.shape[-1] // 2)
    x = F.conv2d(F.relu(x), depthwise.unsqueeze(1), None, stride, pad, dilation, groups=x.shape[1])
    x = F.conv2d(x, pointwise.T[:, :, None, None])
    return norm(x, params, f"norm{half}", row)


def candidate(name, x, params, row, stride, pool_norm):
    if name == "none":
        return 0.0
    if name.endswith("pool_3x3"):
        y = (
            F.max_pool2d(x, 3, stride, 1)
            if name.startswith("max")
            else F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        )
        return norm(y) if pool_norm else y
    if name == "skip_connect":
        if stride == 1:
            return x
        x = F.relu(x)
        odd = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        halves = [
            F.conv2d(y, params[part][row].T[:, :, None, None], None, 2) for y, part in ((x, "even"), (odd, "odd"))
        ]
        return norm(torch.cat(halves, dim=1), params, "norm", row)
    if name.startswith("dil"):
        return separable(x, params, row, 1, stride, 2)
    return separable(separable(x, params, row, 1, stride, 1), params, row, 2, 1, 1)


def under(params, prefix):
    return {name[len(prefix) :]: tensor for name, tensor in params.items() if name.startswith(prefix)}


def rows_of(edges, kind):
    """(edge, stride) -> its row in the candidate's tensor of that stride: by source state, then by node."""
    table = {}
    for stride in (1, 2):
        own = [
            e
            for e in sorted(edges, key=lambda e: (e[1], e[0]))
            if (2 if kind == "reduce" and e[1] < 2 else 1) == stride
        ]
        table |= {edge: (row, stride) for row, edge in enumerate(own)}
    return table


def cell(kind, params, inputs, choices, concat, pool_norm):
    """``choices``: primitive -> {edge: weight}."""
    states = []
    for index, x in enumerate(inputs):
        x = F.conv2d(F.relu(x), params[f"preprocess{index}.conv"].T[:, :, None, None])
        states.append(norm(x, params, f"preprocess{index}.norm"))
    while len(states) <= max(concat):
        node, total = len(states) - 2, 0.0
        for name, weights in choices.items():
            for edge, (row, stride) in rows_of(weights, kind).items():
                if edge[0] == node:
                    own = under(params, f"{name}." if stride == 1 else f"{name}.stride2.")
                    total = total + weights[edge] * candidate(name, states[edge[1]], own, row, stride, pool_norm)
        states.append(total)
    return torch.cat([states[state] for state in concat], dim=1)


def embed(learner, params, images, choices_of):
    x = images
    for index in (1, 2):
        x = F.relu(x) if index == 2 else x
        x = norm(F.conv2d(x, params[f"stem.conv{index}"], padding=1), params, f"stem.norm{index}")
        x = F.max_pool2d(x, 2)
    before, spec = x, learner.network.spec
    for index, kind in enumerate(spec.cells):
        if before.shape[2:] != x.shape[2:]:
            before = before[:, :, ::2, ::2]
        choices, concat = choices_of(kind)
        before, x = x, cell(kind, under(params, f"cells.{index}."), [before, x], choices, concat, spec.pool_norm)
    return x.mean((2, 3))


def mixed(space, params):
    def choices_of(kind):
        table = params[f"alphas.{kind}"].softmax(-1)
        return {
            name: {edge: table[row, column] for row, edge in enumerate(space.edges)}
            for column, name in enumerate(space.primitives)
        }, space.concat

    return choices_of


def chosen(genotype):
    def choices_of(kind):
        table = {}
        for node, source, name in genotype.choices(kind):
            table.setdefault(name, {})[(node, source)] = 1.0
        return table, genotype.concat(kind)

    return choices_of


def gradients(y, leaves, upstream):
    """Zero for what is not used: the alphas of a kind that the network has no cell of."""
    return torch.autograd.grad(y, list(leaves), upstream, allow_unused=True, materialize_grads=True)


SPECS = [
    {},
    {"affine": True},
    {"pool_norm": False},
    {"affine": True, "cells": ("normal", "reduce", "normal", "reduce")},
    {"cells": ("reduce", "reduce")},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("size", [12, 20])
def test_supernet_is_darts_written_plainly(spec, size):
    """Values, and the gradient of every parameter. 20 pixels: cells on maps of 5 and 3."""
    learner = tiny_learner(nodes=3, **spec)
    images = random_tasks(Key.from_seed(2), size=size).support_images
    tasks = [generic_params(learner, Key.from_seed(seed)) for seed in range(2)]
    together = {name: torch.stack([t[name] for t in tasks]).requires_grad_() for name in tasks[0] if "head" not in name}
    folded = learner.network.embed(together, images)
    upstream = torch.randn(folded.shape, dtype=torch.float64, generator=Key.from_seed(3).torch())
    grads = dict(zip(together, gradients(folded, together.values(), upstream), strict=True))
    for index in range(2):
        leaves = {name: tensor[index].detach().requires_grad_() for name, tensor in together.items()}
        plain = embed(learner, leaves, images[index], mixed(learner.network.space, leaves))
        check_close(f"features of task {index}", folded[index], plain, 1e-11)
        for name, grad in zip(leaves, gradients(plain, leaves.values(), upstream[index]), strict=True):
            check_close(f"gradient of {name} of task {index}", grads[name][index], grad, 1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spec", [SPECS[2], SPECS[3]], ids=str)
def test_discrete_network_is_its_genotype_written_plainly(spec, seed):
    learner = tiny_learner(nodes=3, **spec)
    genotype = random_genotype(darts(3), Key.from_seed(seed))
    network = discrete_network(genotype, darts(3), learner.network.spec)
    own = {name: tensor.double() for name, tensor in network.init(Key.from_seed(seed)).items()}
    images = random_tasks(Key.from_seed(2)).support_images[0]
    check_close("features", network.embed(own, images), embed(learner, own, images, chosen(genotype)), 1e-11)
