"""What a report says in words: the verdict, and what the pictures alone would let one overlook."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from metadarts.derive import Sharpness
from metadarts.spaces import Genotype, SearchSpace
from metadarts.training.config import Config
from metadarts.training.lenient import as_number
from metadarts.training.recording import IN_USE

from .records import KINDS, Records, finite

if TYPE_CHECKING:
    from torch import Tensor

    from metadarts.relaxations import Relaxation

HARDLY, DECIDED = 0.95, 0.5
"""Shares of ln P: above the first the alphas have hardly chosen, below the second they have."""
MANY_SKIPS = 0.5
FEWEST_STEPS, FEWEST_RECORDS = 50, 3
"""Of the last quarter of a run, to say that a cell that did not change is settled."""
LATE = 0.75


def percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage; a question mark when it is no number."""
    number = as_number(value)
    return f"{number:.{digits}%}" if number is not None and math.isfinite(number) else "?"


def duration(value: Any) -> str:
    """Seconds in the units a person would use."""
    seconds = as_number(value)
    if seconds is None or not math.isfinite(seconds):
        return "an unknown time"
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def verdict(records: Records, finished: dict[str, Any] | None, results: list[tuple[str, dict[str, Any]]]) -> str:
    """How far the search came, how good it was on validation tasks, and what was measured since."""
    sentences = []
    if finished is None:
        sentences.append(f"The search has not ended; its last record is of meta-step {records.last_step}.")
    else:
        took = duration(finished.get("seconds"))
        sentences.append(f"The search ended after {_whole(finished.get('steps'))} meta-steps and {took}.")
    if best := records.best:
        sentences.append(
            f"Best validation accuracy: {percent(best['accuracy'])} ± {percent(best.get('interval95'))} at meta-step "
            f"{best['step']}, the best of {records.compared} validations."
        )
    else:
        sentences.append("No validation is recorded yet.")
    for file, facts in results:
        sentences.append(
            f"Measured on {_whole(facts.get('tasks'))} {facts.get('split', '?')} tasks: {percent(facts['accuracy'])} ± "
            f"{percent(facts.get('interval95'))} ({file})."
        )
    return " ".join(sentences)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if finite(value) else "?"


def notes(config: Config, records: Records, results: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """What to keep in mind about the figures."""
    if records.best:
        yield (
            "Validation accuracy chose the checkpoint, so it flatters: the best of several noisy validations is high "
            "partly by luck. Quote a measurement on test tasks instead (metadarts evaluate)."
        )
    if not any(facts.get("split") == "test" for _, facts in results):
        yield "No measurement on test tasks lies in this folder (results.json, evaluation*.json)."
    if config.model.bn == "transductive":
        yield (
            "Batch norm is transductive: the queries of a task are normalised together, so each one learns something "
            "from the others. Compare only with results under the same policy; --bn support shows the difference."
        )
    if lost := sum(_lost(record, config.training.tasks) for record in records.train):
        yield f"{lost} recorded meta-steps had tasks that left the finite numbers; these were left out of the mean."
    if records.misfits:
        yield (
            f"{records.misfits} records of alphas do not fit the space of this configuration, or are not finite; they "
            "are left out."
        )
    elif not records.alphas:
        yield (
            "There are no records of the alphas over time (a network without alphas has none, nor have runs of older "
            "versions), so their pictures are missing; what the checkpoint holds is shown."
        )


def _lost(record: dict[str, Any], tasks: int) -> bool:
    return finite(record.get("finite_tasks")) and record["finite_tasks"] < tasks


def architecture_notes(
    alphas: Mapping[str, Tensor], genotype: Genotype, records: Records, space: SearchSpace, relaxation: Relaxation
) -> Iterator[str]:
    """How much the derived cell can be trusted."""
    from metadarts.derive import alpha_entropy, count_skips, genotype_distance
    from metadarts.relaxations import scores_of

    undecided = math.log(len(space.primitives))
    entropies, scores = alpha_entropy(alphas, relaxation), scores_of(alphas, relaxation)
    for cell in space.cell_types:
        entropy = entropies[cell]
        share = entropy / undecided
        top = float(scores[cell].max(-1).values.mean())
        yield (
            f"{KINDS[cell].capitalize()}: entropy {entropy:.3f} nats, {share:.2%} of ln {len(space.primitives)} (all "
            f"alike); the heaviest operation of an edge weighs {top:.3f} on average, an even one "
            f"{1 / len(space.primitives):.3f}. "
            f"{_judged(share)}"
        )
    skips = count_skips(genotype)
    for cell, count in skips.items():
        kept = len(genotype.pairs(cell))
        if kept and count / kept >= MANY_SKIPS:
            yield f"{count} of the {kept} kept operations of the {cell} cell are skip connections: suspect a collapse."
    yield from _last_measures(records, space)
    late = [record for record in records.alphas if record.step >= LATE * records.last_step]
    if len(late) > 1:
        moved = genotype_distance(late[0].genotype, late[-1].genotype)
        of = len(genotype.normal) + len(genotype.reduce)
        yield (
            f"Between meta-steps {late[0].step} and {late[-1].step} (the last quarter), {moved} of {of} choices of the "
            f"derived cells changed{_judged_change(moved, late[-1].step - late[0].step, len(late))}"
        )


def _last_measures(records: Records, space: SearchSpace) -> Iterator[str]:
    """The mixing weights in use, as the last record of a meta-step measured them."""
    last: dict[str, Any] = next(
        (record for record in reversed(records.train) if any(name.startswith(IN_USE) for name in record)), {}
    )
    for cell, kind in KINDS.items():
        told = []
        for decision in space.decisions:
            entropy, share, margin = (last.get(f"{IN_USE}{name}_{decision.name}") for name in Sharpness._fields)
            if decision.cell == cell and finite(entropy) and finite(share) and finite(margin):
                what = "operations" if decision.node is None else f"inputs of node {decision.node}"
                told.append(f"{what} {entropy:.3f}, {share:.3f}, {margin:.3f}")
        if told:
            yield (
                f"Mixing weights in use at meta-step {last['step']}, {kind} (entropy in nats, largest weight, "
                f"by how much it exceeds the second): {'; '.join(told)}."
            )
    if stabilities := [record.stability for record in records.alphas if record.stability is not None]:
        yield f"{percent(stabilities[-1])} of the last recorded cell's choices were in the record before it too."


def _judged_change(moved: int, steps: int, records: int) -> str:
    if steps < FEWEST_STEPS or records < FEWEST_RECORDS:
        return "; too few meta-steps to judge."
    return "." if moved else ": they are settled."


def _judged(share: float) -> str:
    if share >= HARDLY:
        return (
            "The alphas hardly chose: the derived cell rests on small differences, and another seed may well derive "
            "another one."
        )
    return "The alphas have decided." if share <= DECIDED else "The alphas lean, but have not decided."
