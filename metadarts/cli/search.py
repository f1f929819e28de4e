"""``metadarts search``: meta-learn a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common


def search(
    out: Annotated[Path, typer.Option(help="Run folder to create; must not exist.")],
    data: Annotated[str, typer.Option(help=common.DATA_HELP)] = "glyphs",
    ways: Annotated[int, typer.Option(min=2, help="Classes per task.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support images per class.")] = 1,
    preset: Annotated[str, typer.Option(help="Named settings: quick, omniglot, tnas.")] = "quick",
    order: Annotated[str | None, typer.Option(help="first or second (exact).")] = None,
    engine: Annotated[str | None, typer.Option(help="task_axis, loop or higher.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after so many minutes.")] = None,
    meta_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many outer steps.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="group.field=value, as often as needed.")] = None,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Meta-learn a supernet on few-shot tasks; keep the checkpoint that is best on validation classes.

    Example: metadarts search --data glyphs --ways 5 --shots 1 --minutes 3 --out runs/demo
    """
    settings: dict[str, Any] = {
        **common.data_settings(data),
        "tasks.ways": ways,
        "tasks.shots": shots,
        "model.precision": precision,
        "training.seed": seed,
        "inner.order": order,
        "training.engine": engine,
        **_length(minutes, meta_steps),
    }
    given = {name: value for name, value in settings.items() if value is not None}
    run_search(out, preset, given | common.read_settings(set_ or []), common.prepare(device, threads))
    common.console.print(f"next: metadarts evaluate {out}   metadarts derive {out}", soft_wrap=True)


def _length(minutes: float | None, meta_steps: int | None) -> dict[str, float]:
    """What the user said of the length replaces what the preset says of it, in either unit."""
    if minutes is None and meta_steps is None:
        return {}
    return {"training.minutes": minutes or 0.0, "training.meta_steps": meta_steps or 0}


def run_search(out: Path, preset_name: str, settings: dict[str, Any], device: str) -> None:
    """Build the experiment, create the run folder and search under a progress bar."""
    from metadarts.experiments import Config, RunFolder, build, preset, with_settings
    from metadarts.experiments import search as run
    from metadarts.experiments.environment import describe
    from metadarts.experiments.search import Progress

    config = with_settings(Config(), preset(preset_name) | settings).check()
    experiment = build(config, device)
    for split in ("train", "val"):
        experiment.sampler(split)  # tasks that cannot be drawn are refused before there is a folder
    folder = RunFolder.create(out, config, describe(device))
    weights, alphas = experiment.network.count(config.tasks.ways)
    common.console.print(
        f"{config.tasks.source} {config.tasks.ways}-way {config.tasks.shots}-shot: "
        f"{weights:,} weights, {alphas} alphas; "
        f"{config.inner.order}-order, {config.inner.steps} inner steps, {config.training.tasks} tasks per meta-step; "
        f"batch norm: {config.model.bn}"
    )
    with common.bar("search") as shown:

        def watch(now: Progress) -> None:
            best = "" if now.best is None else f"  best val {now.best:.1%}"
            rate = now.step / max(now.seconds, 1e-9)
            figures = f"step {now.step}  loss {now.loss:.3f}  acc {now.accuracy:.1%}{best}  {rate:.2f} steps/s"
            shown.update(now.fraction, figures)

        run(experiment, folder, watch)
    facts = folder.load("best").facts
    common.console.print(
        f"best on validation classes: {facts['validation_accuracy']:.1%} at step {facts['step']} "
        f"(it chose the checkpoint, so it flatters); written to {out}"
    )
