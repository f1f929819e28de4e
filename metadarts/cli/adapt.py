"""``metadarts adapt``: learn a new task from a few images of each class."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from torch import Tensor

    from metadarts.core.types import alphas_of
    from metadarts.fewshot.labelled import Labelled
    from metadarts.fewshot.learn import AdaptSettings, HeldOutImages
    from metadarts.fewshot.start import Start
    from metadarts.fewshot.task import Solution, Step, Support, Task

ALL = "all"
META, PREDICTED = "meta", "predicted"
HELD_OUT = 0.25


def adapt(
    start: Annotated[str, typer.Argument(help="Run folder, a start's file, or glyphs, cifar-fs, auto.")],
    images: Annotated[
        Path, typer.Option(help="Folder of class folders, .csv of path,label, or .npz of images and label.")
    ],
    out: Annotated[Path, typer.Option(help="Task folder to create; must not exist.")],
    begin: Annotated[
        str, typer.Option("--start", help="Alphas to begin at: meta (the start's) or predicted, by --metamodel.")
    ] = META,
    metamodel: Annotated[
        Path | None, typer.Option(help="With --start predicted: what `metamodel train` wrote.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Inner steps on weights and alphas.")] = 10,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Take no step that would end later; keep the best so far.")
    ] = None,
    finish: Annotated[str, typer.Option(help="soft, inherited, scratch, or all: a table of the three.")] = "soft",
    more_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the derived cell; default: as --steps, 100 from scratch.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0.0, max=0.9, help="Share of each class to measure on; default: 0.25.")
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Learn from so many a class, measure on the rest.")] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Also record the task in this archive of experience (the meta-model learns from episodes alone)."
        ),
    ] = None,
    device: common.Device = "cpu",
    precision: common.Precision = "fp32",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Adapt a start to your own images: weights and architecture, in seconds; then `predict` or `export` the task.

    Example: metadarts adapt auto --images PHOTOS --steps 10 --out tasks/mine
    """
    from metadarts.core.errors import ConfigError, nearest
    from metadarts.fewshot.classifier import open_support, start_facts
    from metadarts.fewshot.folder import save_task
    from metadarts.fewshot.labelled import hold_out, read_labelled
    from metadarts.fewshot.learn import AdaptSettings, adapt_start, check_support
    from metadarts.fewshot.task import FINISHES, Task
    from metadarts.training import RunFolder

    if finish not in (*FINISHES, ALL):
        raise ConfigError(f"--finish {finish!r}: {nearest(finish, (*FINISHES, ALL))}")
    if device not in ("auto", "cpu") or precision != "fp32":
        raise ConfigError("adapt computes on the CPU in fp32: leave out --device and --precision")
    if more_steps is not None and finish == "soft":
        raise ConfigError("--more-steps are those of a derived cell: give --finish inherited, scratch or all with it")
    if held_out is not None and shots is not None:
        raise ConfigError("give --held-out or --shots, not both: each says which images are learnt from")
    predict_alphas = _beginning(begin, metamodel)
    common.prepare("cpu", threads)
    RunFolder.require_new(out)  # before minutes go into reading images
    learnt, looked_at = hold_out(read_labelled(images), HELD_OUT if held_out is None else held_out, shots, seed)
    record = _recorder(archive, images, learnt, looked_at)
    opened, support, notes = open_support(start, learnt.images, learnt.labels, learnt.classes, seed)
    check_support(support)
    opened = predict_alphas(opened, support)
    watched = _held_out(support.form, looked_at)
    task = Task(support, facts={"start": start_facts(opened), "notes": notes, "measured": {}})
    _say_task(task, opened, looked_at)
    plan = AdaptSettings(steps, seconds)
    soft = adapt_start(opened, support, plan, watched, _printer(watched))
    task.solutions["soft"] = soft
    _say_end(soft, plan)
    chosen = FINISHES if finish == ALL else ("soft",) if finish == "soft" else ("soft", finish)
    _finish(task, opened, plan, more_steps, chosen[1:], watched)
    if watched is not None:
        _measure(task, "soft" if finish == ALL else finish, watched)
    else:
        _say_sizes(task)
    if finish not in ("soft", ALL):  # what was asked for is what the folder ships first
        task.solutions = {finish: task.solutions[finish], "soft": task.solutions["soft"]}
    save_task(task, out, _pictures(task, opened, watched))
    common.console.print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}", soft_wrap=True)
    record(opened, support, soft, plan)
    if len(task.solutions) > 1:
        first, *others = task.solutions
        common.console.print(f"predict and export take {first}, or with --finish {' or '.join(others)}")
    common.console.print(
        f"next: metadarts predict {out} IMAGE...   metadarts export {out} --format onnx --out model.onnx",
        soft_wrap=True,
    )


