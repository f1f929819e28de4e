"""How seconds and memory of our engine grow with tasks, inner steps and channels: ``python -m benchmarks.scaling``.

One at a time around workload W1 (4 tasks, 5 steps, 16 channels; exact order), each point in a process of its own. First
runs of one task give the memory that a task, a step and a channel take, stored and recomputed. Where a point would pass
``--memory-gb`` by that measure, all its inner steps are recomputed rather than stored; where even that would not fit
into the memory that is free, its tasks are taken in parts besides. Its row says so (``checkpoint``, ``micro_batch``).
The picture docs/scaling.png shows the newest row of every point; ``--plot-only`` draws it from the rows that there are.

About 20 minutes at 2 threads with 3 repetitions, most of it the 32 and 64 tasks; ``--largest 16`` ends sooner.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.conformance import conforms
from benchmarks.peers.process import ROOT, run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, Row, append, heard, read, said
from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.spaces import darts

WEIGHT_RATE, ALPHA_RATE = 0.01, 30.0
PICTURE = ROOT / "docs" / "scaling.png"


@dataclass(frozen=True)
class Point:
    """A workload like W1, whose sizes are the defaults."""

    tasks: int = 4
    steps: int = 5
    channels: int = 16

    def graph(self, recomputed: bool) -> float:
        """What its graph holds, in units of one task, one step and one channel; the query pass counts as 3 steps.

        A query set has three times the images of a support set, but no second derivative. With all steps recomputed
        there is one step's graph at a time.
        """
        return float(self.tasks * ((1 if recomputed else self.steps) + 3) * self.channels)


@dataclass(frozen=True)
class Plan:
    """How a point is run: whether steps are recomputed, tasks in one pass, and what that is predicted to take."""

    recomputed: bool
    micro_batch: int
    megabytes: float


AXES: dict[str, tuple[int, ...]] = {
    "tasks": (1, 2, 4, 8, 16, 32, 64),
    "steps": (1, 2, 5, 10, 20),
    "channels": (8, 16, 32, 64),
}
PROBE = Point(tasks=1)


def meta_step(
    tasks: int, steps: int, channels: int, checkpoint: int, micro_batch: int, size: int = 32
) -> Callable[[], float]:
    """Workload: one exact meta-gradient at these sizes, by our engine; returns the mean query loss."""
    network = supernet(darts(), NetworkSpec(in_channels=3, channels=channels))
    params, batch = network.init(Key.from_seed(0)), random_batch(Episode(tasks=tasks, size=size))
    inner, learner = InnerLoop(steps, "sgd", WEIGHT_RATE, ALPHA_RATE, checkpoint=checkpoint), Learner(network)
    return lambda: float(meta_gradient(learner, params, batch, inner, micro_batch=micro_batch).losses.mean())


def points(largest: int) -> list[tuple[str, Point]]:
    """(axis, point) in order; on the axis of tasks none with more than ``largest``."""
    found = [(axis, replace(Point(), **{axis: value})) for axis, values in AXES.items() for value in values]
    return [(axis, point) for axis, point in found if axis != "tasks" or point.tasks <= largest]


def predicted_mb(point: Point, recomputed: bool, probe: dict[str, Any]) -> float:
    """What the process takes anyway, and the growth of ``probe`` (`PROBE`, run likewise) in proportion."""
    growth = probe["peak_mb"] - probe["start_mb"]
    return float(probe["start_mb"] + growth * point.graph(recomputed) / PROBE.graph(recomputed))


def plan(point: Point, probes: dict[bool, dict[str, Any]], budget_mb: float, free_mb: float) -> Plan:
    """Store every step where that stays within ``budget_mb``; recompute them all, in halves of the tasks, otherwise.

    Args:
        point: the sizes.
        probes: whether steps are recomputed -> what `PROBE` took.
        budget_mb: for storing.
        free_mb: what must not be passed in any case.
    """
    if (stored := predicted_mb(point, False, probes[False])) <= min(budget_mb, free_mb):
        return Plan(False, point.tasks, stored)
    size = point.tasks
    while size > 1 and predicted_mb(replace(point, tasks=size), True, probes[True]) > free_mb:
        size = -(-size // 2)
    return Plan(True, size, predicted_mb(replace(point, tasks=size), True, probes[True]))


def free_mb(otherwise: float) -> float:
    """Nine tenths of the memory that is free, in MB of 10^6 bytes; ``otherwise`` where the system does not say."""
    file = Path("/proc/meminfo")
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("MemAvailable:"):
            return 0.9 * int(line.split()[1]) * 1024 / 1e6
    return otherwise


def measured(point: Point, recomputed: bool, micro_batch: int, repetitions: int, threads: int) -> dict[str, Any]:
    """What `run_isolated` answers for ``point``."""
    kwargs = {**vars(point), "checkpoint": point.steps if recomputed else 0, "micro_batch": micro_batch}
    return run_isolated("benchmarks.scaling:meta_step", kwargs, repetitions=repetitions, threads=threads)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write every point, then draw."""
    options = _options(arguments)
    if not options.plot_only:
        if not conforms("cpu", options.threads):
            return 1
        probes = {recomputed: measured(PROBE, recomputed, 1, 1, options.threads) for recomputed in (False, True)}
        budget = 1000 * options.memory_gb
        for axis, point in points(options.largest):
            how = plan(point, probes, budget, free_mb(otherwise=budget))
            answer = measured(point, how.recomputed, how.micro_batch, options.repetitions, options.threads)
            append(options.out, [_row(axis, point, how, answer)])  # at once: should the next not fit, this one is kept
            print(f"{axis}: {point}, {how}: {min(answer['seconds']):.2f} s, {answer['peak_mb']:.0f} MB", flush=True)
    draw(read(options.out), options.picture)
    print(f"picture: {options.picture}")
    return 0


