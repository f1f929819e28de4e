"""``metadarts adapt``: learn a new task from a few images of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metadarts.core.errors import ConfigError, nearest

from . import common
from .signals import StopRequest, stop_on_signals

if TYPE_CHECKING:
    from metadarts.fewshot.adapter import Adapter
    from metadarts.fewshot.labelled import Labelled
    from metadarts.fewshot.task import Solution, Step
    from metadarts.predictor import MetaModel

ALL = "all"
META, PREDICTED = "meta", "predicted"
HELD_OUT = 0.25


def adapt(
    start: Annotated[
        str,
        typer.Argument(
            help="Run folder, file of a start, bundled start (glyphs, cifar-fs, glyphs-cell, cifar-fs-cell), or auto.",
            callback=common.name_or_existing(
                "no start {}: expected a run folder, a start's file, or a name; there is nothing at that path"
            ),
        ),
    ],
    images: Annotated[
        Path,
        typer.Option(
            help="Folder with one subfolder per class, .csv of path,label, or .npz of images and label.",
            callback=common.are_images,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Task folder to create; must not exist.", callback=common.can_be_written)],
    begin: Annotated[
        str,
        typer.Option(
            "--start",
            help="Initial alphas: meta (those of the start) or predicted (by --metamodel, or by the start itself).",
        ),
    ] = META,
    metamodel: Annotated[
        Path | None, typer.Option(help="Meta-model for --start predicted: a file from `metamodel train`.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Inner steps on the weights, and on the alphas of a supernet.")
    ] = 10,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Time limit: take no step that would end later; keep the best so far.")
    ] = None,
    finish: Annotated[
        str, typer.Option(help="Final network: supernet (cell, if the run committed), inherited, retrained, or all.")
    ] = "supernet",
    more_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the derived cell; default: --steps, or 100 for retrained.")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="Fraction of each class to hold out for evaluation; default: 0.25."),
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support images per class; evaluate on the rest.")] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Also record the task in this archive of task records (the meta-model learns only from episodes)."
        ),
    ] = None,
    plugin: common.Plugins = None,
    device: common.Device = "cpu",
    precision: common.Precision = "fp32",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Adapt a start to your own images: the weights, and for a supernet also the architecture.

    Then use `predict` or `export` with the task folder.

    Example: metadarts adapt auto --images PHOTOS --steps 10 --out tasks/mine
    """
    from metadarts.fewshot.adapter import Adapter
    from metadarts.fewshot.labelled import hold_out, notes_on_copies, read_labelled
    from metadarts.fewshot.learn import AdaptSettings
    from metadarts.fewshot.task import CELL, FINISHES, SUPERNET, finish_named
    from metadarts.predictor.archive_rows import space_text
    from metadarts.training import RunFolder

    finish = finish_named(finish, (*FINISHES, ALL))
    if precision != "fp32":
        raise ConfigError("adapt computes in fp32: leave out --precision")
    if more_steps is not None and finish in (SUPERNET, CELL):
        raise ConfigError("--more-steps are those of a derived cell: give --finish inherited, retrained or all with it")
    if held_out is not None and shots is not None:
        raise ConfigError("give --held-out or --shots, not both: each says which images are learnt from")
    model = _metamodel(begin, metamodel)
    common.prepare(device, threads)
    RunFolder.require_new(out)  # before minutes go into reading images
    given = read_labelled(images)
    learnt, looked_at = hold_out(given, HELD_OUT if held_out is None else held_out, shots, seed)
    record = _recorder(archive, images, learnt, looked_at)
    settings = AdaptSettings(steps, seconds)
    adapter = Adapter.open(
        start,
        learnt,
        settings=settings,
        held_out=looked_at,
        seed=seed,
        device=device,
        plugins=plugin or (),
        alphas=archive is not None or model is not None,
    )
    adapter.task.facts["notes"] += notes_on_copies(given)
    chosen = adapter.finishes if finish == ALL else (adapter.finish_of(finish),)
    if more_steps is not None and chosen == adapter.finishes[:1]:
        raise ConfigError(f"--more-steps: the start {start} is one cell; its finish {finish} takes --steps alone")
    if archive is not None:
        if adapter.start.is_cell or adapter.start.network.kept is not None:
            kind = "is one cell" if adapter.start.is_cell else "has dropped candidates"
            raise ConfigError(f"--archive records adapted alphas: the start {start} {kind}, give a whole supernet")
        space_text(adapter.start.network.space)  # before the steps, whose result an archive cannot hold
    if begin == PREDICTED:
        adapter.begin_at_prediction(model)
    _say_task(adapter, looked_at)
    stop, gaps = _learn(adapter, chosen, more_steps, out)
    _say_measured(adapter, gaps)
    common.console.print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}", soft_wrap=True)
    if not stop():  # an archive holds tasks that were adapted to the end
        record(adapter)
    words = common.plugin_words(plugin or ())
    first, *others = adapter.task.solutions
    if others:
        common.console.print(f"predict and export take {first}, or with --finish {' or '.join(others)}")
    if stop():
        raise typer.Exit(stop.exit_code)
    common.say_next((f"predict {out} IMAGE...{words}", f"export {out} --format onnx --out model.onnx{words}"))


