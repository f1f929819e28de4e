"""``metadarts search``: meta-train a supernet, or resume a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metadarts.core.errors import ConfigError, DataError

from . import common
from .signals import stop_on_signals

if TYPE_CHECKING:
    from metadarts.training import Config, Experiment, RunFolder
    from metadarts.training.memory_plan import MemoryPlan

WITH_RESUME = {"resume", "device", "threads", "data", "data_root", "fit_memory", "plugin"}


def search(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to create; must not exist.", callback=common.can_be_written)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to resume, with its configuration.", callback=common.is_run)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"{common.DATA_HELP} Default: glyphs.", callback=common.is_data)
    ] = None,
    data_root: common.DataRoot = None,
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task. Default: 5.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support images per class. Default: 1.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Named settings: quick, omniglot, cifar, quick-supernet, omniglot-supernet, cifar-supernet, "
            "start-glyphs, start-cifar-fs, start-glyphs-cell, start-cifar-fs-cell, tnas."
        ),
    ] = "quick",
    config: Annotated[
        Path | None,
        typer.Option(
            help="A config.yaml to use instead of a preset.",
            callback=common.existing("--config {}: there is no such file"),
        ),
    ] = None,
    order: Annotated[str | None, typer.Option(help="Order of the meta-gradient: first or second (exact).")] = None,
    engine: Annotated[str | None, typer.Option(help="Engine of the meta-gradient: batched, loop or higher.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after this many minutes.")] = None,
    meta_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many meta-steps.")] = None,
    fit_memory: Annotated[
        bool | None, typer.Option("--fit-memory", help="If memory runs out, continue with fewer tasks per pass.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="group.field=value. Repeatable.")] = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 (activations only). Default: fp32.")] = None,
    threads: common.Threads = 0,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers. Default: 0.")] = None,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="List the presets and all settings with their values; then stop.")
    ] = False,
) -> None:
    """Meta-train a supernet on few-shot tasks; keep the checkpoint with the best accuracy on validation classes.

    Ctrl-C and SIGTERM write a checkpoint and stop; --resume continues from the last one, also after a crash.

    Example: metadarts search --data glyphs --ways 5 --shots 1 --minutes 3 --out runs/demo
    """
    from metadarts.training.catalogue import load_plugins
    from metadarts.training.open_run import data_settings

    given = {name for name in context.params if _was_given(context, name)}
    plugins = plugin or ()
    fitting = {"training.fit_memory": True} if fit_memory else {}
    if resume is not None:
        if wrong := sorted(name.strip("_").replace("_", "-") for name in given - WITH_RESUME):
            raise ConfigError(f"--resume goes on as the run was configured: leave out --{', --'.join(wrong)}")
        resume_search(resume, (data, data_root), fitting, device, threads, plugins)
        return
    if out is None and not list_settings:
        raise ConfigError("search needs --out FOLDER for a new run, or --resume FOLDER to go on with one")
    if config is not None and "preset" in given:
        raise ConfigError("give --preset or --config, not both: each is a whole set of settings")
    if data_root is not None and data is None:
        raise ConfigError("--data-root says where the data lie: name them too, e.g. --data cifar-fs")
    settings: dict[str, Any] = {
        **(data_settings(data, data_root, load_plugins(plugins)) if data else {}),
        **fitting,
        "tasks.ways": ways,
        "tasks.shots": shots,
        "model.precision": precision,
        "training.seed": seed,
        "inner.order": order,
        "training.engine": engine,
        **_length(minutes, meta_steps),
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= common.read_settings(set_ or [])
    if out is None or list_settings:
        _print_settings(_configured(config or preset, settings, plugins), config or preset)
        return
    run_search(out, config or preset, settings, common.prepare(device, threads), plugins)
    verbs = ("evaluate", "derive", "report") if _has_a_cell(out, plugins) else ("evaluate", "report")
    words = f"{out}{common.plugin_words(plugins)}"
    common.say_next(f"{verb} {words}" for verb in verbs)


def _has_a_cell(run: Path, plugins: Sequence[str]) -> bool:
    from metadarts.training import RunFolder

    config = RunFolder.open(run, plugins).config()
    return config.has_alphas() and config.has_one_cell


def _was_given(context: typer.Context, name: str) -> bool:
    """Whether the user wrote the option. By name: typer brings a click of its own, with an enumeration of its own."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _length(minutes: float | None, meta_steps: int | None) -> dict[str, float]:
    """What the user said of the length replaces what the preset says of it, in either unit."""
    if minutes is None and meta_steps is None:
        return {}
    return {"training.minutes": minutes or 0.0, "training.meta_steps": meta_steps or 0}


def run_search(out: Path, base: str | Path, settings: dict[str, Any], device: str, plugins: Sequence[str] = ()) -> None:
    """Build the experiment, create the run folder and search under a progress bar.

    Args:
        base: the name of a preset, or a config.yaml.
        plugins: modules or files with the user's entries.
    """
    from metadarts.training import RunFolder
    from metadarts.training.environment import describe
    from metadarts.training.memory_plan import plan_search

    config = _configured(base, settings, plugins)
    RunFolder.require_new(out)  # before minutes go into reading images
    experiment = common.open_experiment(config, device)
    drawn = {split: experiment.sampler(split).ways for split in ("train", "val")}  # refused before there is a folder
    if drawn["train"] < config.tasks.train_ways:
        asked = config.tasks.train_ways
        common.console.print(f"note: training tasks have {drawn['train']} classes, all there are, in place of {asked}")
    try:
        experiment.sampler("test")
    except DataError as error:
        common.console.print(f"note: this run cannot be measured on test classes: {error}", soft_wrap=True)
    experiment.rehearse()
    plan = plan_search(experiment)
    environment = describe(device) | {"data_sha256": experiment.source.content_sha256, "memory": plan.facts()}
    _search_in(RunFolder.create(out, experiment.config, environment, plugins), experiment, plan)


