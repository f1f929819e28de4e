"""A diagnosis as one picture: what replacing the architecture costs, and whether it follows the task."""

from __future__ import annotations

from collections.abc import Iterable

from metadarts.papers.statistics import Estimate
from metadarts.viz import Ranges, draw_ranges
from metadarts.viz._canvas import Target

from .figures import Diagnosis, Variant


def draw_diagnosis(diagnosis: Diagnosis, target: Target) -> None:
    """Write the picture to a .png or .svg file, or a `Picture`. Raises ConfigError for another ending."""
    control, shown = diagnosis.control.alphas, diagnosis.architecture
    panels = (
        Ranges("discrete cell: change in accuracy, points", _changes(diagnosis.discrete)),
        Ranges("supernet: change in accuracy, points", _changes(diagnosis.soft)),
        Ranges(
            "distance of alphas (total variation)",
            {
                "start to adapted": _ends(shown.alphas_moved, 1),
                "same task, other images": _ends(control.within, 1),
                "two tasks": _ends(control.between, 1),
            },
        ),
    )
    facts = diagnosis.facts
    title = f"the task's own architecture? {facts['tasks']} {facts['split']} tasks of {facts['source']}"
    draw_ranges(panels, target, title=title)


def _changes(variants: Iterable[Variant]) -> dict[str, tuple[float, float, float]]:
    return {v.meaning: _ends(v.difference, 100) for v in variants if v.difference is not None}


def _ends(estimate: Estimate, scale: float) -> tuple[float, float, float]:
    return scale * estimate.mean, scale * estimate.low, scale * estimate.high
