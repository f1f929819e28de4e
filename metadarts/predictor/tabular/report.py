"""What was measured, as plain values and as a page of plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.rng import Key
from metadarts.stats import Estimate, Table, Values, bullets, over_seeds

from .methods import CHOSEN, MEANINGS

FORMAT = "metadarts.tabular"
CHOICE_NOTE = """\
One task is left out; the others are known whole. Of the left-out task K architectures are known, drawn at random, the
same for every method of a seed. Chosen is the one that a method thinks best of **all** architectures by its prediction;
selection uses validation values alone, what is printed is of test values. **Percentile**: how many percent of the other
architectures of that space are worse on that task (100: the best there is). Equal predictions are told apart at random.
Intervals are 95 % percentile bootstraps over seeds: they say nothing about another task."""
ORDER_NOTE = """\
A whole family of devices is left out; the others are known whole. Of a left-out device K architectures are measured,
drawn at random, the same for every method of a seed; every other architecture's place is predicted. Printed is the rank
correlation (Spearman) over all architectures but the K, mean over the family's devices. Intervals are 95 % percentile
bootstraps over seeds: they say nothing about another device. Where one GPU family is left out, the same cards stay
among the training devices at other batch sizes; the column "GPU, every batch size" leaves all of them out."""
TUNING_NOTE = """\
How each was tuned: cross-validation over the training tasks chooses the meta-model's loss, its mixing of tasks and
whether it sees the other tasks' values, the steps of the network on the K alone, and the penalty of ridge regression
(by the K). Width, number of steps and episodes and the outer rate of the meta-model were fixed by hand once, before
the published results were made, by the training loss on six macro tasks of TransNAS-Bench-101: each of them is a
left-out task too, so that these few numbers are not wholly blind to it. Models of trees keep fixed settings (100 trees
of depth 3; 200 histogram trees for the other tasks) and were not tuned."""
NEXT_NOTE = """\
One evaluation more: what a method chose is evaluated too, and of these K + 1 the best by validation is kept, so that it
may be one of the K. "best of the K" evaluates one more at random instead. Percentile on test values, mean over
tasks."""


@dataclass(frozen=True, eq=False)
class Result:
    """One bench measured.

    Args:
        name: of the search space.
        architectures: N.
        tasks: names of the left-out tasks, one per slot.
        groups: what was left out with each, one per slot.
        units: of the regret, one per slot.
        shots: numbers K of known architectures.
        methods: their names.
        measures: [methods, shots, slots, seeds] by name: "chosen" (row of the space), "percentile", "regret" and
            "percentile_next" of a choice, "spearman" of an order.
        recipes: what cross-validation chose from and chose.
        remarks: what was done to the table.
    """

    name: str
    architectures: int
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    units: tuple[str, ...]
    shots: tuple[int, ...]
    methods: tuple[str, ...]
    measures: dict[str, NDArray[np.float64]]
    recipes: dict[str, Any]
    remarks: tuple[str, ...]

    def key(self, *names: str | int) -> Key:
        """Of an interval's bootstrap."""
        return Key.from_seed(0).child("tabular", "interval", self.name, *names)

    def seeds_of(self, measure: str, method: str, shot: int, group: str | None = None) -> Values:
        """[S] mean over tasks, or over those of ``group``, of every seed."""
        slots = [slot for slot, name in enumerate(self.groups) if group in (None, name)]
        chosen = self.measures[measure][self.methods.index(method), self.shots.index(shot)][slots]
        return np.asarray(chosen.mean(0), dtype=np.float64)

    def interval(self, measure: str, method: str, shot: int, group: str | None = None) -> Estimate:
        return over_seeds(self.seeds_of(measure, method, shot, group), self.key(measure, shot, group or "all"))

    def difference(self, measure: str, first: str, second: str, shot: int, group: str | None = None) -> Estimate:
        """The first less the second, paired by seed: both know the same architectures."""
        one, other = (self.seeds_of(measure, name, shot, group) for name in (first, second))
        return over_seeds(one - other, self.key(measure, shot, group or "all", "paired"))

    def won(self, measure: str, first: str, second: str, shot: int, group: str | None = None) -> str:
        """On how many of the left-out tasks the first has the higher mean over seeds."""
        slots = [slot for slot, name in enumerate(self.groups) if group in (None, name)]
        place = self.shots.index(shot)
        one, other = (
            self.measures[measure][self.methods.index(name), place, slots].mean(-1) for name in (first, second)
        )
        return f"{int((one > other).sum())} of {len(slots)}"

    def as_json(self) -> dict[str, Any]:
        """All values of all seeds."""
        return {
            "name": self.name,
            "architectures": self.architectures,
            "tasks": list(self.tasks),
            "groups": list(self.groups),
            "units": list(self.units),
            "shots": list(self.shots),
            "methods": list(self.methods),
            "axes": ["method", "shot", "task", "seed"],
            "measures": {name: np.round(values, 4).tolist() for name, values in self.measures.items()},
            "recipes": self.recipes,
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, eq=False)
class Report:
    """A whole table measured; write it with ``json.dumps(report.as_json())`` and `as_markdown`.

    Args:
        kind: "transnas" or "latency".
        facts: table, seeds, settings, environment.
        results: one per search space.
    """

    kind: str
    facts: dict[str, Any]
    results: tuple[Result, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and text; the summary has the intervals that the page prints."""
        return {
            "format": FORMAT,
            "version": 1,
            "kind": self.kind,
            **self.facts,
            "summary": [_summary(result) for result in self.results],
            "results": [result.as_json() for result in self.results],
        }

    def as_markdown(self) -> str:
        """How to read the figures, then each search space: its tables, and what they say in words."""
        choosing = self.kind == "transnas"
        title = "TransNAS-Bench-101, leave one task out" if choosing else "Latency on devices of a family never seen"
        meanings = _meanings(self.results[0].methods)
        parts = [f"# {title}", CHOICE_NOTE if choosing else ORDER_NOTE, meanings, TUNING_NOTE]
        for result in self.results:
            parts += list(_choice_parts(result) if choosing else _order_parts(result))
        return "\n\n".join([*parts, _measured(self.facts)]) + "\n"


def findings(result: Result, measure: str) -> Iterator[str]:
    """For every K one sentence per verdict: what the meta-model beats, what beats it, what cannot be told apart."""
    for shot in result.shots:
        sides: dict[str, list[str]] = {"better": [], "worse": [], "even": []}
        for name in result.methods:
            if name.startswith(CHOSEN):
                continue
            apart = result.difference(measure, CHOSEN, name, shot)
            side = "better" if apart.low > 0 else "worse" if apart.high < 0 else "even"
            sides[side].append(f"{name} ({_signed(apart, measure)}; {result.won(measure, CHOSEN, name, shot)})")
        told = [
            f"beats {'; '.join(sides['better'])}" if sides["better"] else "beats no baseline",
            f"**loses to {'; '.join(sides['worse'])}**" if sides["worse"] else "loses to none",
            f"cannot be told from {'; '.join(sides['even'])}" if sides["even"] else "",
        ]
        yield f"K = {shot}: the meta-model " + ", ".join(part for part in told if part) + "."


def _gains(result: Result) -> Iterator[str]:
    """What knowing K architectures is worth to the meta-model: itself at K less itself at K = 0."""
    if 0 not in result.shots:
        return
    begun = result.seeds_of("percentile", CHOSEN, 0)
    for shot in (shot for shot in result.shots if shot):
        gain = over_seeds(result.seeds_of("percentile", CHOSEN, shot) - begun, result.key("gain", shot))
        verdict = "gains by" if gain.low > 0 else "**loses by**" if gain.high < 0 else "gains nothing that shows by"
        told = _signed(gain, "percentile")
        yield f"The meta-model {verdict} adapting to K = {shot}, against its start at K = 0: {told}."


def _choice_parts(result: Result) -> Iterator[str]:
    yield f"## {result.name}: {result.architectures:,} architectures, {len(result.tasks)} tasks"
    yield "Percentile of the chosen architecture on test values, mean over tasks:"
    yield _by_shots(result, "percentile")
    yield (
        "What it says: the meta-model less the other in points of percentile, paired by seed, mean over tasks; then on "
        "how many of the tasks its mean is the higher one. A difference that few of the tasks bear says little of an "
        "eighth:"
    )
    yield bullets([*findings(result, "percentile"), *_gains(result)])
    yield NEXT_NOTE
    yield _by_shots(result, "percentile_next")
    yield bullets(findings(result, "percentile_next"))
    for shot in result.shots:
        yield f"By task, K = {shot}: percentile with its interval, and below it the regret in the task's unit."
        yield _by_task(result, shot)
    yield _recipes(result)


def _order_parts(result: Result) -> Iterator[str]:
    yield f"## {result.architectures:,} architectures, {len(set(result.tasks))} devices"
    yield bullets(result.remarks)
    for shot in result.shots:
        yield f"Spearman by left-out family, K = {shot}:"
        yield _by_group(result, shot)
    yield (
        "What it says: the meta-model less the other, paired by seed, mean over the family's devices; then on how many "
        "of them its mean is the higher one."
    )
    for group in dict.fromkeys(result.groups):
        yield f"**{group}**:"
        yield bullets(_family_findings(result, group))
    yield _recipes(result)


def _family_findings(result: Result, group: str) -> Iterator[str]:
    for shot in result.shots:
        told = []
        for name in result.methods:
            if name.startswith(CHOSEN):
                continue
            apart = result.difference("spearman", CHOSEN, name, shot, group)
            verdict = "beats" if apart.low > 0 else "**loses to**" if apart.high < 0 else "cannot be told from"
            devices = result.won("spearman", CHOSEN, name, shot, group)
            told.append(f"{verdict} {name} ({_signed(apart, 'spearman')}; {devices})")
        yield f"K = {shot}: the meta-model " + "; ".join(told) + "."


def _by_shots(result: Result, measure: str) -> str:
    head = ["method", *(f"K = {shot}" for shot in result.shots)]
    lines = [
        [name, *(_shown(result.interval(measure, name, shot), measure) for shot in result.shots)]
        for name in result.methods
    ]
    return Table(head, lines).markdown()


def _by_task(result: Result, shot: int) -> str:
    head = ["method", *(f"{task} ({unit})" for task, unit in zip(result.tasks, result.units, strict=True))]
    lines = []
    for name in result.methods:
        percentiles = (
            _shown(result.interval("percentile", name, shot, group), "percentile") for group in result.groups
        )
        regrets = (f"{result.seeds_of('regret', name, shot, group).mean():.3g}" for group in result.groups)
        lines.append([name, *(f"{p}, {r}" for p, r in zip(percentiles, regrets, strict=True))])
    return Table(head, lines).markdown()


def _by_group(result: Result, shot: int) -> str:
    groups = list(dict.fromkeys(result.groups))
    lines = [
        [name, *(_shown(result.interval("spearman", name, shot, group), "spearman") for group in groups)]
        for name in result.methods
    ]
    return Table(["method", *groups], lines).markdown()


def _recipes(result: Result) -> str:
    told = []
    for group in dict.fromkeys(result.groups):
        parts = []
        for name, selection in result.recipes.items():
            chosen = selection["chosen"][group]
            if isinstance(chosen, str):
                parts.append(f"{name}: {chosen.removeprefix(CHOSEN + ', ')}")
                continue
            recipe = selection["candidates"][chosen]
            facts = {key: recipe[key] for key in ("loss", "mixing", "steps") if key in recipe}
            parts.append(f"{name}: " + " ".join(f"{key} {value}" for key, value in facts.items()))
        told.append(f"{group}: {'; '.join(parts)}")
    return "What cross-validation over the training tasks chose, by what is left out:\n\n" + bullets(told)


SUMMARISED = ("percentile", "percentile_next", "spearman")
"""Measures with a mean over tasks: a regret has its task's unit."""


def _summary(result: Result) -> dict[str, Any]:
    """What the page prints over all tasks, or by family where families share devices."""
    apart = len(set(result.tasks)) == len(result.tasks)
    groups: list[str | None] = [None] if apart else list(dict.fromkeys(result.groups))
    return {
        "name": result.name,
        "rows": [
            {
                "measure": measure,
                "method": name,
                "shots": shot,
                "left_out": group or "each task in turn",
                **_plain(result.interval(measure, name, shot, group), ""),
                **_plain(result.difference(measure, CHOSEN, name, shot, group), "meta_model_less_this_"),
            }
            for measure in SUMMARISED
            if measure in result.measures
            for name in result.methods
            for shot in result.shots
            for group in groups
        ],
    }


def _plain(interval: Estimate, prefix: str) -> dict[str, float]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {prefix + name: round(value, 4) for name, value in values.items()}


def _meanings(methods: Sequence[str]) -> str:
    return "Methods:\n\n" + bullets(f"**{name}**: {MEANINGS[name]}." for name in methods)


def _measured(facts: dict[str, Any]) -> str:
    environment = facts["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return (
        f"Measured on {facts['table']} with {len(facts['seeds'])} seeds (0 to {facts['seeds'][-1]}): "
        f"{environment['device']}, {environment['threads']} of {environment['cores']} cores, Python "
        f"{environment['python']}, {packages}, metadarts {environment['metadarts']} at commit {environment['commit']}."
    )


def _shown(found: Estimate, measure: str, sign: str = "") -> str:
    return found.text(3 if measure == "spearman" else 1, sign)


def _signed(difference: Estimate, measure: str) -> str:
    return _shown(difference, measure, "+")
