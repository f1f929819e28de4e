"""The sentence that a gate ends with."""

from __future__ import annotations

from metadarts.stats import Estimate
from metadarts.stats.components import Components

NEGLIGIBLE = 0.005
"""An accuracy gain up to which choosing by task is not worth a search."""


def verdict(parts: Components, domains: int) -> str:
    """Whether choosing the operation by domain or task can help, and at most by how much."""
    gain, level = (parts.domain_gain, "domain") if domains > 1 else (parts.task_gain, "task")
    words = f"the best operation of each {level} against the best for all: {points(gain)}"
    most = f"no choice of operations by task can give more than {points(parts.most, '')}"
    if parts.most.high < NEGLIGIBLE:
        return f"No: {words}; {most}. A search for architectures of tasks cannot help here."
    if gain.low > NEGLIGIBLE:
        return f"Yes: {words}; {most}."
    if gain.high < NEGLIGIBLE and domains > 1:
        return f"Not by {level}: {words}; {most}."
    return f"Not shown: {words}; {most}. With more tasks or seeds the interval is narrower."


def points(estimate: Estimate, sign: str = "+") -> str:
    """In percentage points, with its interval."""
    return f"{estimate.scaled(100).text(1, sign)} points"
