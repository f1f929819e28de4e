"""A `PredictionStudy` as one page of Markdown: the answer first, then the figures behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metadarts.stats import Estimate, Table, listed

from .prediction import CELLS, STARTS, Figure, PredictionStudy


def as_markdown(study: PredictionStudy) -> str:
    """The page."""
    facts = study.facts
    parts = [
        "# Is a task's architecture predictable?",
        " ".join(answers(study)),
        f"Measured on {facts['tasks']} held-out tasks ({facts['source']} {facts['split']}, {facts['ways']}-way "
        f"{facts['shots']}-shot, {facts['queries']} queries per class, batch norm {facts['bn']}, checkpoint of step "
        f"{facts['checkpoint_step']}; {facts['finite_tasks']} tasks stayed in the finite numbers and count); the "
        f"meta-model was fitted on {facts['fitted_on_tasks']:,} other tasks. 95 % intervals over tasks, of one "
        "training and one fit, none corrected for the number of comparisons; differences are of the prediction from "
        "the row, on the same tasks. `shuffled` is what the same model says of another task: only a prediction that "
        "beats it carries something of the task. `overall` is what all tasks of the archive have in common. `meta` as "
        "a distribution is the meta-learned alphas as the run relaxes them (by default their softmax), which nobody "
        "calibrated to choices.",
        "## Nearness to the architecture that the task comes to",
        f"Log-likelihood of the task's own cell after {facts['steps']} steps, nats for one choice; higher is nearer.",
        _grid(study.likelihood, "likelihood", 4),
        "Share of the cell's choices that the most probable cell has too.",
        _grid(study.agreement, "agreement, %", 2, 100.0),
        "Squared distance of alphas from the adapted ones, in spreads of the archive; 1 is about the archive's mean.",
        _grid(study.distance, "distance", 4),
        "## Warm start: accuracy after some steps from other alphas",
        "\n\n".join(
            f"After {step} steps:\n\n{_grid(rows, 'accuracy, %', 2, 100.0)}" for step, rows in study.accuracy.items()
        ),
    ]
    if study.cells:
        parts += [
            "## The cell itself",
            "A cell is cut out of the meta-learned supernet with the weights it inherits, before any step, and takes "
            f"{facts['cell_steps']} steps on weights. The task's own cell is known only after adapting the supernet.",
            _grid(study.cells, "accuracy, %", 2, 100.0),
        ]
    return "\n\n".join(parts) + "\n"


def answers(study: PredictionStudy) -> Iterator[str]:
    """Sentences; each says more, less or nothing only as far as its whole interval does."""
    likelihood = {row.name: row.difference for row in study.likelihood}
    distance = {row.name: row.difference for row in study.distance}
    likelier, nearer = _sure(likelihood["shuffled"]), -_sure(distance["shuffled"])
    carries = likelier + nearer > 0 and min(likelier, nearer) >= 0
    if carries:
        yield (
            "**The embedding carries something of the task**: the adapted architecture is "
            f"{_signed(likelihood['shuffled'], 4)} nats a choice likelier than under the prediction for another task, "
            f"its alphas {_signed(distance['shuffled'], 4)} off in squared distance."
        )
    else:
        yield (
            "**No signal was found**: the adapted architecture is no likelier under the task's own prediction than "
            f"under another task's ({_signed(likelihood['shuffled'], 4)} nats a choice, distance of alphas "
            f"{_signed(distance['shuffled'], 4)})."
        )
    gains = {step: {row.name: row.difference for row in rows}["meta"] for step, rows in study.accuracy.items()}
    better = [step for step, gain in gains.items() if _sure(gain) > 0]
    worse = [step for step, gain in gains.items() if _sure(gain) < 0]
    told = "; ".join(f"{_signed(gain, 2, 100.0)} after {step}" for step, gain in gains.items())
    if better and not worse:
        yield f"Started from the prediction, accuracy is higher after {listed(better)} steps (points: {told})."
    elif worse and not better:
        yield f"Started from the prediction, accuracy is lower after {listed(worse)} steps (points: {told})."
    elif better:
        yield (
            f"Started from the prediction, accuracy is higher after {listed(better)} steps and lower after "
            f"{listed(worse)} (points: {told})."
        )
    else:
        yield f"As a warm start the prediction is worth nothing that could be measured (points: {told})."


def _sure(difference: Estimate | None) -> int:
    """1 or -1 where the whole interval is above or below 0, else 0."""
    if difference is None or difference.contains(0.0):
        return 0
    return 1 if difference.mean > 0 else -1


def _signed(difference: Estimate | None, digits: int, scale: float = 1.0) -> str:
    return "none" if difference is None else difference.scaled(scale).text(digits, "+")


def _grid(rows: Sequence[Figure], about: str, digits: int, scale: float = 1.0) -> str:
    known = CELLS if about.startswith("accuracy") and any(row.name == "own" for row in rows) else STARTS
    lines = [
        (
            row.name,
            known[row.name],
            row.value.scaled(scale).text(digits),
            "" if row.difference is None else _signed(row.difference, digits, scale),
        )
        for row in rows
    ]
    return Table(("of", "", about, "prediction less this"), lines).markdown()
