"""``metadarts demo``: the whole path on built-in tasks, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common
from .derive import derive_run
from .search import run_search

STEPS = 1000
MINUTES = 7.0
TASKS = 200
FEWER_TASKS = 100
"""Test tasks where the machine is too slow for all meta-steps: so its test is bounded too."""
SHARES = {"relaxation.begin": 0.02, "relaxation.finish": 0.09, "commit.drop_from": 0.02, "commit.cell": 0.1}
"""Of the meta-steps or of the minutes, whichever are over first: a quiet machine of 2 cores is through with the steps
after a third of the minutes. The preset's own shares are of time alone."""


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create; default: runs/demo-DATE-TIME.", callback=common.can_be_written),
    ] = None,
    meta_steps: Annotated[int, typer.Option(min=1, help="Meta-steps of search.")] = STEPS,
    minutes: Annotated[float, typer.Option(min=0.05, help="Stop the search after this many minutes.")] = MINUTES,
    tasks: Annotated[
        int, typer.Option(min=10, help=f"Test tasks; at most {FEWER_TASKS} if the search is stopped by time.")
    ] = TASKS,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Search on built-in characters, test on unseen alphabets, compare with simple baselines, derive the cell."""
    from metadarts.training import RunFolder

    out = out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    settings = {
        "tasks.source": "glyphs",
        **SHARES,
        "training.meta_steps": meta_steps,
        "training.minutes": minutes,
        "training.validations": 3,
        "training.seed": seed,
        "model.precision": precision,
    }
    resolved = common.prepare(device, threads)
    _build_glyphs()
    run_search(out, "quick", settings, resolved)
    taken = RunFolder.open(out).load("last").facts["step"]
    if taken < meta_steps and tasks > FEWER_TASKS:
        common.console.print(
            f"time is up after {taken} of {meta_steps} meta-steps: {FEWER_TASKS} test tasks, not {tasks}"
        )
        tasks = FEWER_TASKS
    rows = _compare(out, tasks, resolved)
    files = derive_run(out)
    known = [out / name for name in ("config.yaml", "env.json", "metrics.jsonl", "results.json", "curve.png")]
    common.console.print("files written:")
    for path in [*known, *sorted((out / "checkpoints").iterdir()), *files]:
        common.console.print(f"  {path}", soft_wrap=True)
    common.console.print(f"  watch the search again with: .venv/bin/tensorboard --logdir {out}", soft_wrap=True)
    _say_verdict(rows, taken, meta_steps)
    common.console.print("your own images, a folder of folders, one for each class:")
    for command in (
        f"adapt {out} --images PHOTOS --out tasks/mine",
        "predict tasks/mine PHOTO.jpg",
        "export tasks/mine --format onnx --out mine.onnx",
    ):
        common.console.print(f"  {common.program()} {command}", soft_wrap=True)


def _build_glyphs() -> None:
    """Draw the characters under a bar the first time; later runs read them from the cache."""
    from metadarts.tasks import glyphs

    with common.bar("glyphs: draw the built-in characters (once per machine)") as shown:
        glyphs(progress=shown.watch)


def _compare(out: Path, tasks: int, device: str) -> list[dict[str, Any]]:
    """Show the table of `metadarts.training.baselines.compare`; its rows."""
    from rich.table import Table

    from metadarts.training import open_run
    from metadarts.training.baselines import compare
    from metadarts.viz import draw_curve

    opened = open_run(out, device=device)
    experiment, checkpoint = opened.experiment(), opened.checkpoint
    cut = None
    if opened.folder.has("supernet"):
        before = open_run(out, checkpoint="supernet", device=device)
        cut = before.experiment(experiment.source), before.checkpoint
    with common.bar(f"test on {tasks} tasks from unseen alphabets") as shown:
        table = compare(experiment, checkpoint, tasks, shown.watch, cut)
    opened.folder.write_json("results.json", table)
    adapted = table["rows"][0]
    draw_curve(
        {"test tasks": table["curve"]},
        out / "curve.png",
        xlabel="inner step",
        ylabel="query accuracy",
        title="adapting to alphabets never seen",
    )
    shown_table = Table(
        "method",
        "accuracy",
        "95 % interval",
        "the first is ahead by (paired)",
        title=f"{tasks} tasks, 5-way 1-shot, unseen alphabets",
    )
    for row in table["rows"]:
        low, high = row["accuracy"] - row["interval95"], row["accuracy"] + row["interval95"]
        gain = "" if row is adapted else f"{row['adapted_gains']:+.1%} ± {row['adapted_gains_interval95']:.1%}"
        shown_table.add_row(row["method"], f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", gain)
    common.console.print(shown_table)
    if experiment.config.model.head == "shared":
        common.console.print("The un-adapted network is at chance by construction: its class rows start equal.")
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def _say_verdict(rows: list[dict[str, Any]], taken: int, meta_steps: int) -> None:
    """What the table comes to, in plain words; its last lines are what one remembers.

    Args:
        rows: of `metadarts.training.baselines.compare`.
        taken: meta-steps that the search took.
        meta_steps: that it was to take.
    """
    from metadarts.training.baselines import CUT_ROW, PIXELS_ROW, RANDOM_ROW, SUPERNET_ROW, UNADAPTED_ROW

    named = {row["method"]: row for row in rows}
    shipped, pixels = rows[0], named[PIXELS_ROW]
    what = "the cell that it ships" if SUPERNET_ROW in named else "the adapted network"
    lines = [
        f"test accuracy on unseen alphabets: {shipped['accuracy']:.1%} ± {shipped['interval95']:.1%} (95 % interval), "
        f"{what}"
    ]
    if SUPERNET_ROW in named:
        parent, own, random = (named[row]["accuracy"] for row in (SUPERNET_ROW, CUT_ROW, RANDOM_ROW))
        lines += [
            f"  the supernet, early in the run, when the cell was cut out of it: {parent:.1%}",
            f"  cells cut out of it then, before training of their own: this one {own:.1%}, random ones {random:.1%}",
        ]
    lines += [
        f"  the network before it has adapted: {named[UNADAPTED_ROW]['accuracy']:.1%}",
        f"  pixels, nearest class mean: {pixels['accuracy']:.1%}",
        f"verdict: {_verdict(pixels)}",
    ]
    if taken >= meta_steps and not _is_ahead(pixels):
        lines.append(f"  it took all of {meta_steps} meta-steps; for more: --meta-steps")
    if taken < meta_steps:
        lines.append(f"  time was up after {taken} of {meta_steps} meta-steps; for more: --minutes")
    for line in lines:
        common.console.print(line, soft_wrap=True)


def _is_ahead(pixels: dict[str, Any]) -> bool:
    """Whether what is shipped is ahead of ``pixels`` by more than the paired difference's interval."""
    return bool(pixels["adapted_gains"] > pixels["adapted_gains_interval95"])


def _verdict(pixels: dict[str, Any]) -> str:
    """What the run shows of what meta-learning is worth, by the paired difference from ``pixels``."""
    ahead, apart = pixels["adapted_gains"], pixels["adapted_gains_interval95"]
    if _is_ahead(pixels):
        return f"better than pixels by {100 * ahead:.1f} ± {100 * apart:.1f} points"
    if ahead > -apart:
        return f"no better than pixels ({100 * ahead:+.1f} ± {100 * apart:.1f} points): too few steps to judge"
    return f"worse than pixels by {-100 * ahead:.1f} ± {100 * apart:.1f} points: too few steps to judge"
