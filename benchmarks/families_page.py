"""The tables and the picture of `benchmarks.families`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metadarts.core.rng import Key
from metadarts.spaces import Genotype
from metadarts.stats import Estimate, Table
from metadarts.stats.bootstrap import estimate, paired
from metadarts.stats.intervals import Values
from metadarts.viz._canvas import figure
from metadarts.viz._shades import shades

Row = Mapping[str, Any]
KS = ("choice 2", "choice 4", "choice 8")
DIFFERENCES = (
    ("amortised own", "shared own"), ("per-domain own", "shared own"), *((f"{k} own", "shared own") for k in KS),
    ("alone own", "per-domain own"),
    *((f"{arm} swapped", f"{arm} own") for arm in ("amortised", "per-domain", *KS)),
    *((f"{arm} cell", f"{arm} own") for arm in ("shared", "amortised", "per-domain", *KS)),
    ("one cell own", "shared own"), ("one cell own", "shared cell"),
    *((f"{arm} cell", "one cell own") for arm in ("amortised", "per-domain", *KS)),
)  # fmt: skip
ALIKE = ("shared swapped", "alone swapped")
"""What has one set of alphas loses nothing by swapping them."""


def table(rows: Sequence[Row]) -> str:
    """Markdown: accuracies by domain and arm; differences; the share of the oracle's gain; and the tasks' cells.

    Intervals are over seeds and tasks.
    """
    found = _with_means(_accuracies(rows))
    names = [*sorted({name for row in rows for name in row["domains"]}), *_groups(found)]
    key = Key.from_seed(0).child("families")
    accuracies = [
        (kind, *(_percent(estimate(of[name], key)) if name in of else "" for name in names))
        for kind, of in found.items()
        if kind not in ALIKE
    ]
    differences = []
    for first, second in DIFFERENCES:
        if first in found and second in found:
            ours, theirs = found[first], found[second]
            both = [name in ours and name in theirs for name in names]
            same = first.rsplit(" ", 1)[0] == second.rsplit(" ", 1)[0]  # of the same trainings
            texts = (
                _percent(_difference(ours[name], theirs[name], key, same), "+") if there else ""
                for name, there in zip(names, both, strict=True)
            )
            differences.append((f"{first} - {second}", *texts))
    cells = _cells(rows, names)
    parts = [
        Table(("accuracy, %", *names), accuracies).markdown(),
        Table(("difference, points", *names), differences).markdown() if differences else "",
        *(f"{text}." for text in _shares(found)),
        Table(("different cells of the tasks", *names), cells).markdown() if cells else "",
        _facts(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _accuracies(rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """ "arm kind" -> domain -> [seeds, tasks]."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        arm = "alone" if row["job"]["arm"].startswith("alone ") else row["job"]["arm"]
        for domain, values in row["domains"].items():
            for kind in ("own", "swapped", "cell"):
                if values[kind]:
                    found.setdefault(f"{arm} {kind}", {}).setdefault(domain, []).append(values[kind])
    return {kind: {name: np.asarray(table) for name, table in of.items()} for kind, of in found.items()}


def _with_means(found: dict[str, dict[str, Values]]) -> dict[str, dict[str, Values]]:
    """The same with a column for all domains, and one for those that the oracle knows, where these are fewer."""
    groups = _groups(found)
    return {
        kind: of
        | {group: np.mean([of[name] for name in names], axis=0) for group, names in groups.items() if _whole(of, names)}
        for kind, of in found.items()
    }


def _groups(found: Mapping[str, Mapping[str, Values]]) -> dict[str, list[str]]:
    """Column -> the domains that it is the mean of."""
    every = {name for of in found.values() for name in of} - {"all", "trained on"}
    known = set(found.get("per-domain own", {})) - {"all", "trained on"}
    return {"all": sorted(every), **({"trained on": sorted(known)} if 0 < len(known) < len(every) else {})}


def _whole(of: Mapping[str, Values], names: Sequence[str]) -> bool:
    """Whether all of these domains were measured, with equally many trainings."""
    return set(names) <= of.keys() and len({of[name].shape for name in names}) == 1


def _difference(ours: Values, theirs: Values, key: Key, same: bool) -> Estimate:
    """The mean difference; of the ``same`` trainings, these are resampled together."""
    return estimate(ours - theirs, key) if same else paired(ours, theirs, key)