def _beginning(begin: str, path: Path | None) -> Callable[[Start, Support], Start]:
    """What makes of a start that with the alphas to begin at; a meta-model is read now, before images are."""
    from metadarts.core.errors import ConfigError, nearest
    from metadarts.fewshot.predicted import predicted_start
    from metadarts.predictor import open_model

    if begin not in (META, PREDICTED):
        raise ConfigError(f"--start {begin!r}: {nearest(begin, (META, PREDICTED))}")
    if (begin == PREDICTED) != (path is not None):
        raise ConfigError("--start predicted and --metamodel FILE belong together: give both, or neither")
    if path is None:
        return lambda start, support: start
    model, _ = open_model(path)
    return lambda start, support: predicted_start(start, model, support)


def _recorder(
    archive: Path | None, images: Path, learnt: Labelled, looked_at: Labelled
) -> Callable[[Start, Support, Solution, AdaptSettings], None]:
    """What records the adapted task in ``archive``; whether it can is known before minutes go into adapting."""
    from metadarts.core.errors import ConfigError
    from metadarts.fewshot.task_record import experience_of, folder_origin
    from metadarts.predictor.archive import Archive

    if archive is None:
        return lambda start, support, soft, plan: None
    if not len(looked_at.labels):
        raise ConfigError("--archive records the accuracy on held-out images: hold some out, or leave out --archive")
    origin = folder_origin(images, learnt, looked_at)
    Archive.open(archive, write=True).close()

    def record(start: Start, support: Support, soft: Solution, plan: AdaptSettings) -> None:
        with Archive.open(archive, write=True) as opened:
            (name,) = opened.add([experience_of(origin, start, support, soft, plan)])
            common.console.print(f"recorded in {archive} as {name[:12]}, of {len(opened)} experiences", soft_wrap=True)

    return record


def _held_out(form: Any, looked_at: Labelled) -> HeldOutImages | None:
    import torch

    from metadarts.fewshot.input_spec import to_pixels
    from metadarts.fewshot.learn import HeldOutImages

    if not len(looked_at.labels):
        return None
    pixels, _ = to_pixels(looked_at.images, form.channels, form.height)
    return HeldOutImages(torch.from_numpy(pixels), torch.from_numpy(looked_at.labels))


def _say_task(task: Task, start: Start, looked_at: Labelled) -> None:
    import torch

    support = task.support
    counts = torch.bincount(support.labels, minlength=len(support.classes)).tolist()
    few = f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else f"{counts[0]}"
    common.console.print(
        f"{len(support.classes)} classes, {few} images each to learn from ({len(support.labels)} in all), "
        f"{len(looked_at.labels)} held out; start {start.name}: {start.form.height}x{start.form.width}, "
        f"{'grey' if start.form.channels == 1 else 'colour'}",
        soft_wrap=True,
    )
    missed = sorted(set(range(len(support.classes))) - set(looked_at.labels.tolist())) if len(looked_at.labels) else []
    if missed:
        names = ", ".join(support.classes[label] for label in missed)
        common.console.print(f"note: no image is held out of {names}: not measured", soft_wrap=True)
    for note in task.facts["notes"]:
        common.console.print(f"note: {note}", soft_wrap=True)


def _printer(watched: HeldOutImages | None) -> Any:
    def say(step: Step) -> None:
        held = "" if step.accuracy is None else f"  held-out accuracy {step.accuracy:6.1%}"
        common.console.print(f"  step {step.step:3d}  support loss {step.loss:6.3f}{held}  {step.seconds:5.1f} s")

    return say


def _say_end(solution: Solution, plan: AdaptSettings) -> None:
    taken = solution.history[-1].step
    if taken < plan.steps:
        finite = math.isfinite(solution.history[-1].loss)
        why = "time is up" if finite else "the loss left the finite numbers"
        common.console.print(f"stopped after {taken} of {plan.steps} steps: {why}")
    if solution.kept != taken:
        common.console.print(f"kept: the state after step {solution.kept}, whose support loss is the lowest")


