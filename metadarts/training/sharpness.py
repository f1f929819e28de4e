"""Records of how far the alphas have chosen, as panels over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metadarts.spaces import Decision, SearchSpace
from metadarts.viz import Dash, Panel, Series

from .lenient import as_number, as_step
from .recording import IN_USE

NAMES = {"normal": "normal cell", "reduce": "reduction cell"}
MEASURES = ("entropy", "margin")
COLORS = ("#1f5fa8", "#2f7d4f", "#b3541e", "#b0307a")
LEAST_SPAN = 0.1
SAME = 1e-6
"""Final scores that differ by less from the weights in use are not drawn beside them."""


def measures(record: Mapping[str, Any]) -> dict[str, float]:
    """The step of a record of kind "train" or "alphas", and its entropies and margins; empty without a step."""
    step = as_step(dict(record))
    if step is None:
        return {}
    starts = tuple(f"{start}{measure}_" for start in ("", IN_USE) for measure in MEASURES)
    named = {name: as_number(value) for name, value in record.items() if name.startswith(starts)}
    return {"step": float(step), **{name: value for name, value in named.items() if value is not None}}


def sharpness_panels(found: Sequence[Mapping[str, float]], space: SearchSpace) -> list[Panel]:
    """Entropy and margin by decision over the run, from what `measures` gives for each record, in order.

    Solid are the mixing weights in use, dashed the final scores where they differ. Entropies are shares of that of even
    weights, so that decisions with few and with many candidates share an axis. Of the decisions on the inputs of a
    cell's nodes the mean is shown; a decision with one candidate is left out. Empty where nothing was recorded.
    """
    panels = []
    for measure, label in (("entropy", "entropy, share of even weights'"), ("margin", "margin of the first candidate")):
        lines: dict[str, Series] = {}
        for (name, decisions), color in zip(_groups(space).items(), COLORS, strict=False):
            lines |= _lines(found, name, measure, decisions, color)
        if lines:
            panels.append(Panel(label, lines, span=LEAST_SPAN))
    return panels


def _lines(
    found: Sequence[Mapping[str, float]], name: str, measure: str, decisions: Sequence[Decision], color: str
) -> dict[str, Series]:
    """The line ``name`` and, where they say something else, the final scores' (whose name keeps it off the legend)."""
    used = _points(found, IN_USE + measure, decisions)
    final = _points(found, measure, decisions)
    if not used:
        return {name: _series(final, color, "-")} if final else {}
    lines = {name: _series(used, color, "-")}
    if any(abs(value - used[step]) > SAME for step, value in final.items() if step in used):
        lines[f"_{name}, final scores"] = _series(final, color, "--")
    return lines


def _points(found: Sequence[Mapping[str, float]], field: str, decisions: Sequence[Decision]) -> dict[float, float]:
    """Step -> mean over the decisions; steps that lack one of them are left out."""
    points = {}
    for record in found:
        values = [
            record.get(f"{field}_{d.name}", math.nan) / (math.log(len(d.candidates)) if "entropy" in field else 1.0)
            for d in decisions
        ]
        mean = sum(values) / len(values)
        if math.isfinite(mean):
            points[record["step"]] = mean
    return points


def _series(points: Mapping[float, float], color: str, dash: Dash) -> Series:
    return Series(list(points), list(points.values()), color=color, dash=dash)


def _groups(space: SearchSpace) -> dict[str, list[Decision]]:
    """What one line shows -> its decisions."""
    groups: dict[str, list[Decision]] = {}
    for decision in space.decisions:
        if len(decision.candidates) > 1:
            name = NAMES[decision.cell] + (", inputs" if decision.node is not None else "")
            groups.setdefault(name, []).append(decision)
    return groups