def _shares(found: Mapping[str, Mapping[str, Values]]) -> list[str]:
    """What part of the oracle's gain others have, in the mean of the domains that it knows; none where it has none."""
    if not {"shared own", "per-domain own"} <= found.keys():
        return []
    known = "trained on" if "trained on" in found["per-domain own"] else "all"
    key, said = Key.from_seed(0).child("families"), []
    for kind, base, words in (
        ("own", "shared own", "shared alphas"),
        ("cell", "one cell own", "one cell for all tasks"),
    ):
        if not {f"per-domain {kind}", base} <= found.keys():
            continue
        oracle = paired(found[f"per-domain {kind}"][known], found[base][known], key)
        if oracle.low <= 0:
            said.append(f"The oracle ({kind}) is not shown to gain over {words}: {_percent(oracle, '+')} points")
            continue
        parts = [f"Over {words} the oracle ({kind}) gains {_percent(oracle, '+')} points where it was trained"]
        for arm in ("amortised", *KS):
            if f"{arm} {kind}" in found:
                gain = found[f"{arm} {kind}"][known].mean() - found[base][known].mean()
                parts.append(f"{arm} {100 * gain:+.1f}, {gain / oracle.mean:.0%} of it")
        said.append("; ".join(parts))
    return said


def _cells(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, ...]]:
    """For each arm and seed: how many different cells the tasks have, in all and by domain."""
    return [
        (
            f"{row['job']['arm']}, seed {row['job']['seed']}",
            *(_count(row, list(row["domains"]) if name == "all" else [name]) for name in names),
        )
        for row in rows
        if row["job"]["arm"].startswith(("amortised", "choice"))
    ]


def _count(row: Row, names: Sequence[str]) -> str:
    """How many different cells the tasks of these domains have; empty for a domain that was not measured."""
    if not set(names) <= row["domains"].keys():
        return ""
    return str(len({cell for name in names for cell in row["domains"][name]["cells"]}))


def _facts(rows: Sequence[Row]) -> str:
    job, seconds = rows[0]["job"], [row["seconds"] for row in rows if not row["job"]["arm"].startswith("alone ")]
    least, most = (end(seconds) / 60 for end in (min, max))
    machine = rows[0]["environment"]["environment"]
    counts = Counter(row["job"]["arm"] for row in rows)
    seeds = ", ".join(f"{arm} {count}" for arm, count in counts.items())
    return (
        f"{job['steps']} meta-steps, {job['tasks']} {job['split']} tasks of each domain; a search took "
        f"{least:.0f} to {most:.0f} minutes of one thread ({machine['device']}, torch {machine['packages']['torch']}). "
        f"Seeds: {seeds}. Intervals of 95 % over seeds and tasks; those over few seeds are too narrow, with one they "
        "say nothing of another training. No inner steps: classes are told by the distance to class means. "
        '"shared" mixes operations to the end; "one cell" keeps one cell from 60 % of the run on; "swapped" has the '
        "alphas of tasks of each other training domain, in the mean."
    )


def published(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as they are kept: accuracies with four digits, cells with the number of their tasks."""

    def kept(values: Mapping[str, Any]) -> dict[str, Any]:
        accuracies = {kind: [round(value, 4) for value in values[kind]] for kind in ("own", "swapped", "cell")}
        return accuracies | {"cells": Counter(values["cells"])}

    return [dict(row, domains={name: kept(of) for name, of in row["domains"].items()}) for row in rows]


def draw(rows: Sequence[Row], path: Path, arm: str = "amortised") -> None:
    """Of the cells that ``arm`` gives the tasks of each domain: the shares of the operations, over seeds."""
    from matplotlib.patches import Patch

    if not any(row["job"]["arm"] == arm for row in rows):
        return
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row["job"]["arm"] == arm:
            for domain, values in row["domains"].items():
                own = counts.setdefault(domain, Counter())
                for text in values["cells"]:
                    cell = Genotype.parse(text)
                    own.update(operation for operation, _ in (*cell.normal, *cell.reduce))
    operations = sorted({operation for own in counts.values() for operation in own})
    colors = shades(operations)
    with figure(path, 8.0, 1.2 + 0.45 * len(counts)) as sheet:
        sheet.set_layout_engine("constrained")
        axes = sheet.subplots()
        for place, own in enumerate(counts[name] for name in sorted(counts)):
            left = 0.0
            for operation in operations:
                share = own[operation] / own.total()
                axes.barh(place, share, left=left, color=colors[operation])
                left += share
        axes.set_yticks(range(len(counts)), sorted(counts))
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel(f"share of the edges of the tasks' cells ({arm} alphas)")
        axes.legend(handles=[Patch(color=colors[name], label=name) for name in operations], loc="upper left",
                    bbox_to_anchor=(1.0, 1.0), frameon=False)  # fmt: skip


def _percent(found: Estimate, sign: str = "") -> str:
    return found.scaled(100).text(1, sign)