def _row(axis: str, point: Point, how: Plan, answer: dict[str, Any]) -> Row:
    return Row(
        what=axis,
        sizes=said(**vars(point)),
        engine="batched",
        order="second",
        checkpoint=point.steps if how.recomputed else 0,
        seconds=answer["seconds"],
        peak_mb=answer["peak_mb"],
        threads=answer["threads"],
        extra={"micro_batch": how.micro_batch, "predicted_mb": round(how.megabytes)},
    )


def newest(rows: list[dict[str, str]]) -> dict[str, dict[int, dict[str, str]]]:
    """axis -> its value -> the last row of that point, among rows of the last row's device and threads.

    Raises:
        DataError: when an axis has no row.
    """
    found: dict[str, dict[int, dict[str, str]]] = {axis: {} for axis in AXES}
    for row in rows:
        if (row["device"], row["threads"]) == (rows[-1]["device"], rows[-1]["threads"]) and row["what"] in found:
            found[row["what"]][heard(row["sizes"])[row["what"]]] = row
    if missing := [axis for axis, values in found.items() if not values]:
        raise DataError(f"no rows of the axes {missing} to draw: run python -m benchmarks.scaling without --plot-only")
    return found


def draw(rows: list[dict[str, str]], picture: Path) -> None:
    """Three panels, one for each axis, all scales logarithmic: seconds at the left, peak memory at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found, last = newest(rows), rows[-1]
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (axis, values) in zip(figure.subplots(1, 3), found.items(), strict=True):
        _panel(axes, axis, dict(sorted(values.items())))
    figure.suptitle(
        f"One exact meta-gradient around W1 (4 tasks, 5 inner steps, 16 channels) on {last['device']}, "
        f"threads: {last['threads']}; torch {last['torch']}, commit {last['commit']}",
        fontsize=11,
    )
    figure.savefig(picture, dpi=120)


SECONDS, MEMORY = "#1f5fa8", "#b4461e"
MARKS: dict[str, dict[str, Any]] = {
    "all steps stored": {"fillstyle": "full"},
    "all steps recomputed": {"markerfacecolor": "white"},
    "recomputed, tasks in parts": {"fillstyle": "left", "markerfacecoloralt": "white"},
}


def _panel(axes: Any, axis: str, values: dict[int, dict[str, str]]) -> None:
    """Medians with bars from p20 to p80; hollow marks where steps were recomputed."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    other, places = axes.twinx(), list(values)
    middle = [float(row["p50"]) for row in values.values()]
    below = [float(row["p50"]) - float(row["p20"]) for row in values.values()]
    above = [float(row["p80"]) - float(row["p50"]) for row in values.values()]
    axes.errorbar(places, middle, (below, above), color=SECONDS, capsize=3)
    other.plot(places, [float(row["peak_mb"]) for row in values.values()], color=MEMORY, linestyle="--")
    for place, row in values.items():
        style = MARKS[how_run(row)]
        axes.plot(place, float(row["p50"]), "o", color=SECONDS, **style)
        other.plot(place, float(row["peak_mb"]), "s", color=MEMORY, **style)
    for side, label, color in ((axes, "seconds", SECONDS), (other, "peak MB (dashed)", MEMORY)):
        side.set_yscale("log")
        side.set_ylabel(label, color=color)
        side.tick_params(axis="y", which="both", colors=color)
        side.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.yaxis.set_minor_locator(NullLocator())
    axes.set_xscale("log")
    axes.set_xticks(places, [str(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel({"steps": "inner steps", "channels": "channels of the first cell"}.get(axis, axis))
    axes.grid(True, which="major", alpha=0.3)
    shown = [name for name in MARKS if name in {how_run(row) for row in values.values()}]
    handles = [Line2D([], [], marker="o", linestyle="", color="black", **MARKS[name]) for name in shown]
    axes.legend(handles, shown, fontsize=8, loc="upper left")


def how_run(row: dict[str, str]) -> str:
    """A key of `MARKS`."""
    if int(row["micro_batch"]) < heard(row["sizes"])["tasks"]:
        return "recomputed, tasks in parts"
    return "all steps recomputed" if int(row["checkpoint"]) else "all steps stored"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.csv", help="the rows are added there")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--plot-only", action="store_true", help="measure nothing, draw the rows that there are")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="recompute steps where a point would need more")
    parser.add_argument("--largest", type=int, default=max(AXES["tasks"]), help="most tasks")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
