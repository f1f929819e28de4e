"""``metadarts derive``: the discrete cell that a run's alphas stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import common


def derive(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    plugin: common.Plugins = None,
    device: common.Device = "cpu",
    precision: common.Precision = "fp32",
    threads: common.Threads = 0,
    seed: common.Seed = 0,
) -> None:
    """Derive the genotype of the meta-learned alphas: text, genotype.json, and the cell drawn as SVG and PNG.

    Of a run that committed it is the cell that the run was left with. The common options are accepted for uniformity;
    deriving computes nothing that depends on them.
    """
    common.prepare(device, threads)
    for path in derive_run(run, plugin or ()):
        common.console.print(f"written to {path}", soft_wrap=True)


def derive_run(run: Path, plugins: Sequence[str] = ()) -> list[Path]:
    """Derive, print and draw the genotype of ``run``; the files written."""
    from metadarts.core.errors import ConfigError
    from metadarts.core.types import alphas_of
    from metadarts.derive import count_skips, derive_genotype
    from metadarts.training import open_run
    from metadarts.viz import draw_alphas, draw_genotype

    opened = open_run(run, plugins=plugins)
    folder, config = opened.folder, opened.config
    space, relaxation = config.search_space(), config.build_relaxation()
    alphas = alphas_of(opened.checkpoint.params)
    committed = config.cell() if opened.configured.has_alphas() else None
    if committed is None and not alphas:
        name = config.network_name()
        raise ConfigError(f"{run} trained the network {name!r}, which has no alphas to derive a cell from")
    genotype = committed or derive_genotype(alphas, space, relaxation)
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
