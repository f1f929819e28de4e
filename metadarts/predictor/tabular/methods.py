"""The methods by name, in the order in which they are told."""

from __future__ import annotations

from . import baselines
from .baselines import Baseline

ALONE = "meta-model, encoding alone"
BESIDE = "meta-model, with the other tasks' values"
CHOSEN = "meta-model"
"""For each left-out group the one of the two that cross-validation over the training tasks prefers."""
SCRATCH = "network on the K alone"
RANDOM = "best of the K"

SIMPLE: dict[str, Baseline] = {
    "best on average": baselines.best_on_average,
    "nearest task": baselines.nearest_task,
    "ridge on the other tasks' values": baselines.ridge,
    "trees on the K alone": baselines.trees,
    "trees, with the other tasks' values": baselines.trees_on_others,
    "trees continued from the other tasks": baselines.trees_continued,
}
CHOICE: dict[str, Baseline] = {RANDOM: baselines.best_of_known} | SIMPLE
"""Baselines where an architecture is chosen."""
ORDER: dict[str, Baseline] = (
    {"FLOPs": baselines.by_fact("FLOPs")} | SIMPLE | {"random forest on the K alone": baselines.forest}
)
"""Baselines where all architectures are put in order."""

MEANINGS = {
    CHOSEN: "of the two below, for each left-out group the one that cross-validation over training tasks prefers",
    ALONE: "meta-learned network on the encoding, adapted to the K",
    BESIDE: "the same, which also weighs what the other tasks measured of an architecture",
    SCRATCH: "the same network from a random start, Adam, its steps by cross-validation",
    RANDOM: "the K are all there is: the best of them by validation; for K = 0 a random architecture",
    "FLOPs": "operations counted, nothing measured",
    "best on average": "mean rank on the other tasks, nothing measured",
    "nearest task": "the ranking of the other task (device) that orders the K most alike; for K = 0 best on average",
    "ridge on the other tasks' values": "linear in the other tasks' values, penalty by leave-one-out over the K",
    "trees on the K alone": "gradient-boosted trees on the encoding",
    "trees, with the other tasks' values": "gradient-boosted trees on the encoding and the other tasks' values",
    "trees continued from the other tasks": "boosted trees learn the other tasks, further ones what the K leave over",
    "random forest on the K alone": "100 trees on the encoding",
}
