"""``metadarts metamodel``: learn from an archive to predict architectures, and evaluate the predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metadarts.core.errors import ConfigError, DataError, RunError
from metadarts.store.files import is_there

from . import common

if TYPE_CHECKING:
    from metadarts.core.types import TaskBatch
    from metadarts.predictor import MetaModel, Stem, TaskRecord
    from metadarts.predictor.meta_dataset import MetaDataset
    from metadarts.predictor.tuning import Tried
    from metadarts.tasks import Source
    from metadarts.training import OpenRun

metamodel = typer.Typer(
    help="Predict the architecture of a task, learnt from an archive of tasks.", no_args_is_help=True
)

SHOWN = 5
is_model = common.existing("{}: cannot be read (No such file or directory); give what `metamodel train` wrote")
Model = Annotated[Path, typer.Argument(help="Meta-model: a file from `metamodel train`.", callback=is_model)]


@metamodel.command("train")
def train(
    archive: Annotated[
        Path, typer.Argument(help="Archive of adapted tasks; see `metadarts archive`.", callback=common.is_archive)
    ],
    out: Annotated[Path, typer.Option(help=".safetensors file to write.", callback=common.can_be_written)],
    start: Annotated[
        str,
        typer.Option(
            help="Network whose stem encodes the images: a run folder, a start, or auto (a bundled supernet)."
        ),
    ] = "auto",
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose hyper-parameters by cross-validation over tasks.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs over the tasks; with --tune the maximum.")] = 30,
    split: Annotated[str, typer.Option(help="Learn from tasks of this split of the classes.")] = "train",
    run: Annotated[
        str | None,
        typer.Option(help="Learn only from tasks of this checkpoint: a prefix of its hash (see archive ls)."),
    ] = None,
    data_root: common.DataRoot = None,
    plugin: common.Plugins = None,
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Train a meta-model on archived tasks: from a task's images to the architecture that the task adapts to.

    Example: metadarts metamodel train experience.sqlite --start runs/demo --tune --out meta.safetensors
    """
    from metadarts.predictor import Archive, MetaModel, PredictorSpec, Rebuilder, Selection, save_model
    from metadarts.predictor.meta_dataset import meta_datasets
    from metadarts.predictor.task_record import ADAPTED, EPISODE

    _require_free(out, ".safetensors")
    common.prepare("cpu", threads)
    with Archive.open(archive) as opened:
        known = list(opened.records(Selection(kind=EPISODE, split=split, role=ADAPTED)))
        everything = len(opened)
    records = [each for each in known if run is None or each.run.startswith(run)]
    facts = _alike(archive, records, split)
    if len(records) < everything:
        common.console.print(
            f"not learnt from: {everything - len(records)} records of another kind, split, role or run",
            soft_wrap=True,
        )
    sources = _Sources(records, data_root, plugin or ())
    stem, start_name = _stem(start, sources, plugin or ())
    rebuild = Rebuilder(*sources.opened)
    model = MetaModel(records[0].space, stem, PredictorSpec(epochs=epochs, seed=seed))
    with common.bar(f"look at {len({each.origin.sha256 for each in records})} tasks") as shown:
        datasets = meta_datasets(records, rebuild, stem, model.space, shown.watch)
    facts["start"] = start_name
    if tune:
        tried = _tuned(model, datasets)
        facts["tuned"] = [_setting(each) for each in tried]
        model = MetaModel(model.space, stem, tried[0].spec)
    with common.bar("train") as shown:
        model.learn(datasets, shown.watch)
    found = model.scores(datasets)
    sha256 = save_model(model, out, facts)
    common.console.print(
        f"on its {model.fitted} training tasks: {found.architecture:.3f} nats a choice; alphas at a squared distance "
        f"of {found.alphas:.3f} (1 is that of their mean)",
        soft_wrap=True,
    )
    common.console.print(f"written to {out}, sha256 {sha256[:12]}", soft_wrap=True)


def _alike(path: Path, records: list[TaskRecord], split: str) -> dict[str, Any]:
    """What records to learn from have in common, and a name for all of them. Raises DataError where they differ.

    Accuracies and alphas of two supernets, or after other numbers of steps, cannot be compared.
    """
    from metadarts.predictor.archive_rows import encode, json_text

    if not records:
        raise DataError(f"{path} holds no adapted task of split {split!r} to learn from (see archive ls, archive add)")
    for name, of in (
        ("checkpoints", {each.run[:12] for each in records}),
        ("settings", {json_text("settings", each.settings) for each in records}),
        ("sources", {str(each.origin.facts["content_sha256"])[:12] for each in records}),
        ("spaces", {each.space for each in records}),
    ):
        if len(of) > 1:
            told = ", ".join(sorted(map(str, of)))[:300]
            raise DataError(f"{path} holds tasks of {len(of)} {name} ({told}): choose those of one with --run")
    digest = hashlib.sha256("".join(sorted(encode(each).id for each in records)).encode()).hexdigest()
    first = records[0]
    return {
        "experiences_sha256": digest,
        "experiences": len(records),
        "split": split,
        "run": first.run,
        "settings": dict(first.settings),
    }


