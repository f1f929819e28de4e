"""``metadarts archive``: records of adapted tasks in one file, for the meta-model to learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metadarts.core.errors import ConfigError, DataError, RunError, nearest
from metadarts.store.files import is_there

from . import common

if TYPE_CHECKING:
    from metadarts.core.variants import Variants
    from metadarts.predictor.archive_check import Data, Findings
    from metadarts.predictor.task_record import TaskRecord
    from metadarts.tasks import Source

SPLITS = ("train", "val", "test")
FAULTS_SHOWN = 20
CIFAR = ("cifar-fs", "fc100")

archive = typer.Typer(help="Record adapted tasks in one file, for the meta-model to learn from.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="Archive: an SQLite file.", callback=common.is_archive)]


@archive.command("add")
def add_tasks(
    file: Annotated[
        Path, typer.Argument(help="Archive to add to; created if missing.", callback=common.can_be_written)
    ],
    run: Annotated[Path, typer.Option(help="Run folder of a finished search.", callback=common.is_run)],
    tasks: Annotated[int, typer.Option(min=1, help="Number of tasks of the split, including those recorded before.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps; default: the run's evaluate.steps.")] = None,
    data: common.MovedData = None,
    data_root: common.DataRoot = None,
    fit_memory: common.FitMemory = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    threads: common.Threads = 0,
    seed: Annotated[int, typer.Option(help="Seed for the choice of tasks.")] = 0,
) -> None:
    """Adapt tasks of a run's split, as at test time, and record each. A stopped call resumes when you repeat it.

    The run must keep its supernet to the end, as the *-supernet presets do.

    Example: metadarts archive add experience.sqlite --run runs/mine --tasks 2000
    """
    from metadarts.papers.recording import record_tasks, recorded_episodes
    from metadarts.predictor.archive import Archive
    from metadarts.training import open_run

    if split not in SPLITS:
        raise ConfigError(f"--split {split!r}: {nearest(split, SPLITS)}")
    resolved = common.prepare(device, threads)
    settings = {"evaluate.steps": steps, "training.fit_memory": fit_memory}
    chosen = open_run(run, device=resolved, data=data, data_root=data_root, settings=settings, plugins=plugin or ())
    if not chosen.folder.is_finished:
        raise RunError(f"{run}: its search has not ended, and its checkpoint may still change; end it first")
    experiment = common.experiment_of(chosen)
    recorded_episodes(experiment, split)  # before the archive is made, what cannot be recorded is refused
    with Archive.open(file, write=True) as opened, common.bar(f"adapt {tasks} {split} tasks") as shown:
        found = record_tasks(experiment, chosen.checkpoint, opened, tasks, split, seed, shown.watch)
        total = len(opened)
    added = len(found.names)
    gain = f", accuracy {found.before:.2%} before and {found.after:.2%} after adaptation" if added else ""
    common.console.print(f"tasks recorded: {added}{gain}; there already: {found.known}", soft_wrap=True)
    if found.diverged:
        common.console.print(f"not recorded, as they left the finite numbers: {found.diverged}", soft_wrap=True)
    common.console.print(f"{file}: {total} records", soft_wrap=True)


@archive.command("ls")
def list_archive(
    file: File,
    limit: Annotated[int, typer.Option(min=0, help="Also list this many records, one per line.")] = 0,
) -> None:
    """Summarise an archive: records by data, space, role and run, with their mean accuracies."""
    from itertools import islice

    from metadarts.predictor.archive import Archive

    with Archive.open(file) as opened:
        groups = opened.groups()
        common.console.print(f"{file}: {len(opened)} records, sha256 {opened.sha256}", soft_wrap=True)
        for group in groups:
            of = f"{group.source} {group.split}".strip()
            kind = "" if group.kind == "episode" else f" ({group.kind})"
            common.console.print(
                f"  {of}{kind}: {group.records} {group.role} in space {group.space.name} of {group.space.nodes} "
                f"nodes, {group.tasks} tasks, {group.genotypes} distinct genotypes, accuracy {group.before:.2%} before "
                f"and {group.after:.2%} after; run {group.run[:12]}",
                soft_wrap=True,
            )
        for record in islice(opened, limit):
            common.console.print(_line(record), soft_wrap=True)


def _line(record: TaskRecord) -> str:
    return (
        f"task {record.origin.sha256[:12]}  {record.role}  {record.before:.2%} to {record.after:.2%}  "
        f"seed {record.seed}  {record.genotype}"
    )


@archive.command("merge")
def merge_archives(
    into: Annotated[
        Path, typer.Argument(help="Archive to add to; created if missing.", callback=common.can_be_written)
    ],
    others: Annotated[
        list[Path], typer.Argument(help="Archives to add; they are not changed.", callback=common.is_archive)
    ],
) -> None:
    """Add the records of other archives; a record that is already there is not added again."""
    from metadarts.predictor.archive import Archive

    for path in others:  # all of them before the first is added
        with Archive.open(path) as other:
            if is_there(into) and path.samefile(into):
                raise ConfigError(f"{path} is the archive to add to: name others to add")
            for _ in other:
                pass
    with Archive.open(into, write=True) as opened:
        for path in others:
            with Archive.open(path) as other:
                total, added = len(other), opened.merge(other)
            common.console.print(f"{path}: {added} added, {total - added} were there already", soft_wrap=True)
        common.console.print(f"{into}: {len(opened)} records", soft_wrap=True)


@archive.command("verify")
def verify_archive(
    file: File,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Also rebuild every episode from the data in this folder, as far as they are available."),
    ] = None,
    plugin: common.Plugins = None,
) -> None:
    """Check that every record is complete, valid and named by its content, and that its alphas give its architecture.

    With a relaxation other than softmax, which is code of the user, the architecture only has to be one of the space.
    """
    from metadarts.predictor.archive import Archive
    from metadarts.predictor.archive_check import check_origins, check_records
    from metadarts.training.catalogue import load_plugins

    sources = load_plugins(plugin or ()).sources
    if data_root is not None and not is_there(data_root):
        raise ConfigError(f"--data-root {str(data_root)!r}: there is nothing at that place")
    with Archive.open(file) as opened:
        with common.bar("check records") as shown:
            found = check_records(opened, shown.watch)
        _say(file, found, "records are whole", "restore it, or merge a copy that is whole into a new one")
        if data_root is None:
            return
        with common.bar("check tasks") as shown:
            found = check_origins(opened, lambda data: open_data(data, data_root, sources), shown.watch)
        _say(file, found, "episodes can be built again", "give the data that they were recorded on")
        if found.unchecked:
            common.console.print(f"not looked at, as they are of no source: {found.unchecked} tasks", soft_wrap=True)


def _say(file: Path, found: Findings, good: str, advice: str) -> None:
    """Print what was found. Raises DataError when something is wrong."""
    for fault in found.faults[:FAULTS_SHOWN]:
        common.console.print(f"  {fault}", soft_wrap=True)
    if len(found.faults) > FAULTS_SHOWN:
        common.console.print(f"  and {len(found.faults) - FAULTS_SHOWN} more", soft_wrap=True)
    if found.faults:
        raise DataError(f"{file}: found faulty: {len(found.faults)}, see above; {advice}")
    common.console.print(f"{file}: {found.checked} {good}", soft_wrap=True)


def open_data(data: Data, root: Path | None, sources: Variants[Callable[..., Source]]) -> Source:
    """Open the data of episodes, as they were opened when they were recorded. Raises MetadartsError.

    Args:
        root: where they lie, or a folder with them in it; None for their usual place.
        sources: the table of sources, including the user's entries.
    """
    from metadarts.tasks import open_source

    with common.bar(f"read {data.source}", quiet=True) as shown:
        return open_source(
            data.opened,
            None if root is None else _place(data, root),
            size=data.size,
            channels=data.channels,
            progress=shown.watch,
            sources=sources,
        )


def _place(data: Data, root: Path) -> Path | None:
    """Where below ``root`` the data lie: in a folder or file of their name, or ``root`` itself."""
    if data.opened == "glyphs":
        return None
    names = [data.source, f"{data.source}.npz", data.opened, *(["cifar100"] if data.opened in CIFAR else [])]
    return next((root / name for name in names if is_there(root / name)), root)
