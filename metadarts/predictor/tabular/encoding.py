"""Architectures of the benchmarks as numbers: one row of features per architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError

Features = NDArray[np.float32]
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to) of the cells of NAS-Bench-201 and of TransNAS-Bench-101's micro space, in the order they are written."""
MODULES = 6
"""Most modules that a network of the macro space has."""
KINDS = 4
"""Of a module: as it is (1), channels doubled (2), resolution halved (3), both (4)."""
MICRO_OPERATIONS = 4
"""none (0), skip (1), 1x1 convolution (2), 3x3 convolution (3)."""


def encode_cells(operations: NDArray[np.int64], kinds: int, none: int) -> Features:
    """Cells of four nodes as [N, 13 * kinds]: every edge one-hot, the same of live edges alone, and their counts.

    An edge is live where its operation is not "none" and it lies on a way from the input to the output. What a dead
    edge holds changes nothing in what the network computes, though it may change how long that takes.

    Args:
        operations: [N, 6] codes from 0 on, edges as in `EDGES`.
        kinds: how many operations there are.
        none: the code of "none".
    """
    hot = np.eye(kinds, dtype=np.float32)[operations]
    live = _live(operations != none)
    alive = hot * live[:, :, None]
    counts = alive.sum(1) / len(EDGES)
    return np.concatenate([hot.reshape(len(hot), -1), alive.reshape(len(hot), -1), counts], axis=1)


def _live(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[N, 6] whether an edge lies on a way from node 0 to node 3 over edges that are there."""
    reached = np.zeros((len(present), 4), dtype=bool)
    useful = np.zeros_like(reached)
    reached[:, 0], useful[:, 3] = True, True
    for edge, (first, last) in enumerate(EDGES):
        reached[:, last] |= present[:, edge] & reached[:, first]
    for edge, (first, last) in reversed(list(enumerate(EDGES))):
        useful[:, first] |= present[:, edge] & useful[:, last]
    ways = [present[:, edge] & reached[:, first] & useful[:, last] for edge, (first, last) in enumerate(EDGES)]
    return np.stack(ways, axis=1)


def encode_micro(names: Sequence[str]) -> Features:
    """Names such as ``64-41414-1_02_333`` by `encode_cells`. Raises DataError on one that is none."""
    codes = [_digits(name, name.split("-")[-1].replace("_", ""), "0123", (len(EDGES),)) for name in names]
    return encode_cells(np.array(codes, dtype=np.int64), MICRO_OPERATIONS, none=0)


def encode_macro(names: Sequence[str]) -> Features:
    """Names such as ``64-12324-basic`` as [N, 45] features. Raises DataError on one that is none.

    Every module one-hot (with a fifth kind, "not there"), the number of modules one-hot, and after each module how
    often the channels were doubled and the resolution halved so far.
    """
    codes = np.zeros((len(names), MODULES), dtype=np.int64)
    for row, name in enumerate(names):
        digits = _digits(name, (name.split("-") + [""])[1], "1234", (MODULES - 2, MODULES - 1, MODULES))
        codes[row, : len(digits)] = digits
    hot = np.eye(KINDS + 1, dtype=np.float32)[codes]
    length = np.eye(3, dtype=np.float32)[(codes > 0).sum(1) - (MODULES - 2)]
    doubled = np.isin(codes, (2, 4)).cumsum(1) / KINDS
    halved = np.isin(codes, (3, 4)).cumsum(1) / KINDS
    return np.concatenate([hot.reshape(len(codes), -1), length, doubled, halved], axis=1).astype(np.float32)


def _digits(name: str, code: str, allowed: str, lengths: tuple[int, ...]) -> list[int]:
    if len(code) not in lengths or set(code) - set(allowed):
        raise DataError(
            f"architecture {name[:40]!r}: expected {' or '.join(map(str, lengths))} digits of {allowed}, got "
            f"{code[:20]!r}; give the benchmark's own table"
        )
    return [int(digit) for digit in code]
