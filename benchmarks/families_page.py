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
DIFFERENCES = (
    ("amortised own", "shared own"), ("per-domain own", "shared own"), ("alone own", "per-domain own"),
    ("amortised swapped", "amortised own"), ("per-domain swapped", "per-domain own"),
    ("choice 2 own", "shared own"), ("choice 4 own", "shared own"), ("choice 8 own", "shared own"),
    ("shared cell", "shared own"), ("amortised cell", "amortised own"), ("per-domain cell", "per-domain own"),
    ("choice 2 cell", "choice 2 own"), ("choice 4 cell", "choice 4 own"), ("choice 8 cell", "choice 8 own"),
    ("amortised cell", "shared cell"), ("amortised cell", "one cell own"), ("shared own", "one cell own"),
)  # fmt: skip
ALIKE = ("shared swapped", "alone swapped")
"""What has one set of alphas loses nothing by swapping them."""


def table(rows: Sequence[Row]) -> str:
    """Markdown: accuracies by domain and arm; differences; the share of the oracle's gain; and the tasks' cells.

    Intervals are over seeds and tasks.
    """
    found = _with_means(_accuracies(rows))
    names = list(dict.fromkeys(name for of in found.values() for name in of))
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
            texts = (_percent(paired(ours[name], theirs[name], key), "+") if there else ""
                     for name, there in zip(names, both, strict=True))  # fmt: skip
            differences.append((f"{first} - {second}", *texts))
    parts = [
        Table(("accuracy, %", *names), accuracies).markdown(),
        Table(("difference, points", *names), differences).markdown(),
        *(f"{text}." for text in _shares(found)),
        Table(("different cells of the tasks", *names), _cells(rows, names)).markdown(),
        _facts(rows),
    ]
    return "\n\n".join(parts)


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
    groups = {"all": list(dict.fromkeys(name for of in found.values() for name in of))}
    known = list(found.get("per-domain own", {}))
    if 0 < len(known) < len(groups["all"]):
        groups["trained on"] = known
    return {
        kind: of | {group: np.concatenate([of[name] for name in names], axis=1)
                    for group, names in groups.items() if set(names) <= of.keys()}
        for kind, of in found.items()
    }  # fmt: skip


def _shares(found: Mapping[str, Mapping[str, Values]]) -> list[str]:
    """What part of the oracle's gain over shared alphas others have, in the mean of the domains that it knows."""
    if not {"shared own", "per-domain own"} <= found.keys():
        return []
    known = "trained on" if "trained on" in found["per-domain own"] else "all"
    said = []
    for kind, words in (("own", "with their alphas"), ("cell", "with the cells cut out")):
        most = 100 * (found[f"per-domain {kind}"][known].mean() - found[f"shared {kind}"][known].mean())
        parts = [
            f"In the mean of the domains that it knows the oracle gains {most:+.1f} points over shared alphas, {words}"
        ]
        for arm in ("amortised", "choice 2", "choice 4", "choice 8"):
            if f"{arm} {kind}" in found:
                gain = 100 * (found[f"{arm} {kind}"][known].mean() - found[f"shared {kind}"][known].mean())
                parts.append(f"{arm} {gain:+.1f}, {gain / most:.0%} of it")
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
    seeds = len({row["job"]["seed"] for row in rows})
    machine = rows[0]["environment"]
    least, most = (end(seconds) / 60 for end in (min, max))
    return (
        f"{job['steps']} meta-steps, seeds 0 to {seeds - 1}, {job['tasks']} test tasks of each domain; a search took "
        f"{least:.0f} to {most:.0f} minutes of one thread ({machine['device']}, torch {machine['packages']['torch']}). "
        "Intervals of 95 % over seeds and tasks; those over few seeds are too narrow."
    )


def draw(rows: Sequence[Row], path: Path, arm: str = "amortised") -> None:
    """Of the cells that ``arm`` gives the tasks of each domain: the shares of the operations, over seeds."""
    from matplotlib.patches import Patch

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
        for place, own in enumerate(counts.values()):
            left = 0.0
            for operation in operations:
                share = own[operation] / own.total()
                axes.barh(place, share, left=left, color=colors[operation])
                left += share
        axes.set_yticks(range(len(counts)), list(counts))
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel(f"share of the edges of the tasks' cells ({arm} alphas)")
        axes.legend(handles=[Patch(color=colors[name], label=name) for name in operations], loc="upper left",
                    bbox_to_anchor=(1.0, 1.0), frameon=False)  # fmt: skip


def _percent(found: Estimate, sign: str = "") -> str:
    return found.scaled(100).text(1, sign)
