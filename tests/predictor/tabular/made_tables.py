"""Small made-up tables with the arrays of the published ones."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from metadarts.core.rng import Key
from metadarts.predictor.tabular.learner import Recipe
from metadarts.predictor.tabular.study import Settings
from metadarts.predictor.tabular.tables import FAMILIES, METRICS

TINY = Settings(
    seeds=1,
    shots=(0, 4),
    losses=("pairs",),
    scratch_steps=(3, 6),
    draws=1,
    trees=3,
    recipe=Recipe(width=6, meta_steps=4, inner_steps=1, episodes=2, queries=6),
)
"""Enough to run every part, not to learn."""


def transnas_arrays(size: int = 30) -> dict[str, Any]:
    """``size`` macro and as many micro architectures, whose worth on a task is a sum over their digits, with noise."""
    noise = Key.from_seed(0).child("made table").numpy()
    macro = ["".join(code) for code in product("1234", repeat=4)]
    micro = ["".join(code) for code in product("0123", repeat=6)]
    macro = [macro[row] for row in Key.from_seed(1).choose(len(macro), size)]
    micro = [micro[row] for row in Key.from_seed(2).choose(len(micro), size)]
    names = [f"64-{code}-basic" for code in macro] + [f"64-41414-{c[0]}_{c[1:3]}_{c[3:]}" for c in micro]
    digits = np.array([sum(map(int, code)) for code in macro + micro], dtype=np.float64)
    arrays: dict[str, Any] = {"arch": np.array(names), "is_micro": np.arange(2 * size) >= size}
    for number, (task, metric) in enumerate(METRICS.items()):
        valid = digits + number * noise.standard_normal(2 * size)
        test = valid + 0.1 * noise.standard_normal(2 * size)
        arrays[task] = np.stack([test * 0, valid, test], axis=1).astype(np.float32)
        arrays[f"{task}_cols"] = np.array(["time_elapsed", f"valid_{metric}", f"test_{metric}"])
    return arrays


def latency_arrays(size: int = 40) -> dict[str, Any]:
    """``size`` cells on the 27 devices; the first two are near zero on pixel3, the second on raspi4 too."""
    noise = Key.from_seed(0).child("made latencies").numpy()
    codes = np.array(list(product(range(5), repeat=6)), dtype=np.uint8)[Key.from_seed(3).choose(5**6, size)]
    devices = sorted(name for family in FAMILIES.values() for name in family)
    work = (codes.astype(np.float64) ** 2).sum(1) + 1
    latency = work[:, None] * noise.uniform(0.5, 1.5, (size, len(devices))) + 1
    latency[:2, devices.index("pixel3")] = 1e-3
    latency[1, devices.index("raspi4")] = 1e-3
    return {
        "ops": codes,
        "op_names": np.array(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]),
        "latency": latency.astype(np.float32),
        "latency_devices": np.array(devices),
        "flops_M": np.repeat(work[:, None], 3, axis=1).astype(np.float32),
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path
