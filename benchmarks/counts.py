"""The least arithmetic and the least bytes of our operators, by pass, and of the whole of workload W1.

Arithmetic: a multiply-add counts two, any other addition, subtraction, multiplication or comparison one. Only what the
formulas ask for when every intermediate result is kept counts: what a kernel computes anew to save memory does not.
Bytes: every tensor that a pass is given or gives (`op.py`: what derivatives need is among them) once, in float32; what
passes through memory in between, or more often, does not. So both are lower bounds, as a roofline wants them (Williams
et al., CACM 2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from metadarts.networks import CellBlock, Network, Stem

BYTES = 4
PASSES = ("forward", "gradient", "second", "pulled")
"""forward; its gradient, itself differentiable; the derivative of the gradient; and what that one hands to the
forward's outputs, pulled back to the inputs: the arithmetic of a gradient with more to read."""

# Per element of the normalised map. forward: a sum (1), a centred sum of squares (1 + 2), centring and scaling (2).
# gradient, u = r (g - mean g - y mean(g y)): two sums (1 + 2), g - a (1), - y b (2), times r (1). second, for upstream
# v of u: d_g is a gradient of v (7), d_y = -r (mean(g y) v + mean(v y) g) takes 3, d_r = <v, g - ...> another sum (2).
NORMALISE = {"forward": 6, "gradient": 7, "second": 12, "pulled": 7}


