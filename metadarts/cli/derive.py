"""``metadarts derive``: the discrete cell of a finished search, by a rule of selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from . import common

if TYPE_CHECKING:
    from metadarts.spaces import Genotype
    from metadarts.training import OpenRun


def derive(
    run: Annotated[Path, typer.Argument(help="Run folder.", callback=common.is_run)],
    rule: Annotated[
        str,
        typer.Option(
            help="Selection rule: argmax (by the alphas), threshold (by sigmoids), or by accuracy on validation tasks: "
            "perturbation, sampled, evolution."
        ),
    ] = "argmax",
    set_: Annotated[list[str] | None, typer.Option("--set", help="option=value of the rule. Repeatable.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Validation tasks per candidate.")] = 20,
    checkpoint: common.WhichCheckpoint = "best",
    data: common.MovedData = None,
    data_root: common.DataRoot = None,
    fit_memory: common.FitMemory = None,
    plugin: common.Plugins = None,
    device: common.Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16; default: as trained.")] = None,
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Derive the genotype from the meta-learned alphas: text, genotype.json, and pictures of the cell as SVG and PNG.

    For a run that committed, it is the cell of that run. Rules by accuracy open the data and compare every candidate
    on the same tasks.

    Example: metadarts derive runs/demo --rule sampled --set cells=50 --tasks 40
    """
    from metadarts.training import open_run

    common.require_checkpoint(checkpoint)
    settings = {"training.fit_memory": fit_memory, "model.precision": precision}
    opened = open_run(
        run, checkpoint=checkpoint, device=common.prepare(device, threads), data=data, data_root=data_root,
        settings=settings, plugins=plugin or (),
    )  # fmt: skip
    for path in _derive(opened, Asked(rule, common.read_settings(set_ or [], "option=value"), tasks, seed)):
        common.console.print(f"written to {path}", soft_wrap=True)


class Asked(NamedTuple):
    """The rule, its options, the number of tasks and the seed of what the rule draws."""

    rule: str = "argmax"
    options: Mapping[str, str] = MappingProxyType({})
    tasks: int = 0
    seed: int = 0


def derive_run(run: Path, plugins: Sequence[str] = ()) -> list[Path]:
    """Derive, print and draw the genotype of ``run``; the files written."""
    from metadarts.training import open_run

    return _derive(open_run(run, plugins=plugins), Asked())


def _derive(opened: OpenRun, asked: Asked) -> list[Path]:
    from metadarts.core.errors import ConfigError
    from metadarts.core.types import alphas_of
    from metadarts.derive import count_skips
    from metadarts.viz import draw_alphas, draw_genotype

    folder, config = opened.folder, opened.config
    run, space, relaxation = folder.path, config.search_space(), config.build_relaxation()
    if config.alphas.name != "shared" and config.has_alphas():
        raise ConfigError(
            f"{run} has {config.alphas.name} alphas, an architecture for each task, and so no one cell: `adapt` "
            "derives that of a task (--finish inherited)"
        )
    alphas = alphas_of(opened.checkpoint.params)
    committed = config.cell() if opened.configured.has_alphas() else None
    if committed is None and not alphas:
        name = config.network_name()
        raise ConfigError(f"{run} trained the network {name!r}, which has no alphas to derive a cell from")
    if committed and (asked.rule != Asked().rule or asked.options):
        raise ConfigError(
            f"{run} has committed to its cell: a rule needs a supernet, which --checkpoint supernet is where "
            "commit.drop_below was 0"
        )
    genotype = committed or _choose(opened, asked)
    common.console.print(str(genotype), soft_wrap=True)
    skips = count_skips(genotype)
    common.console.print(f"skip connections: {', '.join(f'{kind} {count}' for kind, count in skips.items())}")
    written = [
        folder.write("genotype.txt", f"{genotype}\n"),
        folder.write("genotype.json", genotype.to_json(space.name) + "\n"),
    ]
    title = f"{'committed to by' if committed else 'derived after'} meta-step {opened.checkpoint.facts['step']}"
    for name in ("cell.svg", "cell.png"):
        draw_genotype(genotype, run / name, title, inputs=space.inputs, operations=config.catalogue.operations)
        written.append(run / name)
    if committed and folder.has("supernet"):
        cut = folder.load("supernet")
        alphas, title = alphas_of(cut.params), f"when the cell was cut out, after meta-step {cut.facts['step']}"
    if not alphas:
        return written
    draw_alphas({kind: table.numpy() for kind, table in alphas.items()}, space, run / "alphas.png", title, relaxation)
    return [*written, run / "alphas.png"]


def _choose(opened: OpenRun, asked: Asked) -> Genotype:
    """The cell of the rule asked for; what a user should know of the choice is printed."""
    from metadarts.core.rng import Key
    from metadarts.training.selection import choose, searched, selection_rule

    rule = selection_rule(asked.rule, asked.options, opened.config.catalogue)
    key = Key.from_seed(asked.seed).child("derive", asked.rule)
    known = searched(opened.config, opened.checkpoint)
    if not rule.judged(known.space):
        selection = rule.select(known, None, key)
    else:
        experiment = common.experiment_of(opened)
        with common.bar(f"derive by {asked.rule} on {asked.tasks} validation tasks") as shown:
            found = choose(experiment, opened.checkpoint, rule, tasks=asked.tasks, key=key, progress=shown.watch)
        common.console.print(
            f"on these {asked.tasks} validation tasks: supernet {found.supernet:.2%}, chosen cell with inherited "
            f"weights {found.chosen:.2%}, argmax's cell {found.argmax:.2%}. The choice was made on these very tasks, "
            "which flatters the chosen cell: compare on others with `metadarts evaluate --genotype`.",
            soft_wrap=True,
        )
        selection = found.selection
    for note in selection.notes:
        common.console.print(f"note: {note}", soft_wrap=True)
    return selection.genotype