def _learn(
    adapter: Adapter, chosen: Sequence[str], more_steps: int | None, out: Path
) -> tuple[StopRequest, dict[str, str]]:
    """Adapt, finish, measure and save; a signal ends the steps, and what was learnt so far is kept.

    Returns whether one came, and the gaps of `Adapter.measure`.
    """
    with stop_on_signals() as stop:

        def watch(step: Step) -> bool:
            _say_step(step)
            return stop()

        _say_end(adapter.adapt(watch), adapter.settings.steps, stop())
        made = [name for name in chosen if name == adapter.finishes[0]]
        for name in chosen:
            if name != adapter.finishes[0] and not stop():
                _finish(adapter, name, more_steps, stop)
                made.append(name)
        gaps = adapter.measure()
        adapter.task.put_first((made or adapter.finishes)[0])
        adapter.save(out)
    return stop, gaps


def _metamodel(begin: str, path: Path | None) -> MetaModel | None:
    """What predicts the alphas to begin at, read before images are; None for the start's own."""
    from metadarts.predictor import open_model

    if begin not in (META, PREDICTED):
        raise ConfigError(f"--start {begin!r}: {nearest(begin, (META, PREDICTED))}")
    if begin == META and path is not None:
        raise ConfigError("--metamodel FILE is for --start predicted: give both, or neither")
    return None if path is None else open_model(path)[0]


def _recorder(archive: Path | None, images: Path, learnt: Labelled, looked_at: Labelled) -> Callable[[Adapter], None]:
    """What records the adapted task in ``archive``; whether it can is known before minutes go into adapting."""
    from metadarts.fewshot.task_record import folder_origin, record_of
    from metadarts.predictor.archive import Archive

    if archive is None:
        return lambda adapter: None
    if not len(looked_at.labels):
        raise ConfigError("--archive records the accuracy on held-out images: hold some out, or leave out --archive")
    origin = folder_origin(images, learnt, looked_at)
    Archive.open(archive, write=True).close()

    def record(adapter: Adapter) -> None:
        task, adapted = adapter.task, adapter.adapted
        with Archive.open(archive, write=True) as opened:
            (name,) = opened.add([record_of(origin, adapter.start, task.support, adapted, adapter.settings)])
            common.console.print(f"recorded in {archive} as {name[:12]}, of {len(opened)} records", soft_wrap=True)

    return record


def _say_task(adapter: Adapter, looked_at: Labelled) -> None:
    import torch

    support, start = adapter.task.support, adapter.start
    counts = torch.bincount(support.labels, minlength=len(support.classes)).tolist()
    few = f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else f"{counts[0]}"
    common.console.print(
        f"{len(support.classes)} classes, {few} images each to learn from ({len(support.labels)} in all), "
        f"{len(looked_at.labels)} held out; start {start.name}: {start.form.height}x{start.form.width}, "
        f"{'grey' if start.form.channels == 1 else 'colour'}",
        soft_wrap=True,
    )
    listed = [f"{name} {count}" for name, count in zip(support.classes, counts, strict=True)]
    common.console.print(f"images to learn from: {', '.join(listed)}", soft_wrap=True)
    missed = sorted(set(range(len(support.classes))) - set(looked_at.labels.tolist())) if len(looked_at.labels) else []
    if missed:
        names = ", ".join(support.classes[label] for label in missed)
        common.console.print(f"note: no image is held out of {names}: not measured", soft_wrap=True)
    for note in adapter.task.facts["notes"]:
        common.console.print(f"note: {note}", soft_wrap=True)