def _require_free(out: Path, suffix: str) -> None:
    if out.suffix != suffix:
        raise RunError(f"{out}: expected a name ending in {suffix}")
    if is_there(out):
        raise RunError(f"{out} exists: give another name, or remove it first")
    if not is_there(out.parent):
        raise RunError(f"{out}: there is no folder {out.parent}; make it first")


@dataclass(frozen=True)
class _Sources:
    """The data of some task records, read when they are first asked for."""

    records: list[TaskRecord]
    root: Path | None
    plugins: Sequence[str]

    @cached_property
    def opened(self) -> list[Source]:
        """One source for each way in which the records' data were opened. Raises MetadartsError."""
        from metadarts.predictor.archive_check import data_of
        from metadarts.training.catalogue import load_plugins

        from .archive import open_data

        sources = load_plugins(self.plugins).sources
        return [open_data(data, self.root, sources) for data in dict.fromkeys(map(data_of, self.records))]


def _stem(start: str, sources: _Sources, plugins: Sequence[str]) -> tuple[Stem, str]:
    """The stem of a run's best checkpoint or of a start; "auto" is the bundled one for the data's channels."""
    from metadarts.fewshot.start import AUTO, open_start, suited_start
    from metadarts.predictor import Stem
    from metadarts.training import RunFolder

    if is_there(Path(start)) and Path(start).is_dir():  # neither its configuration nor its data are needed
        folder = RunFolder.open(Path(start))
        return Stem.of_params(folder.load("best").params), folder.path.name
    name = start
    if start == AUTO:
        name = suited_start(max(source.channels for source in sources.opened), alphas=True)
    found = open_start(name, plugins)
    return Stem.of_params(found.params), found.name


def _tuned(model: MetaModel, datasets: list[MetaDataset]) -> list[Tried]:
    from metadarts.predictor import tune

    with common.bar("cross-validate") as shown:
        tried = tune(model, datasets, progress=shown.watch)
    for each in tried[:SHOWN]:
        spec = each.spec
        common.console.print(
            f"  held-out loss {each.loss:.4f}: width {spec.width}, rate {spec.rate:g}, decay {spec.decay:g}, "
            f"{spec.length} epochs",
            soft_wrap=True,
        )
    return tried


def _setting(tried: Tried) -> dict[str, float]:
    from metadarts.predictor.tuning import as_row

    return as_row(tried)


@metamodel.command("predict")
def predict(
    model: Model,
    images: Annotated[
        Path,
        typer.Option(
            help="Folder with one subfolder per class, .csv of path,label, or .npz.", callback=common.are_images
        ),
    ],
    start: Annotated[
        str, typer.Option(help="Network that sets the image size and channels: a run, a start's file, or auto.")
    ] = "auto",
    candidate: Annotated[
        list[Path] | None, typer.Option(help="Rank these genotypes for the task, most likely first. Repeatable.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Also write the cell and the alphas to start from to this file.",
            callback=common.can_be_written,
        ),
    ] = None,
    plugin: common.Plugins = None,
    threads: common.Threads = 0,
) -> None:
    """Predict the architecture for a task from its labelled images, without an adaptation step.

    The cell is the most likely one. The alphas to start from are a separate prediction and may derive to another cell.

    Example: metadarts metamodel predict meta.safetensors --images PHOTOS
    """
    import torch

    from metadarts.fewshot import Adapter
    from metadarts.fewshot.labelled import read_labelled
    from metadarts.predictor import open_model
    from metadarts.store.files import write_atomically

    common.prepare("cpu", threads)
    if json_file is not None:
        _require_free(json_file, ".json")
    opened, _ = open_model(model)
    task = Adapter.open(start, read_labelled(images), plugins=plugin or ()).task
    for note in task.facts["notes"]:
        common.console.print(f"note: {note}", soft_wrap=True)
    support = task.support
    batch = support.batch(torch.arange(len(support.labels)))
    channels, seen = batch.support_images.shape[2], opened.extractor.in_channels
    if channels != seen:
        raise ConfigError(
            f"{model} sees images of {seen} channels, {images} has {channels} as --start {start} takes them: give the "
            "start that it was trained with"
        )
    said = opened.predict(batch)
    (genotype,) = said.genotypes()
    common.console.print(str(genotype), soft_wrap=True)
    if candidate:
        _rank(opened, batch, candidate)
    if json_file is not None:
        tables = {cell: table[0].tolist() for cell, table in said.alphas.items()}
        text = json.dumps({"genotype": json.loads(genotype.to_json(opened.space.name)), "alphas": tables})
        write_atomically(json_file, (text + "\n").encode())
        common.console.print(f"written to {json_file}", soft_wrap=True)