def _configured(base: str | Path, settings: dict[str, Any], plugins: Sequence[str]) -> Config:
    from metadarts.training import Config, load_config, preset, with_settings
    from metadarts.training.catalogue import load_plugins

    if isinstance(base, Path):
        start = load_config(base, plugins)
    else:
        start = with_settings(Config(catalogue=load_plugins(plugins)), preset(base))
    return with_settings(start, settings).check()


def _print_settings(config: Config, base: str | Path) -> None:
    """Each setting as --set takes it, with what it means; then the presets."""
    from rich.padding import Padding

    from metadarts.training.listing import list_settings
    from metadarts.training.presets import PRESETS

    group = ""
    for setting in list_settings(config):
        if setting.path.partition(".")[0] != group:
            group = setting.path.partition(".")[0]
            common.console.print()
        common.console.print(f"{setting.path}={setting.text}", style="bold", soft_wrap=True)
        common.console.print(Padding(setting.meaning.replace("``", "").replace("`", ""), (0, 0, 0, 4)))
    common.console.print()
    common.console.print(f"the values are those of {base}; presets: {', '.join(PRESETS)}")


def resume_search(
    run: Path,
    data: tuple[str | None, Path | None],
    fitting: dict[str, Any],
    device: str,
    threads: int,
    plugins: Sequence[str] = (),
) -> None:
    """Resume ``run`` from its last checkpoint.

    Args:
        data: --data and --data-root, for data that moved since.
        fitting: settings of how memory is fitted.
    """
    from metadarts.core.errors import RunError
    from metadarts.training import open_run
    from metadarts.training.memory_plan import plan_search

    opened = open_run(run, data=data[0], data_root=data[1], settings=fitting, plugins=plugins)
    folder, environment = opened.folder, opened.folder.environment()
    if folder.is_finished:
        common.console.print(f"the search in {run} has ended; there is nothing to go on with", soft_wrap=True)
        return
    before = environment.get("threads")
    resolved = common.prepare(device, threads or (before if isinstance(before, int) else 0))
    if threads and threads != before:
        common.console.print(
            f"the run began with {before} threads: sums will be rounded otherwise than without the stop"
        )
    experiment = common.open_experiment(opened.configured.check(), resolved)
    digest = environment.get("data_sha256")
    if digest is not None and digest != experiment.source.content_sha256:
        raise RunError(f"{run}: its data are not what they were when it began; restore them, or start a new run")
    if folder.has("last"):  # so that memory is planned for what is left of the network
        experiment = experiment.of_checkpoint(folder.load("last"))
    _search_in(folder, experiment, plan_search(experiment, folder))


def _search_in(folder: RunFolder, experiment: Experiment, plan: MemoryPlan) -> None:
    """Search by ``plan`` under a progress bar, to the end or to a signal."""
    from metadarts.training import search as run
    from metadarts.training.search import SearchProgress, SearchStopped

    common.console.print(_headline(experiment), soft_wrap=True)
    common.console.print(str(plan), soft_wrap=True)
    experiment = replace(experiment, config=plan.apply(experiment.config))
    with stop_on_signals() as stop:
        try:
            with common.bar("search") as shown:

                def watch(now: SearchProgress) -> None:
                    best = "" if now.best is None else f"  best val {now.best:.1%}"
                    rate = now.step / max(now.seconds, 1e-9)
                    figures = f"step {now.step}  loss {now.loss:.3f}  acc {now.accuracy:.1%}{best}  {rate:.2f} steps/s"
                    shown.update(now.fraction, figures, now.remaining)

                run(experiment, folder, watch, stop)
        except SearchStopped as stopped:
            common.console.print(
                f"{stopped}; go on with: {common.program()} search --resume {folder.path}", soft_wrap=True
            )
            raise typer.Exit(stop.exit_code) from None
    facts = folder.load("best").facts
    common.console.print(
        f"best on validation classes: {facts['validation_accuracy']:.1%} at step {facts['step']} "
        f"(it chose the checkpoint, so it flatters); written to {folder.path}",
        soft_wrap=True,
    )


def _headline(experiment: Experiment) -> str:
    from metadarts.training import Config

    config: Config = experiment.config
    weights, alphas = experiment.network.count(config.tasks.ways)
    own = {"outer rule": config.meta.name, "relaxation": config.relaxation.name}
    defaults = {"outer rule": Config().meta.name, "relaxation": Config().relaxation.name}
    named = "".join(f"{kind} {name}; " for kind, name in own.items() if name != defaults[kind])
    return (
        f"{config.tasks.source} {config.tasks.ways}-way {config.tasks.shots}-shot: "
        f"{weights:,} weights, {alphas} alphas; {named}"
        f"{config.inner.order}-order, {config.inner.steps} inner steps, {config.training.tasks} tasks per meta-step; "
        f"batch norm: {config.model.bn}"
    )