def _say_step(step: Step) -> None:
    held = "" if step.accuracy is None else f"  held-out accuracy {step.accuracy:6.1%}"
    common.console.print(f"  step {step.step:3d}  support loss {step.loss:6.3f}{held}  {step.seconds:5.1f} s")


def _say_end(solution: Solution, steps: int, asked: bool) -> None:
    taken = solution.history[-1].step
    if taken < steps:
        finite = math.isfinite(solution.history[-1].loss)
        why = "asked to stop" if asked else "time is up" if finite else "the loss left the finite numbers"
        common.console.print(f"stopped after {taken} of {steps} steps: {why}")
    if solution.kept != taken:
        common.console.print(f"kept: the state after step {solution.kept}, whose support loss is the lowest")


def _finish(adapter: Adapter, name: str, more_steps: int | None, stop: Callable[[], bool]) -> None:
    """Add a discrete finish to the task, under a bar."""
    steps = adapter.settings_of(name, more_steps).steps
    with common.bar(f"finish: {name}") as shown:

        def watch(step: Step) -> bool:
            shown.update(step.step / max(steps, 1), f"step {step.step}  loss {step.loss:.3f}")
            return stop()

        adapter.finish(name, more_steps, watch)


def _say_measured(adapter: Adapter, gaps: dict[str, str]) -> None:
    """Print what is known of every solution, and of what needs no search.

    Args:
        gaps: of discrete finishes to the supernet.
    """
    measured, held_out = adapter.task.facts["measured"], adapter.held_out is not None
    if adapter.held_out is not None:
        count = len(adapter.held_out.labels)
        common.console.print()
        common.console.print(
            f"on {count} held-out images (one is {1 / count:.1%}; 95 % intervals: Wilson's"
            f"{'; gaps are paired' if gaps else ''}):"
        )
    else:
        common.console.print("no image is held out, so no accuracy is known:")
    for name, facts in measured.items():
        solution = adapter.task.solution(name)
        known = _accuracy(facts) if held_out else f"support loss {solution.history[solution.kept].loss:.3f}"
        apart = f"  gap to {adapter.finishes[0]} {gaps[name]}" if name in gaps else ""
        common.console.print(
            f"  {name:9s}  {known}  {_size(facts)}  {solution.history[-1].seconds:.1f} s{apart}", soft_wrap=True
        )
    if held_out:
        first = adapter.task.solution().finish
        _say_shipped(first, measured[first], adapter.task.facts["baselines"])


def _accuracy(facts: dict[str, Any]) -> str:
    low, high = facts["interval95"]
    return f"{facts['accuracy']:6.1%} ({low:.1%} to {high:.1%})"


def _size(facts: dict[str, Any]) -> str:
    return f"{facts['weights']:,} weights, {facts['flops'] / 1e6:.1f} MFLOPs an image"


def _say_shipped(finish: str, facts: dict[str, Any], baselines: dict[str, float]) -> None:
    ours, joint = facts["accuracy"], facts["transductive"]
    common.console.print(
        f"  {finish}, with batch statistics of the held-out images (transductive; not in a shipped file): {joint:.1%} "
        f"({joint - ours:+.1%})",
        soft_wrap=True,
    )
    for name, accuracy in baselines.items():
        common.console.print(f"  {name}: {accuracy:.1%}")
    best = max(baselines, key=baselines.__getitem__)
    if baselines[best] >= ours:
        common.console.print(
            f"{best} does as well ({baselines[best]:.1%} against {ours:.1%}): this task needs no search",
            soft_wrap=True,
        )
