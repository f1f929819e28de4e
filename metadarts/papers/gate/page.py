"""A gate as one page: Markdown for a file, lines for a terminal."""

from __future__ import annotations

import math
from textwrap import wrap

from metadarts.stats import Estimate, Table

from .study import Gate
from .verdict import points, verdict

WIDTH = 100


def as_markdown(found: Gate) -> str:
    """The answer first, then the components and the accuracies."""
    cells = "\n".join(
        f"    {name}: {genotype}"
        for name, genotype in zip(found.names, found.genotypes, strict=True)
        if name.startswith("mixed ")
    )
    parts = [
        "# Can an architecture of their own help these tasks?",
        f"**{verdict(found.parts, len(found.domains))}**",
        _measured(found),
        "## Where accuracy varies",
        _components(found).markdown(),
        "The standard deviation in points, and its share of the whole variance. An estimate below zero means none: "
        "components are mean products of independent measurements. Only the rows with an x can be gained by choosing.",
        "## What choosing gains",
        _gains(found).markdown(),
        "Chosen on one half of the data and measured on the other. The last row is a bound: of normally distributed "
        "interactions, with all operations equally good on average.",
        "## Accuracy of each operation, %",
        _accuracies(found).markdown(),
    ]
    return "\n\n".join([*parts, *([f"The mixed cells:\n\n{cells}"] if cells else [])]) + "\n"


def as_text(found: Gate) -> str:
    """The same for a terminal."""
    lines = [*wrap(verdict(found.parts, len(found.domains)), WIDTH), "", *wrap(_measured(found), WIDTH)]
    for table in (_components(found), _gains(found), _accuracies(found)):
        rows = (table.headings, *table.rows)
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.headings))]
        lines.append("")
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _measured(found: Gate) -> str:
    facts = found.facts
    return (
        f"Measured on {facts['tasks']} {facts['split']} tasks of each domain ({facts['source']}, {facts['ways']}-way "
        f"{facts['shots']}-shot, {facts['queries']} queries per class, two draws of images), each operation trained "
        f"alone {facts['seeds']} times for {facts['steps']} steps in each domain; 95 % intervals over tasks and "
        "trainings."
    )


def _components(found: Gate) -> Table:
    parts = found.parts
    rows = [
        ("task", parts.task),
        ("operation", parts.operation),
        *([("operation x domain", parts.domain_operation)] if len(found.domains) > 1 else []),
        ("operation x task", parts.task_operation),
        ("rest: training, images drawn", parts.rest),
    ]
    whole = sum(max(part.mean, 0.0) for _, part in rows) or 1.0
    return Table(
        ("component", "standard deviation, points", "share of variance, %"),
        [(name, _deviation(part), f"{100 * max(part.mean, 0.0) / whole:.1f}") for name, part in rows],
    )


def _deviation(variance: Estimate) -> str:
    mean, low, high = (100 * math.sqrt(max(end, 0.0)) for end in variance.ends)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if variance.mean > 0 else f"none [{low:.2f}, {high:.2f}]"


def _gains(found: Gate) -> Table:
    parts = found.parts
    rows = [
        *([("each domain's best operation", points(parts.domain_gain))] if len(found.domains) > 1 else []),
        ("each task's best operation", points(parts.task_gain)),
        ("no more than", points(parts.most, "")),
    ]
    return Table(("against the best operation for all", "gain"), rows)


def _accuracies(found: Gate) -> Table:
    means = 100 * found.table.mean((0, 2, 4))
    rows = [
        (domain or "all", *(f"**{v:.1f}**" if v == row.max() else f"{v:.1f}" for v in row.tolist()))
        for domain, row in zip(found.domains, means, strict=True)
    ]
    return Table(("domain", *found.names), rows)