def _finish(
    task: Task,
    start: Start,
    plan: AdaptSettings,
    more_steps: int | None,
    finishes: tuple[str, ...],
    watched: HeldOutImages | None,
) -> None:
    """Add the discrete finishes to the task, under a bar each."""
    from dataclasses import replace

    from metadarts.fewshot.learn import SCRATCH_STEPS, derive, from_scratch, inherited

    support, soft = task.support, task.solution("soft")
    for name in finishes:
        usual = SCRATCH_STEPS if name == "scratch" else plan.steps
        steps = usual if more_steps is None else more_steps
        own = replace(plan, steps=steps)
        with common.bar(f"finish: {name}") as shown:

            def watch(step: Step, shown: common.Bar = shown, steps: int = steps) -> None:
                shown.update(step.step / max(steps, 1), f"step {step.step}  loss {step.loss:.3f}")

            if name == "inherited":
                solution = inherited(start, support, soft, own, watch=watch)
            else:
                solution = from_scratch(start, support, derive(soft), own, watch=watch)
        task.solutions[name] = solution


def _measure(task: Task, finish: str, watched: HeldOutImages) -> None:
    """Print what is known of every solution, and of what needs no search.

    Args:
        finish: the solution that the folder ships first.
    """
    from metadarts.fewshot.measure import gap, measured, size_of
    from metadarts.fewshot.pixels import pixel_baselines

    hits: dict[str, Tensor] = {}
    common.console.print("\non held-out images (95 % intervals over images: Wilson's; gaps are paired):")
    for name, solution in task.solutions.items():
        facts, hits[name] = measured(task, solution, watched)
        size = size_of(task.model(name))
        task.facts["measured"][name] = facts | size
        apart = "" if name == "soft" else f"  gap to soft {gap(hits[name], hits['soft'])}"
        low, high = facts["interval95"]
        common.console.print(
            f"  {name:9s}  {facts['accuracy']:6.1%} ({low:.1%} to {high:.1%})  {said_size(size)}  "
            f"{solution.history[-1].seconds:.1f} s{apart}",
            soft_wrap=True,
        )
    shipped = task.facts["measured"][finish]
    common.console.print(
        f"{finish}, as shipped, with the statistics of the support set: {shipped['accuracy']:.1%}; with those of the "
        f"held-out images themselves (transductive): {shipped['transductive']:.1%}; lost by not looking at them: "
        f"{shipped['transductive'] - shipped['accuracy']:+.1%}",
        soft_wrap=True,
    )
    _say_pixels(task, finish, pixel_baselines(task.support, watched))


def said_size(size: dict[str, int]) -> str:
    """The size of a network in words."""
    return f"{size['weights']:,} weights, {size['flops'] / 1e6:.1f} MFLOPs an image"


def _say_sizes(task: Task) -> None:
    from metadarts.fewshot.measure import size_of

    common.console.print("no image is held out, so no accuracy is known:")
    for name, solution in task.solutions.items():
        size = size_of(task.model(name))
        task.facts["measured"][name] = dict(size)
        seconds, loss = solution.history[-1].seconds, solution.history[solution.kept].loss
        common.console.print(
            f"  {name:9s}  support loss {loss:.3f}  {said_size(size)}  {seconds:.1f} s", soft_wrap=True
        )


def _say_pixels(task: Task, finish: str, baselines: dict[str, float]) -> None:
    task.facts["baselines"] = baselines
    for name, accuracy in baselines.items():
        common.console.print(f"  {name}: {accuracy:.1%}")
    best = max(baselines, key=baselines.__getitem__)
    ours = task.facts["measured"][finish]["accuracy"]  # what is shipped
    if baselines[best] >= ours:
        common.console.print(
            f"{best} does as well ({baselines[best]:.1%} against {ours:.1%}): this task needs no search",
            soft_wrap=True,
        )


def _pictures(task: Task, start: Start, watched: HeldOutImages | None) -> dict[str, bytes]:
    from metadarts.derive import derive_genotype
    from metadarts.fewshot.learn import derive
    from metadarts.fewshot.task import logits
    from metadarts.viz import Picture, draw_genotypes, draw_predictions

    space = start.network.space
    genotypes = [
        ("meta-learned", derive_genotype(alphas_of(start.params), space)),
        ("adapted", derive(task.solution("soft"))),
    ]
    pictures = {name: Picture(name[-4:]) for name in ("cells.png", "cells.svg")}
    for picture in pictures.values():
        draw_genotypes(genotypes, picture, f"{start.name}, adapted to {len(task.support.classes)} classes")
    if watched is not None:
        solution = task.solution()
        shares = logits(task.support, solution.network, solution.with_axis(), watched.pixels).softmax(1)
        best = shares.max(1)
        sheet = pictures["predictions.png"] = Picture(".png")
        draw_predictions(
            watched.pixels.numpy(), watched.labels.tolist(), best.indices.tolist(), best.values.tolist(),
            task.support.classes, sheet, f"held-out images, {solution.finish}",
        )  # fmt: skip
    return {name: picture.getvalue() for name, picture in pictures.items()}
