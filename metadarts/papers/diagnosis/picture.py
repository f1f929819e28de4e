"""A diagnosis as one picture: what replacing the architecture costs, and whether it follows the task."""

from __future__ import annotations

from collections.abc import Iterable

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
                "start to adapted": shown.alphas_moved.ends,
                "same task, other images": control.within.ends,
                "two tasks": control.between.ends,
            },
        ),
    )
    facts = diagnosis.facts
    title = f"the task's own architecture? {facts['tasks']} {facts['split']} tasks of {facts['source']}"
    draw_ranges(panels, target, title=title)


def _changes(variants: Iterable[Variant]) -> dict[str, tuple[float, float, float]]:
    return {v.meaning: v.difference.scaled(100).ends for v in variants if v.difference is not None}