class Cost(NamedTuple):
    """Floating-point operations and bytes."""

    flops: int
    bytes: int

    def times(self, count: int) -> Cost:
        """This cost ``count`` times."""
        return Cost(self.flops * count, self.bytes * count)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum."""
    costs = list(costs)
    return Cost(sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs))


def _cost(flops: int, *numbers: int) -> Cost:
    return Cost(flops, BYTES * sum(numbers))


@dataclass(frozen=True)
class Separable:
    """One call of `metadarts.ops.separable`; ``kernel`` 0 is a projection. ``own``: edges of its input, 1 or E."""

    tasks: int
    edges: int
    images: int
    size: int
    channels: int
    outer: int
    kernel: int
    stride: int = 1
    own: int = 1
    dilation: int = 1
    name: str = "separable"

    def costs(self) -> dict[str, Cost]:
        """Pass -> cost."""
        groups, taps = self.tasks * self.edges, self.kernel**2
        outputs = groups * self.images * (-(-self.size // self.stride)) ** 2
        x = self.tasks * self.own * self.images * self.size**2 * self.channels
        y, d, r = outputs * self.outer, outputs * self.channels, groups * self.outer
        weights = groups * self.channels * (taps + self.outer)
        shares = self.tasks * self.images
        depthwise, product = 2 * d * taps, 2 * d * self.outer
        norm = {name: count * y for name, count in NORMALISE.items()}
        inputs = (x, weights, shares, y, r, d)
        given = (x, weights, y, *inputs)  # upstream of the gradients, g, and all that
        moved = x if self.kernel else 0  # without taps there is no way from their derivative to x
        gradient = 2 * depthwise + 2 * product + norm["gradient"]
        return {
            "forward": _cost(depthwise + product + norm["forward"], x, weights, shares, y, r, d),
            "gradient": _cost(gradient, y, *inputs, x, weights, d),
            # pushed = F(vx) + F'(v_taps), its taps' and its input's gradient; two products, two outer ones
            "second": _cost(4 * depthwise + 4 * product + norm["second"], *given, d, y, moved, weights, y, r, d),
            "pulled": _cost(gradient + d, y, r, d, *inputs, x, weights),
        }


@dataclass(frozen=True)
class Pool:
    """One call of `metadarts.ops.pool`; the window's nine pixels count nine, at the border too."""

    tasks: int
    images: int
    size: int
    channels: int
    kind: str
    stride: int = 1
    name: str = "pool"

    def costs(self) -> dict[str, Cost]:
        """Pass -> cost."""
        x = self.tasks * self.images * self.size**2 * self.channels
        y = self.tasks * self.images * (-(-self.size // self.stride)) ** 2 * self.channels
        r, shares = self.tasks * self.channels, self.tasks * self.images
        which = y if self.kind == "max" else 0
        spread = y if self.kind == "max" else 9 * y  # one pixel, or all of the window
        norm = {name: count * y for name, count in NORMALISE.items()}
        return {
            "forward": _cost(9 * y + norm["forward"], x, shares, y, r, which),
            "gradient": _cost(spread + norm["gradient"], y, y, r, which, shares, x),
            "second": _cost(spread - which + norm["second"], x, y, y, r, which, shares, y, y, r),
            "pulled": _cost(spread + norm["pulled"], y, r, y, r, which, shares, x),
        }


@dataclass(frozen=True)
class Mix:
    """One call of `metadarts.ops.mix` on K candidates, ``shared`` of which all edges have in common."""

    tasks: int
    edges: int
    images: int
    size: int
    channels: int
    candidates: int
    shared: int
    name: str = "mix"

    def costs(self) -> dict[str, Cost]:
        """Pass -> cost."""
        one = self.tasks * self.images * self.size**2 * self.channels
        out = self.edges * one
        y = (self.candidates - self.shared) * out + self.shared * one
        p = self.candidates * self.tasks * self.edges
        terms = self.candidates * out
        gather = self.shared * (self.edges - 1) * one  # what shared candidates get from all edges is added up
        return {
            "forward": _cost(2 * terms, p, y, out),
            "gradient": _cost(3 * terms + gather, out, p, y, p, y),
            # d_g: two multiply-adds; d_p: one; d_y: a product
            "second": _cost(7 * terms + gather, p, y, out, p, y, out, p, y),
            "pulled": Cost(0, 0),  # autograd adds up what reaches p and y; nothing is left to pull back
        }


@dataclass(frozen=True)
class ConvBlock:
    """One call of `metadarts.ops.conv_block`; ``first``: nothing asks for the gradient of its input."""

    tasks: int
    images: int
    size: int
    channels: int
    outer: int
    kernel: int
    first: bool = False
    name: str = "conv_block"

    def costs(self) -> dict[str, Cost]:
        """Pass -> cost."""
        maps = self.tasks * self.images
        x, u = maps * self.size**2 * self.channels, maps * self.size**2 * self.outer
        y = maps * (self.size // 2) ** 2 * self.outer
        weight, few = self.tasks * self.outer * self.channels * self.kernel**2, self.tasks * self.outer
        convolution, moves = 2 * u * self.channels * self.kernel**2, not self.first
        norm = {name: count * u for name, count in NORMALISE.items()}
        inputs = (x, weight, few, maps, u, few, y)  # x, weight, scale, shares, normed, r, which
        gradient = (1 + moves) * convolution + norm["gradient"] + 4 * y
        given = (y, *inputs, u, weight, few, few)  # g and all that, and gu; upstream of weight, scale and bias
        return {
            # per window of four: scale and bias (2 each), three comparisons
            "forward": _cost(convolution + norm["forward"] + 2 * u + 3 * y, x, weight, 2 * few, maps, y, u, few, y),
            # through the pool: g times scale, into its pixel; scale's and bias's gradient
            "gradient": _cost(gradient, y, *inputs, moves * x, weight, 2 * few, u),
            # with v_x: two convolutions more, its own and the weight's gradient
            "second": _cost(
                (1 + 3 * moves) * convolution + norm["second"] + 6 * y,
                *given, moves * x, y, moves * x, weight, few, u, few,
            ),
            "pulled": _cost(gradient, y, u, few, *inputs, moves * x, weight, 2 * few),
        }  # fmt: skip


Call = Separable | Pool | Mix | ConvBlock


def calls(network: Network, tasks: int, images: int, size: int) -> list[Call]:
    """The operators that one pass of a supernet over ``images`` images a task calls, in order of the cells."""
    stem = next(block for block in network.blocks if isinstance(block, Stem))
    found: list[Call] = [
        ConvBlock(tasks, images, size >> stage, before, after, 3, first=stage == 0)
        for stage, (before, after) in enumerate(pairwise(stem.channels))
    ]
    size >>= stem.stages
    for cell in network.cells:
        found += [Separable(tasks, 1, images, size, channels, cell.channels, 0) for channels in cell.inputs]
        after = -(-size // 2) if cell.kind == "reduce" else size
        for source in range(len(cell.inputs) + cell.nodes):
            found += _bundle(cell, source, tasks, images, size if source < len(cell.inputs) else after)
        size = after
    return found


def _bundle(cell: CellBlock, source: int, tasks: int, images: int, size: int) -> list[Call]:
    running = list(cell.running[source])
    edges = len(cell.targets[source][running[0]]) if running else 0
    return bundle(running, tasks, edges, images, size, cell.channels, cell.stride(source))


def bundle(
    running: list[str], tasks: int, edges: int, images: int, size: int, channels: int, stride: int
) -> list[Call]:
    """The candidates ``running`` on all edges from one source state, and their sum."""
    if not edges:
        return []
    found, after = (
        [call for name in running for call in _candidate(name, tasks, edges, images, size, channels, stride)],
        -(-size // stride),
    )
    shared = sum("pool" in name or (name == "skip_connect" and stride == 1) for name in running)
    return [*found, Mix(tasks, edges, images, after, channels, len(running), shared)]


def _candidate(name: str, tasks: int, edges: int, images: int, size: int, channels: int, stride: int) -> list[Call]:
    after = -(-size // stride)
    if "pool" in name:
        return [Pool(tasks, images, size, channels, name[:3], stride)]
    if name == "skip_connect":
        half = Separable(tasks, edges, images, after, channels, channels // 2, 0)
        return [half, half] if stride == 2 else []
    kernel = int(name[-1])
    dilation = 2 if name.startswith("dil") else 1
    one = Separable(tasks, edges, images, size, channels, channels, kernel, stride, dilation=dilation)
    if name.startswith("dil"):
        return [one]
    return [one, Separable(tasks, edges, images, after, channels, channels, kernel, own=edges)]


def meta_step(
    network: Network, tasks: int, support: int, query: int, size: int, steps: int
) -> dict[tuple[str, str], Cost]:
    """(operator, pass) -> cost of one exact meta-gradient: ``steps`` inner steps, the query pass, back through all."""
    inner, outer = calls(network, tasks, support, size), calls(network, tasks, query, size)
    found = {}
    for name in sorted({call.name for call in inner}):
        for part in PASSES:
            costs = [call.costs()[part].times(steps) for call in inner if call.name == name]
            if part in ("forward", "gradient"):
                costs += [call.costs()[part] for call in outer if call.name == name]
            found[name, part] = total(costs)
    return found