def _rank(model: MetaModel, batch: TaskBatch, paths: list[Path]) -> None:
    from metadarts.training import read_genotype

    scores = model.rank(batch, [read_genotype(path) for path in paths])[0].tolist()
    for score, path in sorted(zip(scores, paths, strict=True), key=lambda pair: -pair[0]):
        common.console.print(f"  {score:10.3f} nats  {path}", soft_wrap=True)


@metamodel.command("evaluate")
def evaluate(
    model: Annotated[Path | None, typer.Argument(help="Meta-model; leave out with --table.", callback=is_model)] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder whose adapted tasks the meta-model was trained on.", callback=common.is_run),
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Held-out tasks.")] = 200,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    cells: Annotated[bool, typer.Option("--cells/--no-cells", help="Also evaluate discrete cells.")] = True,
    table: Annotated[
        Path | None,
        typer.Option(help="Evaluate on a table of architectures instead (TransNAS-Bench-101, NAS-Bench-201)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="With --table: number of repetitions.")] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.", callback=common.can_be_written)
    ] = None,
    data_root: common.DataRoot = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Evaluate predictions: on held-out tasks of a run, or on tasks or devices left out of a table.

    Example: metadarts metamodel evaluate meta.safetensors --run runs/demo --json figures.json
    """
    from metadarts.store.files import write_atomically
    from metadarts.training import open_run

    if json_file is not None:
        _require_free(json_file, ".json")
        _require_free(json_file.with_suffix(".md"), ".md")
    resolved = common.prepare(device, threads)
    if table is not None and model is None and run is None:
        page, told = _evaluate_table(table, seeds, json_file)
    elif table is not None or model is None or run is None:
        raise ConfigError("give a meta-model and --run, or --table alone")
    else:
        opened = open_run(run, device=resolved, data_root=data_root, finished=split == "test", plugins=plugin or ())
        page, told = _evaluate_run(model, opened, tasks, split, cells, seed)
    if json_file is not None:
        write_atomically(json_file, (json.dumps(told) + "\n").encode())
        write_atomically(json_file.with_suffix(".md"), page.encode())
    common.console.page(page)
    if json_file is not None:
        common.console.print(f"written to {json_file} and {json_file.with_suffix('.md')}", soft_wrap=True)


def _evaluate_table(table: Path, seeds: int, json_file: Path | None) -> tuple[str, dict[str, Any]]:
    """The page and the figures; beside ``json_file`` also a picture of each search space."""
    from metadarts.predictor.tabular import draw_result, evaluate_table

    with common.bar(f"{table.name}, {seeds} seeds") as shown:
        report = evaluate_table(table, seeds, progress=shown.watch)
    if json_file is not None:
        for result in report.results:
            picture = json_file.with_name(f"{json_file.stem}-{result.name}.svg")
            draw_result(result, picture)
            common.console.print(f"drawn in {picture}", soft_wrap=True)
    return report.as_markdown(), report.as_json()


def _evaluate_run(
    path: Path, run: OpenRun, tasks: int, split: str, cells: bool, seed: int
) -> tuple[str, dict[str, Any]]:
    from metadarts.papers.prediction import study_prediction
    from metadarts.papers.prediction_page import as_markdown
    from metadarts.papers.recording import run_of
    from metadarts.predictor import open_model

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split!r}: expected val or test, whose classes nothing was learnt from")
    model, facts = open_model(path)
    if facts.get("split") == split:
        raise ConfigError(f"{path} was fitted on tasks of split {split!r}: measure it on the other")
    experiment, checkpoint = common.experiment_of(run), run.checkpoint
    if facts.get("run") != run_of(checkpoint):
        raise ConfigError(
            f"{path} was fitted on tasks of another checkpoint than the best of {run.folder.path}: give its own run"
        )
    with common.bar(f"predict and adapt {tasks} tasks") as shown:
        study = study_prediction(experiment, checkpoint, model, tasks, split, seed, cells, progress=shown.watch)
    return as_markdown(study), study.as_json() | {"metamodel": facts}
