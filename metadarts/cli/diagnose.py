"""``metadarts diagnose``: whether a run's architectures are specific to their tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common

if TYPE_CHECKING:
    from metadarts.papers.diagnosis import Diagnosis


def diagnose(
    run: Annotated[Path, typer.Argument(help="Run folder.", callback=common.is_run)],
    tasks: Annotated[int, typer.Option(min=2, help="Held-out tasks.")] = 200,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: RUN/diagnosis.", callback=common.can_be_written)
    ] = None,
    checkpoint: common.WhichCheckpoint = "best",
    data: common.MovedData = None,
    data_root: common.DataRoot = None,
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

    Example: metadarts diagnose runs/mine --tasks 100
    """
    from metadarts.core.errors import ConfigError
    from metadarts.papers.diagnosis import as_text, require_diagnosable
    from metadarts.papers.diagnosis import diagnose as measure
    from metadarts.store.files import make_folder
    from metadarts.training import open_run

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split!r}: expected val or test")
    common.require_checkpoint(checkpoint)
    resolved = common.prepare(device, threads)
    settings = {"training.fit_memory": fit_memory}
    opened = open_run(
        run, checkpoint=checkpoint, device=resolved, data=data, data_root=data_root, settings=settings,
        finished=split == "test", plugins=plugin or (),
    )  # fmt: skip
    experiment = common.experiment_of(opened)
    require_diagnosable(experiment)
    place = out or run / "diagnosis"
    make_folder(place)
    with common.bar(f"diagnose on {tasks} {split} tasks") as shown:
        found = measure(experiment, opened.checkpoint, tasks, split, seed, shown.watch)
    written = _write(found, place)
    common.console.page(as_text(found))
    for path in written:
        common.console.print(f"written to {path}", soft_wrap=True)


def _write(found: Diagnosis, place: Path) -> list[Path]:
    from metadarts.papers.diagnosis import as_markdown, draw_diagnosis
    from metadarts.store.files import write_atomically

    texts = {
        "diagnosis.md": as_markdown(found) + "\n![what replacing the architecture costs](diagnosis.png)\n",
        "diagnosis.json": json.dumps(found.as_json(), indent=2) + "\n",
    }
    for name, text in texts.items():
        write_atomically(place / name, text.encode())
    draw_diagnosis(found, place / "diagnosis.png")
    return [place / name for name in (*texts, "diagnosis.png")]
