"""A benchmark's table as what is asked of it: which tasks there are, what each architecture is worth on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.stats import Values
from metadarts.tasks.cache import UnreadableFile, read_npz

from .encoding import Features, encode_cells, encode_macro, encode_micro

METRICS = {
    "class_object": "top1",
    "class_scene": "top1",
    "jigsaw": "top1",
    "room_layout": "neg_loss",
    "autoencoder": "ssim",
    "normal": "ssim",
    "segmentsemantic": "mIoU",
}
"""The tasks of TransNAS-Bench-101 and what its paper compares architectures by (Duan et al., CVPR 2021); more is
better."""

FAMILIES = {
    "GPU, batch 1": ("1080ti_1", "2080ti_1", "titan_rtx_1", "titanx_1", "titanxp_1"),
    "GPU, batch 32": ("1080ti_32", "2080ti_32", "titan_rtx_32", "titanx_32", "titanxp_32"),
    "GPU, batch 256": ("1080ti_256", "2080ti_256", "titan_rtx_256", "titanx_256", "titanxp_256"),
    "CPU": ("gold_6226", "gold_6240", "silver_4114", "silver_4210r"),
    "phone or embedded": ("essential_ph_1", "pixel2", "pixel3", "raspi4", "samsung_a50", "samsung_s7"),
    "accelerator": ("eyeriss", "fpga"),
}
"""The devices of the latency table. ``_1`` of essential_ph_1 is the phone's name, not a batch size."""

ALL_GPUS = "GPU, every batch size"
"""Held out too, as the same cards at other batch sizes stay among the training devices of the three GPU families."""

NEAR_ZERO = 0.02
"""A latency below this share of the device's median is no measurement of a network: nothing of it was left to run."""

TRANSNAS_ARRAYS = ("arch", "is_micro", *METRICS, *(f"{task}_cols" for task in METRICS))
LATENCY_ARRAYS = ("ops", "op_names", "latency", "latency_devices", "flops_M")


@dataclass(frozen=True, eq=False)
class Bench:
    """N architectures measured on n tasks (of the latency table: devices).

    Args:
        name: of the search space.
        encoding: [N, F].
        tasks: n names.
        units: n names of what is measured.
        valid: [n, N] what is selected by.
        test: [n, N] what is reported; of latencies the same as ``valid``.
        groups: numbers of the tasks that are held out together, by the group's name; they may overlap.
        by_rank: whether tasks are compared by ranks alone, as their units differ; else by standardised values.
        facts: by name [N], what is known of an architecture without a measurement.
        remarks: what was done to the table.
    """

    name: str
    encoding: Features
    tasks: tuple[str, ...]
    units: tuple[str, ...]
    valid: Values
    test: Values
    groups: Mapping[str, tuple[int, ...]]
    by_rank: bool
    facts: Mapping[str, Values] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """N, the number of architectures."""
        return len(self.encoding)

    def scores(self) -> Values:
        """[n, N] every task's validation values on one scale: normal scores of ranks, or standardised values."""
        if self.by_rank:
            return np.stack([normal_scores(row) for row in self.valid])
        centred = self.valid - self.valid.mean(1, keepdims=True)
        return np.asarray(centred / self.valid.std(1, keepdims=True).clip(1e-12), dtype=np.float64)


def ranks(values: Values) -> Values:
    """[N] 0 for the lowest to N - 1 for the highest; equal values share the mean of their places."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts + 1) / 2)[place.reshape(values.shape)], dtype=np.float64)


def normal_scores(values: Values) -> Values:
    """[N] what a normal distribution would have at the values' ranks: comparable between tasks of any unit."""
    shares = (ranks(values) + 0.5) / len(values)
    return np.asarray(torch.special.ndtri(torch.from_numpy(shares)), dtype=np.float64)


