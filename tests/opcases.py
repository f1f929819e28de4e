"""Cases of the operators, for the tests of every implementation: on a CPU, and interpreted."""

from __future__ import annotations

import torch

from metadarts.testing import OpCase

Rows = torch.Tensor | list[list[float]] | None
"""[T, N], how much image n counts in task t's statistics, summing to 1 over n."""


def shares(*counts: list[float]) -> torch.Tensor:
    """[T, N] counts -> shares that sum to 1 over n."""
    rows = torch.tensor(counts, dtype=torch.float64)
    return rows / rows.sum(1, keepdim=True)


def _constants(rows: Rows) -> dict[str, torch.Tensor]:
    return {} if rows is None else {"rows": torch.as_tensor(rows, dtype=torch.float64)}


def separable_case(
    what: str,
    image: tuple[int, int, int],
    channels: tuple[int, int] = (3, 3),
    kernel: int = 3,
    tasks: int = 1,
    edges: int = 1,
    shared: bool = False,
    rows: Rows = None,
    needed: list[list[int]] | None = None,
    **options: float,
) -> OpCase:
    """``image`` is (N, H, W); kernel 0 is a projection, without a depthwise stage."""
    inputs = {"x": (tasks, 1 if shared else edges, *image, channels[0])}
    if kernel:
        inputs["depthwise"] = (tasks, edges, channels[0], kernel, kernel)
    inputs["pointwise"] = (tasks, edges, *channels)
    constants = _constants(rows)
    if needed is not None:
        constants["needed"] = torch.tensor(needed, dtype=torch.float64)
    return OpCase(what, inputs, constants, options)


def pool_case(what: str, size: tuple[int, int, int, int, int], rows: Rows = None, **options: float) -> OpCase:
    """``size`` is (T, N, H, W, C)."""
    return OpCase(what, {"x": size}, _constants(rows), options)


def conv_block_case(
    what: str,
    image: tuple[int, int, int],
    channels: tuple[int, int] = (2, 3),
    kernel: int = 3,
    tasks: int = 1,
    rows: Rows = None,
    **options: float,
) -> OpCase:
    """``image`` is (N, H, W)."""
    inputs = {
        "x": (tasks, *image, channels[0]),
        "weight": (tasks, channels[1], channels[0], kernel, kernel),
        "scale": (tasks, channels[1]),
        "bias": (tasks, channels[1]),
    }
    return OpCase(what, inputs, _constants(rows), options)


def mix_case(what: str, image: tuple[int, int, int], tasks: int, edges: int, channels: int, shared: str) -> OpCase:
    """``image`` is (N, H, W). One candidate per letter of ``shared``: s is shared by all edges, o has one for each."""
    inputs = {"weights": (len(shared), tasks, edges)}
    for number, letter in enumerate(shared):
        inputs[f"y{number}"] = (tasks, 1 if letter == "s" else edges, *image, channels)
    return OpCase(what, inputs)


def mix_by_name(op, **options):
    """Operators are checked by named inputs and one tensor; mix takes a list and returns one tensor for each edge."""
    return lambda weights, **candidates: torch.stack(op(list(candidates.values()), weights, **options), 1)
