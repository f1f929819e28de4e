"""``metadarts evaluate``: measure a finished run on held-out tasks.

It is the only way to the test split (the demo ends with it), and it asks for a search that has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from metadarts.store.files import is_there

from . import common

IDENTITY = ("tasks", "queries", "precision", "episodes_sha256", "genotype", "checkpoint_step")
"""With what the file's name spells out, these tell one measurement of a run from another."""


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.", callback=common.is_run)],
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    tasks: Annotated[int, typer.Option(min=2, help="Held-out tasks.")] = 600,
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task; default: the run's.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support images per class; default: the run's.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps; default: the run's evaluate.steps.")] = None,
    bn: Annotated[
        str | None, typer.Option(help="Batch-norm statistics: transductive or support; default: as trained.")
    ] = None,
    genotype: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate this cell (a file from `derive`) with the weights of the supernet.",
            callback=common.existing("there is no file {} of a genotype; give what derive wrote"),
        ),
    ] = None,
    checkpoint: common.WhichCheckpoint = "best",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="JSON file for the result; default: evaluation-*.json in the run folder.",
            callback=common.can_be_written,
        ),
    ] = None,
    data: common.MovedData = None,
    data_root: common.DataRoot = None,
    fit_memory: common.FitMemory = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16; default: as trained.")] = None,
    threads: common.Threads = 0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out tasks; 0 gives the standard tasks.")] = 0,
) -> None:
    """Adapt a checkpoint of the run to held-out tasks and print the accuracy with its 95 % interval.

    For a run that committed, the best checkpoint is one of its cell.
    """
    from metadarts.core.errors import ConfigError, RunError
    from metadarts.store.files import write_atomically
    from metadarts.training import discretised, evaluate_run, open_run, read_genotype

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split!r}: expected val or test")
    if json_file is not None and not (is_there(json_file.parent) and os.access(json_file.parent, os.W_OK)):
        raise RunError(f"cannot write {json_file}: its folder is missing or not writable; name another place")
    if json_file is not None:
        _require_ours(json_file)
    common.require_checkpoint(checkpoint)
    resolved = common.prepare(device, threads)
    settings = {
        "tasks.ways": ways,
        "tasks.shots": shots,
        "evaluate.steps": steps,
        "training.fit_memory": fit_memory,
        "model.bn": bn,
        "model.precision": precision,
    }
    opened = open_run(
        run, checkpoint=checkpoint, device=resolved, data=data, data_root=data_root, settings=settings,
        finished=split == "test", plugins=plugin or (),
    )  # fmt: skip
    cell = None if genotype is None else read_genotype(genotype)
    if cell is not None and opened.config.cell() is not None:
        raise ConfigError(
            f"--genotype cuts a cell out of a supernet, and the checkpoint {checkpoint!r} is of one cell: leave it out"
            + (", or give --checkpoint supernet" if opened.folder.has("supernet") else "")
        )
    experiment, state = common.experiment_of(opened), opened.checkpoint
    if cell is not None:
        experiment, state = discretised(experiment, state, cell)
    with common.bar(f"evaluate on {tasks} {split} tasks") as shown:
        report = evaluate_run(experiment, state, split, tasks, shown.watch, seed=seed)
    measured = experiment.network.genotype
    facts = report.facts | {"genotype": None if measured is None else str(measured)}
    path = json_file or run / _file_name(facts, seed)
    write_atomically(path, (json.dumps(facts, indent=2) + "\n").encode())
    if cell is not None:
        common.console.print(f"the discrete cell of {genotype}, with the supernet's weights:", soft_wrap=True)
    common.console.print(
        f"{facts['source']} {facts['split']}: {facts['accuracy']:.2%} ± {facts['interval95']:.2%} "
        f"({tasks} tasks, {facts['ways']}-way {facts['shots']}-shot, {facts['queries']} queries per class, "
        f"{facts['steps']} steps, batch norm {facts['bn']}, checkpoint of step {facts['checkpoint_step']})"
    )
    for name, own in facts.get("domains", {}).items():
        half = f" ± {own['interval95']:.2%}" if "interval95" in own else ""
        common.console.print(f"  {name}: {own['accuracy']:.2%}{half} ({own['tasks']} tasks)")
    curve = "  ".join(f"{step}: {value:.1%}" for step, value in enumerate(facts["curve"]))
    common.console.print(f"accuracy after each step ({facts['curve_tasks']} tasks): {curve}")
    common.console.print(f"written to {path}", soft_wrap=True)


def _require_ours(path: Path) -> None:
    """Require that ``path`` is free, or holds what this verb wrote. Raises RunError."""
    from metadarts.core.errors import RunError
    from metadarts.store.schema import fitting_file

    if not is_there(path):
        return
    found = fitting_file(path, dict)
    if found is None or not {"accuracy", *IDENTITY} <= found.keys():
        raise RunError(f"{path} exists, and evaluate did not write it: give --json another name, or remove it first")


def _file_name(facts: dict[str, Any], seed: int) -> str:
    """The result's name in the run folder: what was measured, so that one measurement does not replace another."""
    parts = [
        "evaluation",
        facts["split"],
        f"{facts['ways']}way",
        f"{facts['shots']}shot",
        f"{facts['steps']}steps",
        facts["bn"],
        *(["cell"] if facts["genotype"] else []),
        *([f"seed{seed}"] if seed else []),
    ]
    identity = {name: facts[name] for name in IDENTITY}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return "-".join([*parts, digest[:8]]) + ".json"