def spearman(first: Values, second: Values) -> float:
    """Rank correlation, ties at their mean rank; 0 where either side is constant."""
    a, b = (ranks(side) - (len(side) - 1) / 2 for side in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def read_table(path: Path) -> list[Bench]:
    """The search spaces of TransNAS-Bench-101, or the devices of NAS-Bench-201, told apart by their arrays.

    Raises:
        DataError: when ``path`` is neither, or its arrays do not fit together.
    """
    try:
        arrays = read_npz(path)
    except UnreadableFile as error:
        raise DataError(f"cannot read {path}: {error}; give transnasbench101.npz or nasbench201_table.npz") from error
    wanted = next((kind for kind in (TRANSNAS_ARRAYS, LATENCY_ARRAYS) if arrays.keys() >= set(kind)), None)
    if wanted is None:
        raise DataError(
            f"{path}: expected the arrays of TransNAS-Bench-101 ({', '.join(TRANSNAS_ARRAYS[:3])}, ...) or of "
            f"NAS-Bench-201's latencies ({', '.join(LATENCY_ARRAYS)}), got {', '.join(sorted(arrays)[:8]) or 'none'}; "
            "give transnasbench101.npz or nasbench201_table.npz"
        )
    try:
        return _transnas(arrays) if wanted is TRANSNAS_ARRAYS else [_latency(arrays)]
    except (IndexError, ValueError, TypeError) as error:
        raise DataError(f"{path}: its arrays do not fit together ({error}); give the table as published") from error


def _transnas(arrays: Mapping[str, NDArray[np.generic]]) -> list[Bench]:
    micro = np.asarray(arrays["is_micro"], dtype=bool)
    found = []
    for name, rows, encode in (("macro", ~micro, encode_macro), ("micro", micro, encode_micro)):
        valid, test = (np.stack([_metric(arrays, task, side)[rows] for task in METRICS]) for side in ("valid", "test"))
        _require_finite(f"TransNAS-Bench-101 {name}", valid, test)
        tasks = tuple(METRICS)
        groups = {task: (number,) for number, task in enumerate(tasks)}
        texts = [str(text) for text in arrays["arch"][rows]]
        found.append(Bench(name, encode(texts), tasks, tuple(METRICS.values()), valid, test, groups, by_rank=True))
    return found


def _metric(arrays: Mapping[str, NDArray[np.generic]], task: str, side: str) -> Values:
    """[all architectures] the task's metric on validation or test images."""
    columns = [str(name) for name in arrays[f"{task}_cols"]]
    wanted = f"{side}_{METRICS[task]}"
    if wanted not in columns:
        raise DataError(f"{task}: expected a column {wanted}, got {', '.join(columns)}; give the table as published")
    return np.asarray(arrays[task][:, columns.index(wanted)], dtype=np.float64)


def _latency(arrays: Mapping[str, NDArray[np.generic]]) -> Bench:
    devices = [str(name) for name in arrays["latency_devices"]]
    missing = sorted({name for family in FAMILIES.values() for name in family} ^ set(devices))
    if missing:
        raise DataError(f"expected the 27 devices of the latency table; {missing[0]!r} is missing or unknown")
    latency = np.asarray(arrays["latency"], dtype=np.float64).T
    _require_finite("the latencies", latency)
    zero = latency < NEAR_ZERO * np.median(latency, axis=1, keepdims=True)
    kept = np.asarray(~zero.any(0))
    told = ", ".join(f"{devices[row]} {int(zero[row].sum())}" for row in np.flatnonzero(zero.any(1)))
    remark = (
        f"{int((~kept).sum())} architectures of {len(kept)} are left out on all devices, as some device has a latency "
        f"near zero for them, below {100 * NEAR_ZERO:g} % of its median ({told or 'none'})."
    )
    names = [str(name) for name in arrays["op_names"]]
    encoding = encode_cells(np.asarray(arrays["ops"], dtype=np.int64)[kept], len(names), names.index("none"))
    groups = {family: tuple(devices.index(name) for name in members) for family, members in FAMILIES.items()}
    groups[ALL_GPUS] = tuple(row for family, rows in groups.items() if family.startswith("GPU") for row in rows)
    value = np.log(latency[:, kept])
    flops = np.asarray(arrays["flops_M"], dtype=np.float64)[kept, 0]
    units = ("log of milliseconds",) * len(devices)
    return Bench("latency", encoding, tuple(devices), units, value, value, groups, False, {"FLOPs": flops}, (remark,))


def _require_finite(name: str, *values: Values) -> None:
    for side in values:
        if side.size == 0 or not np.isfinite(side).all():
            bad = int(side.size - np.isfinite(side).sum())
            raise DataError(f"{name}: expected finite values, got {bad} others of {side.size}; give the whole table")
