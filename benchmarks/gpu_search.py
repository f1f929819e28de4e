"""A real search in pieces, each of which ends by itself before a time limit: ``python -m benchmarks.gpu_search``.

The search of T-NAS (Lian et al., ICLR 2020) on FC100, 5-way 5-shot: preset ``tnas``, 12,500 meta-updates of 4 tasks
with 5 inner steps. It is the headline of table tnas-fc100 under the full budget, in its place in that table's folder,
so that `benchmarks.gpu_reproduce` measures it once it has ended. A piece starts the run or goes on with it, stops as a
signal would stop it, with a checkpoint, and adds a row: its steps, seconds, and what the validation classes say. Call
it again until it says that the search has ended. Meta-steps are recorded and replayed on a GPU. The run
lies in benchmarks/results/gpu, beside the rows, and is not in git: in another checkout the search starts anew, unless
the run is brought back (benchmarks/results/README.md).

Data: ``--data-root``, or $METADARTS_DATA_DIR, or shared/data beside the checkout; the first of them that has a folder
``cifar100``. Without one it says so and ends with exit code 5, which `benchmarks.gpu` takes for a skip.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import rehearsal
from benchmarks.machine import CHECKOUT, wait
from benchmarks.rows import RESULTS, Row, append, said
from metadarts.core.machine import version

if TYPE_CHECKING:
    from metadarts.training import Config, RunFolder

NOTHING_TO_RUN = 5
VARIABLE = "METADARTS_DATA_DIR"
NEEDS = {"PyYAML": "PyYAML", "msgspec": "msgspec", "safetensors": "safetensors", "filelock": "filelock",
         "tensorboard": "tensorboard", "matplotlib": "matplotlib", "pillow": "Pillow"}  # fmt: skip
TABLE, SHOTS, SEEDS = "tnas-fc100", 5, 1
FOLDER = RESULTS / "gpu" / "tnas-fc100-full"
"""Beside the rows; not in git. Copied to another machine, it is gone on with there."""
TABLES_RUN = FOLDER / "runs" / f"headline-{SHOTS}shot-seed0"
REHEARSED: dict[str, Any] = {
    "tasks.source": "glyphs", "tasks.ways": 2, "tasks.shots": 1, "tasks.queries": 1,
    "macro.channels": 2, "space.nodes": 1, "macro.stem": (2, 4), "inner.steps": 1,
    "training.meta_steps": 4, "training.tasks": 1, "training.validations": 1, "training.validation_tasks": 2,
    "evaluate.steps": 1, "evaluate.queries": 1, "evaluate.batch": 2,
}  # fmt: skip
"""Settings that make the search one of seconds."""


@dataclass(frozen=True)
class Piece:
    """What one process did for the search.

    Args:
        first, last: outer steps done before it and after it.
        seconds: in the search, without starting up.
        start_seconds: before its first step: imports, data, memory plan.
        total_seconds: of the search so far, all pieces together.
        finished: whether the search has ended.
        accuracy: of the newest validation; None before the first.
        best: the best accuracy so far.
    """

    first: int
    last: int
    seconds: float
    start_seconds: float
    total_seconds: float
    finished: bool
    accuracy: float | None
    best: float | None


def configured(settings: dict[str, Any]) -> Config:
    """The table's headline, with ``settings``."""
    from metadarts.papers.reproduction import table_named

    spec = table_named(TABLE)
    return spec.trainings("full", SHOTS)[0].config(spec.source(None)[1], SHOTS, 0, settings)


def config_of(path: Path) -> Config:
    """What the run at ``path`` was begun with."""
    from metadarts.training import RunFolder

    return RunFolder.open(path).config()


def piece(path: Path, settings: dict[str, Any], device: str, seconds: float) -> Piece:
    """Start or go on with the run at ``path`` for at most ``seconds``, starting up included."""
    start = time.monotonic()
    from metadarts.training import RunFolder, build, search
    from metadarts.training.environment import describe
    from metadarts.training.memory_plan import plan_search
    from metadarts.training.search import SearchProgress, SearchStopped

    there = path.exists()
    run = RunFolder.open(path) if there else None
    config = run.config().check() if run else configured(settings)
    if run and run.is_finished:
        return _told(run, before=_step(run), seconds=0.0, start_seconds=0.0)
    if "tasks.file" in settings:  # the data may lie elsewhere on this machine
        config = replace(config, tasks=replace(config.tasks, file=settings["tasks.file"]))
    experiment = build(config, device)
    plan = plan_search(experiment, run)
    if run is None:
        facts = describe(device) | {"data_sha256": experiment.source.content_sha256, "memory": plan.facts()}
        path.parent.mkdir(parents=True, exist_ok=True)
        run = RunFolder.create(path, config, facts)
    before, began, said_at = _step(run), time.monotonic(), time.monotonic()
    print(f"{plan}\nsearch from step {before}, {began - start:.1f} s after the start", flush=True)

    def watch(now: SearchProgress) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > 20:
            said_at = time.monotonic()
            rate = (now.step - before) / (said_at - began)
            print(f"step {now.step}  loss {now.loss:.3f}  acc {now.accuracy:.1%}  {rate:.1f} steps/s", flush=True)

    try:
        search(replace(experiment, config=plan.apply(config)), run, watch, lambda: time.monotonic() - start > seconds)
    except SearchStopped as stopped:
        print(stopped, flush=True)
    wait(device)
    return _told(run, before, time.monotonic() - began, began - start)


