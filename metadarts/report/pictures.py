"""The curves of a report, each with its name and how to read it; what was not recorded is not drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from metadarts.spaces import SearchSpace
from metadarts.training.lenient import as_number, as_numbers
from metadarts.training.sharpness import measures, sharpness_panels
from metadarts.viz import (
    Panel,
    Picture,
    Plate,
    Series,
    draw_curve,
    draw_history,
    draw_intervals,
    draw_validations,
    plain,
    ramp,
)

from .records import KINDS, Records, finite, lists, rates, series

NAMED_RATES = 8
LEAST_SPAN = 0.1
"""Nats: entropies that differ by less are not worth a zoom."""
CURVES = {"curve_accuracy": "query accuracy", "curve_loss": "query loss"}


def learning(records: Records, ways: int) -> Iterator[Plate]:
    """Loss and accuracy over the meta-steps."""
    loss = series(records.train, "loss", noisy=True)
    accuracy = {
        "training tasks": series(records.train, "accuracy", noisy=True),
        "validation tasks": series(records.validate, "accuracy", interval="interval95"),
    }
    panels = []
    if loss:
        panels.append(Panel("query loss after adaptation", {"training tasks": loss}))
    if found := _there(accuracy):
        panels.append(Panel("query accuracy after adaptation", found, lines={f"chance, 1 in {ways}": 1 / ways}))
    if panels:
        yield Plate(
            _history(panels),
            "Learning curves",
            "Every point is measured after the inner steps, on query images. Left: the loss, which the search lowers. "
            "Right: training tasks (pale: single meta-batches, strong: running mean) and the fixed validation tasks "
            "with their 95 % interval. Training and validation tasks differ in classes and perhaps in inner steps and "
            "queries, so the distance of the curves is not overfitting alone.",
        )


def adaptation(records: Records) -> Iterator[Plate]:
    """What the inner loop gains, step by step, early and late in the run."""
    recorded = {label: lists(records.validate, field) for field, label in CURVES.items()}
    there = [{step for step, _ in found} for found in recorded.values() if found] or [set()]
    steps = sorted(set.intersection(*there))
    curves = {label: [curve for step, curve in found if step in steps] for label, found in recorded.items() if found}
    if steps:
        picture = Picture(".svg")
        draw_validations(steps, curves, picture)
        yield Plate(
            picture,
            "Adapting to validation tasks",
            "Each line is one validation, on the same tasks; the darker, the later in the run. At 0 stands the shared "
            "start before it has seen the task, to its right the same network after 1, 2, ... inner steps on the "
            "support images. A search that learns to adapt lifts the right end (for the loss: lowers it).",
        )
    yield from _support(records)


def _support(records: Records) -> Iterator[Plate]:
    recorded = lists(records.train, "support_losses")
    if recorded:
        steps = max(len(losses) for _, losses in recorded)
        lines = {
            f"before inner step {index + 1}": Series(
                [step for step, losses in recorded if index < len(losses)],
                [losses[index] for _, losses in recorded if index < len(losses)],
                noisy=True,
                color=shade,
            )
            for index, shade in enumerate(ramp(steps))
        }
        yield Plate(
            _history([Panel("support loss", lines)]),
            "Support loss within training tasks",
            "One line per inner step: the loss on the support images just before that step. The wider the lines stand "
            "apart, the more each inner step learns; a later line above an earlier one means that steps overshoot.",
        )


def health(records: Records, operations: int) -> Iterator[Plate]:
    """Gradient norms, entropy, skips."""
    names = {"gradient_weights": "weights", "gradient_alphas": "alphas", "gradient_rates": "inner rates"}
    norms = _there({label: series(records.train, name, noisy=True) for name, label in names.items()})
    if norms:
        yield Plate(
            _history([Panel("norm of the meta-gradient", norms, log=True)]),
            "Gradient norms",
            "On a logarithmic scale. Level or slowly falling lines are healthy; spikes mean single meta-batches that "
            "throw the search about, and a steady climb means divergence.",
        )
    entropy = {KINDS[cell]: series(records.train, f"entropy_{cell}") for cell in KINDS}
    skips = {KINDS[cell]: series(records.train, f"skips_{cell}") for cell in KINDS}
    panels = []
    if found := _there(entropy):
        panels.append(
            Panel(
                "entropy in nats", found, lines={f"undecided, ln {operations}": math.log(operations)}, span=LEAST_SPAN
            )
        )
    if found := _there(skips):
        panels.append(Panel("skip connections", found, whole=True))
    if panels:
        yield Plate(
            _history(panels),
            "How decided the architecture is",
            f"Entropy of the mixing weights, mean over edges: at ln {operations} all operations weigh the same, at 0 "
            "every edge has chosen. Skip connections are counted in the derived cell; a count that climbs towards all "
            "edges is the known collapse of DARTS (Zela et al., 2020).",
        )


def commitment(records: Records, space: SearchSpace) -> Iterator[Plate]:
    """How far each decision has chosen, over the run."""
    found = [measures(record) for record in records.train]
    if panels := sharpness_panels(found, space):
        yield Plate(
            _history(panels),
            "How the architecture commits",
            "Solid: the mixing weights that the run used at that step; dashed, where they differ: the final scores, "
            "which derivation ranks by. Left: entropy as a share of that of even weights, so 1 is undecided and 0 is "
            "one operation (or set of inputs) alone. Right: by how much the heaviest candidate exceeds the second, 0 "
            "for a tie and 1 for a decision. Means over the edges of a cell, or over its nodes. A run whose "
            "temperature falls must show the solid entropy fall; the closer the two lines, the closer the network that "
            "is trained is to the one that is derived.",
        )


def learned_rates(records: Records) -> Iterator[Plate]:
    """The inner learning rates, where the outer loop learns them."""
    found = {plain(name.removeprefix("rates.")): line for name, line in rates(records.train).items()}
    if not found:
        return
    groups = {
        "inner rates of weights": {name: line for name, line in found.items() if not _of_alphas(name)},
        "inner rates of alphas": {name: line for name, line in found.items() if _of_alphas(name)},
    }
    panels = [Panel(label, _few(lines), log=True) for label, lines in groups.items() if lines]
    yield Plate(
        _history(panels),
        "Learned inner rates",
        "The step sizes of the inner loop, which the outer loop learns along with the start; logarithmic scale. "
        "A rate that shrinks towards zero says that the outer loop would rather not move these parameters in a task.",
    )


def _of_alphas(name: str) -> bool:
    return name.startswith("alpha")


def _few(lines: Mapping[str, Series]) -> Mapping[str, Series]:
    """``lines``, or their smallest, median and largest value at each step where they are too many to tell apart."""
    if len(lines) <= NAMED_RATES:
        return {f" {name}" if name.startswith("_") else name: line for name, line in lines.items()}
    by_step: dict[float, list[float]] = {}
    for line in lines.values():
        for step, value in zip(line.steps, line.values, strict=True):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    ranked = [sorted(by_step[step]) for step in steps]
    return {
        f"largest of {len(lines)}": Series(steps, [values[-1] for values in ranked]),
        "median": Series(steps, [values[len(values) // 2] for values in ranked]),
        "smallest": Series(steps, [values[0] for values in ranked]),
    }


def measurements(results: list[tuple[str, dict[str, Any]]]) -> Iterator[Plate]:
    """Rows of methods on the same tasks, and adaptation on held-out tasks."""
    for file, facts in results:
        bars = _bars(facts)
        if bars:
            picture = Picture(".svg")
            draw_intervals(bars, picture, xlabel="accuracy")
            yield Plate(
                picture,
                f"Beside simple methods ({file})",
                "All methods on the same held-out tasks; whiskers are 95 % intervals over tasks. Overlap of two "
                "intervals is no test: compare the paired gains in the table.",
            )
    curves = {
        plain(f"{facts.get('split', '?')} tasks ({file})"): as_numbers(facts.get("curve")) for file, facts in results
    }
    curves = {name: curve for name, curve in curves.items() if any(map(math.isfinite, curve))}
    if curves:
        picture = Picture(".svg")
        draw_curve(curves, picture, xlabel="inner step", ylabel="query accuracy")
        yield Plate(
            picture,
            "Adapting to held-out tasks",
            "Mean query accuracy after each inner step, measured on the first of the tasks.",
        )


def _bars(facts: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """method -> (accuracy, half interval) of the demo's rows that have both."""
    rows = facts.get("rows")
    bars = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and finite(row.get("accuracy")) and finite(row.get("interval95")):
            value, half = as_number(row["accuracy"]), as_number(row["interval95"])
            if value is not None and half is not None and 0 <= value <= 1 and 0 <= half <= 1:
                bars[plain(str(row.get("method", "?")))] = (value, half)
    return bars


def _there(lines: Mapping[str, Series | None]) -> dict[str, Series]:
    return {name: line for name, line in lines.items() if line is not None}


def _history(panels: list[Panel]) -> Picture:
    picture = Picture(".svg")
    draw_history(panels, picture)
    return picture
