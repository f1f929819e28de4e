"""``metadarts diagnose``: whether the architectures of a run are specific to their tasks, or of a family could be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metadarts.store.files import make_folder, write_atomically

from . import common


def diagnose(
    things: Annotated[
        list[str], typer.Argument(metavar="RUN|DATA...", help="A run folder; with --gate, names or paths of data.")
    ],
    is_gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Before any search: train each operation alone on DATA and say whether choosing by task can help.",
        ),
    ] = False,
    tasks: Annotated[
        int | None, typer.Option(min=2, help="Held-out tasks: 200; with --gate 60 of each domain.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="val or test; default: test, with --gate val.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; default: RUN/diagnosis, with --gate runs/gate.", callback=common.can_be_written
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Of the run: best (default), last or supernet.", show_default=False)
    ] = None,
    data: common.MovedData = None,
    data_root: common.DataRoot = None,
    ways: Annotated[int | None, typer.Option(min=2, help="Of a gate: classes per task; 5.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Of a gate: support images per class; 5.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of a gate: updates of each network; 150.")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Of a gate: trainings of each network; 2.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Of a gate: group.field=value, as of search. Repeatable.")
    ] = None,
    fit_memory: common.FitMemory = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    threads: common.Threads = 0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out tasks; 0 gives the standard tasks.")] = 0,
) -> None:
    """Test whether the architectures of held-out tasks are specific to their tasks: swap, freeze and redraw them.

    Prints one page and writes it as diagnosis.md, together with diagnosis.json (also per task) and diagnosis.png.

    Takes a few times as long as `evaluate` on as many tasks: each task is learnt at most ten times.

    The run must be a supernet whose inputs are chosen by rule, as the *-supernet presets search it.

    With --gate it needs no run: it trains cells of one operation, and a few mixed ones, on the tasks of DATA (several
    DATA are the domains of one mixture), splits the variance of their accuracies, and says whether any search for
    architectures of tasks can help. Writes gate.md, gate.json and gate.png.

    Example: metadarts diagnose runs/mine --tasks 100

    Example: metadarts diagnose --gate omniglot cifar-fs glyphs
    """
    from metadarts.core.errors import ConfigError

    if split not in (None, "val", "test"):
        raise ConfigError(f"--split {split!r}: expected val or test")
    of_gate = {"--ways": ways, "--shots": shots, "--steps": steps, "--seeds": seeds, "--set": settings}
    of_run = {"--checkpoint": checkpoint, "--data": data, "--fit-memory": fit_memory}
    if odd := [name for name, value in (of_run if is_gate else of_gate).items() if value is not None]:
        mode = "a gate has no run" if is_gate else "only --gate trains networks"
        raise ConfigError(f"{odd[0]}: {mode}; leave it out")
    if is_gate:
        run_gate(
            things, tasks=tasks or 60, split=split or "val", out=out or Path("runs/gate"), data_root=data_root,
            ways=ways or 5, shots=shots or 5, steps=steps or 150, seeds=seeds or 2, settings=settings or [],
            plugins=plugin or [], device=device, threads=threads, seed=seed,
        )  # fmt: skip
        return
    if len(things) > 1:
        raise ConfigError(f"expected one run folder, got {len(things)}; several data are for --gate")
    run = common.is_run(Path(things[0]))
    diagnose_run(
        run, tasks=tasks or 200, split=split or "test", out=out or run / "diagnosis", checkpoint=checkpoint or "best",
        data=data, data_root=data_root, fit_memory=fit_memory, plugins=plugin or [], device=device, threads=threads,
        seed=seed,
    )  # fmt: skip


def diagnose_run(
    run: Path,
    *,
    tasks: int,
    split: str,
    out: Path,
    checkpoint: str,
    data: str | None,
    data_root: Path | None,
    fit_memory: bool | None,
    plugins: list[str],
    device: str,
    threads: int,
    seed: int,
) -> None:
    """Swap, freeze and redraw the architectures of a run; arguments as the options of `diagnose`."""
    from metadarts.papers.diagnosis import as_markdown, as_text, draw_diagnosis, require_diagnosable
    from metadarts.papers.diagnosis import diagnose as measure
    from metadarts.training import open_run

    common.require_checkpoint(checkpoint)
    resolved = common.prepare(device, threads)
    opened = open_run(
        run, checkpoint=checkpoint, device=resolved, data=data, data_root=data_root,
        settings={"training.fit_memory": fit_memory}, finished=split == "test", plugins=plugins,
    )  # fmt: skip
    experiment = common.experiment_of(opened)
    require_diagnosable(experiment)
    make_folder(out)
    with common.bar(f"diagnose on {tasks} {split} tasks") as shown:
        found = measure(experiment, opened.checkpoint, tasks, split, seed, shown.watch)
    page = as_markdown(found) + "\n![what replacing the architecture costs](diagnosis.png)\n"
    draw_diagnosis(found, out / "diagnosis.png")
    _present(as_text(found), page, found.as_json(), out, "diagnosis")


def run_gate(
    named: list[str],
    *,
    tasks: int,
    split: str,
    out: Path,
    data_root: Path | None,
    ways: int,
    shots: int,
    steps: int,
    seeds: int,
    settings: list[str],
    plugins: list[str],
    device: str,
    threads: int,
    seed: int,
) -> None:
    """Train each operation alone on the tasks of the ``named`` data; arguments as the options of `diagnose`."""
    for each in named:
        common.is_data(each)
    from metadarts.papers.gate import GatePlan, as_markdown, as_text, draw_gate, gate
    from metadarts.training import Config, data_settings, load_plugins, with_settings

    resolved = common.prepare(device, threads)
    catalogue = load_plugins(plugins)
    joined = named[0] if len(named) == 1 else f"mixture:{','.join(named)}"
    fixed = {
        "tasks.ways": ways, "tasks.shots": shots, "model.head": "prototype", "training.meta_steps": steps,
        "space.none": False,
    }  # fmt: skip
    chosen = fixed | data_settings(joined, data_root, catalogue) | common.read_settings(settings)
    experiment = common.open_experiment(with_settings(Config(catalogue=catalogue), chosen).check(), resolved)
    make_folder(out)
    plan = GatePlan(steps=steps, seeds=seeds, tasks=tasks, split=split, seed=seed)
    with common.bar(f"gate of {joined}") as shown:
        found = gate(experiment, plan, shown.watch)
    page = as_markdown(found) + "\n![accuracy of each operation in each domain](gate.png)\n"
    draw_gate(found, out / "gate.png")
    _present(as_text(found), page, found.as_json(), out, "gate")


def _present(text: str, page: str, figures: dict[str, Any], place: Path, name: str) -> None:
    """Print ``text`` and write the page and the figures beside the picture, which is there already."""
    for ending, content in ((".md", page), (".json", json.dumps(figures, indent=2) + "\n")):
        write_atomically(place / f"{name}{ending}", content.encode())
    common.console.page(text)
    for ending in (".md", ".json", ".png"):
        common.console.print(f"written to {place / f'{name}{ending}'}", soft_wrap=True)
