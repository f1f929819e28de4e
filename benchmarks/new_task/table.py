"""The rows of `ours` and `peer` as tables: means over draws, 95 % intervals (Student's t), gaps paired draw by draw.

python -m benchmarks.new_task.table --ours ROWS.jsonl --peer PEER.jsonl
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from metadarts.stats import Table

from .peer import read_rows

Rows = Sequence[dict[str, Any]]
Figure = Callable[[dict[str, Any]], float]


def figure(name: str) -> Figure:
    """A column of a row; the mean, where a row has several."""

    def value(row: dict[str, Any]) -> float:
        found = row[name]
        return sum(found) / len(found) if isinstance(found, list) else float(found)

    return value


COLUMNS = {
    "before": figure("before"),
    "after 10 steps": figure("after"),
    "weights only": figure("weights only"),
    "logistic regression": figure("logistic regression on pixels"),
    "its best penalty": figure("logistic regression, best"),
    "nearest class mean": figure("nearest class mean on pixels"),
}
PAIRED = {
    "after - before": ("after 10 steps", "before"),
    "after - weights only": ("after 10 steps", "weights only"),
}
CELLS = {
    "inherited - supernet": ("inherited", "supernet"),
    "inherited - random": ("inherited", "random cells, inherited"),
    "retrained - random": ("retrained", "random cell, retrained"),
}
FINISHES = {
    "supernet": figure("after"),
    "inherited": figure("inherited"),
    "retrained": figure("scratch"),
    "random cells, inherited": figure("random cells, inherited"),
    "random cell, retrained": figure("random cells, scratch"),
    "transductive": figure("transductive"),
}


def settings(rows: Rows) -> list[str]:
    """ "cifar100-5", ... in order."""
    return sorted(
        {row["draw"].rsplit("-", 1)[0] for row in rows}, key=lambda name: (name.split("-")[0], int(name.split("-")[1]))
    )


def of(rows: Rows, setting: str) -> list[dict[str, Any]]:
    """The rows of one setting."""
    return [row for row in rows if row["draw"].rsplit("-", 1)[0] == setting]


def over_draws(values: Sequence[float]) -> tuple[float, str]:
    """The mean, and half a 95 % interval by Student's t as text, since draws are few; none for a single draw."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, ""
    return mean, f" ± {100 * float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count):.1f}"


def said(values: Sequence[float]) -> str:
    """ "71.2 ± 3.4", in per cent."""
    mean, interval = over_draws(values)
    return f"{100 * mean:.1f}{interval}"


def gap(rows: Rows, one: Figure, other: Figure) -> str:
    """How much ``one`` is above ``other``, paired over draws."""
    values = [one(row) - other(row) for row in rows]
    mean, interval = over_draws(values)
    return f"{100 * mean:+.1f}{interval}"


def against_others(ours: Rows) -> Table:
    """Our steps beside classifiers on pixels."""
    rows = []
    for name in settings(ours):
        own = of(ours, name)
        seconds = sorted(row["seconds"] for row in own)
        figures = [said([column(row) for row in own]) for column in COLUMNS.values()]
        change = [gap(own, COLUMNS[one], COLUMNS[other]) for one, other in PAIRED.values()]
        rows.append([name, str(len(own)), f"{statistics.median(seconds):.1f} ({seconds[-1]:.1f})", *figures, *change])
    return Table(["task", "draws", "seconds (most)", *COLUMNS, *PAIRED], rows)


def against_autokeras(ours: Rows, peer: Rows) -> Table:
    """On the draws that both have."""
    by_draw = {row["draw"]: row["accuracy"] for row in peer}
    shared = [row | {"autokeras": by_draw[row["draw"]]} for row in ours if row["draw"] in by_draw]
    theirs, after = figure("autokeras"), COLUMNS["after 10 steps"]
    rows = []
    for name in [*settings(ours), "all"]:
        if both := shared if name == "all" else of(shared, name):
            other, mine = said([theirs(row) for row in both]), said([after(row) for row in both])
            rows.append([name, str(len(both)), other, mine, gap(both, after, theirs)])
    return Table(["task", "draws", "AutoKeras, 60 times the time", "ours", "ours - AutoKeras"], rows)


def finishes(ours: Rows) -> Table:
    """The three finishes, and random cells beside them."""
    rows = []
    for name in settings(ours):
        own = of(ours, name)
        figures = [said([column(row) for row in own]) for column in FINISHES.values()]
        rows.append([name, *figures, *(gap(own, FINISHES[one], FINISHES[other]) for one, other in CELLS.values())])
    return Table(["task", *FINISHES, *CELLS], rows)


def tables(ours: Rows, peer: Rows) -> str:
    """Three tables in Markdown: against others, against AutoKeras on the draws that both have, the three finishes."""
    return "\n\n".join(
        table.markdown() for table in (against_others(ours), against_autokeras(ours, peer), finishes(ours))
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.new_task.table", description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(tables(read_rows(options.ours), read_rows(options.peer)))


if __name__ == "__main__":
    main()