def _step(run: RunFolder) -> int:
    """Where ``run`` stands."""
    return int(run.load("last").facts["step"]) if run.has("last") else 0


def _told(run: RunFolder, before: int, seconds: float, start_seconds: float) -> Piece:
    validations, last = run.records("validate"), run.load("last").facts
    return Piece(
        first=before,
        last=int(last["step"]),
        seconds=seconds,
        start_seconds=start_seconds,
        total_seconds=float(last["seconds"]),
        finished=run.is_finished,
        accuracy=float(validations[-1]["accuracy"]) if validations else None,
        best=None if last["best"] is None else float(last["best"]),
    )


def row(done: Piece, config: Config, device: str, threads: int) -> Row:
    """A line of one piece; its percentiles are those of one number, the piece's seconds."""
    tasks, training, steps = config.tasks, config.training, done.last - done.first
    sizes = said(
        source=tasks.source, ways=tasks.ways, shots=tasks.shots, tasks=training.tasks, steps=config.inner.steps
    )
    return Row(
        what="search",
        sizes=sizes,
        engine="replayed" if device == "cuda" and training.capture else "step by step",
        order=config.inner.order,
        checkpoint=None,
        seconds=[done.seconds],
        peak_mb=None,
        threads=threads,
        device=device,
        extra={
            "first_step": done.first,
            "last_step": done.last,
            "steps_per_s": round(steps / done.seconds, 3) if done.seconds else None,
            "start_seconds": round(done.start_seconds, 1),
            "total_seconds": round(done.total_seconds, 1),
            "finished": int(done.finished),
            "validation_accuracy": done.accuracy,
            "best_accuracy": done.best,
        },
    )


def data_root(asked: Path | None) -> Path | None:
    """CIFAR-100's folder; None where there is none."""
    if asked:
        return asked if asked.exists() else None
    places = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    places += [CHECKOUT / "shared" / "data", CHECKOUT.parent / "shared" / "data"]
    return next((place / "cifar100" for place in places if (place / "cifar100").is_dir()), None)


def why_skipped(options: argparse.Namespace) -> str:
    """What is missing on this machine, packages or data; empty where nothing is."""
    if missing := [name for package, name in NEEDS.items() if version(package) is None]:
        return f"skipped, not installed: {', '.join(missing)}"
    if not options.rehearse and data_root(options.data_root) is None:
        return f"skipped, no CIFAR-100: give --data-root, or set ${VARIABLE} to the folder that holds cifar100"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Some pieces, printed and written."""
    options = _options(arguments)
    rehearsal.check_options(options)
    if why := why_skipped(options):
        print(f"search: {why}")
        return NOTHING_TO_RUN
    settings = dict(REHEARSED) if options.rehearse else {"tasks.file": str(data_root(options.data_root))}
    other = {"training.meta_steps": options.meta_steps} if options.meta_steps else {}
    other |= dict(pair.split("=", 1) for pair in options.set)
    if (other or options.rehearse) and options.run == TABLES_RUN:
        raise SystemExit("search: another search than the table's needs another folder: name it with --run")
    import torch

    torch.set_num_threads(options.threads)
    settings |= other
    for _ in range(options.pieces):
        done = piece(options.run, settings, options.device, options.seconds)
        if done.seconds:
            append(options.out, [row(done, config_of(options.run), options.device, options.threads)])
        rate = (done.last - done.first) / max(done.seconds, 1e-9)
        found = "" if done.accuracy is None else f", validation accuracy {done.accuracy:.1%}, best {done.best:.1%}"
        print(
            f"steps {done.first} to {done.last} in {done.seconds:.1f} s, {rate:.2f} meta-steps/s; "
            f"{done.total_seconds:.1f} s in all{found}",
            flush=True,
        )
        if done.finished:
            print(f"the search has ended: {options.run}")
            break
        print(f"not ended: call it again to go on with {options.run}", flush=True)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu" / "search.csv", help="the rows are added there")
    parser.add_argument("--run", type=Path, default=TABLES_RUN, help="run folder, made or resumed")
    parser.add_argument("--data-root", type=Path, default=None, help="CIFAR-100, as `metadarts search` takes it")
    parser.add_argument("--seconds", type=float, default=500.0, help="a piece stops itself after these")
    parser.add_argument("--pieces", type=int, default=1, help="how many at most")
    parser.add_argument("--meta-steps", type=int, default=0, help="for another length than the preset's")
    parser.add_argument("--set", nargs="*", default=[], help="group.field=value of a run that is not begun yet")
    parser.add_argument("--threads", type=int, default=2)
    rehearsal.add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
