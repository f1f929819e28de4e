"""``metadarts reproduce``: a table of a paper from one command, with baselines, intervals and a plain verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metadarts.core.errors import ConfigError
from metadarts.core.progress import Progress
from metadarts.store.files import is_there

from . import common
from .signals import stop_on_signals

if TYPE_CHECKING:
    from metadarts.papers.reproduction import TableSpec
    from metadarts.papers.rows import ResultTable
    from metadarts.tasks import Source

UNFINISHED = 3
"""Exit code when --stop-after has stopped the work."""


def reproduce(
    table: Annotated[str, typer.Argument(help="Name of the table; leave it out to list the tables.")] = "",
    budget: Annotated[str, typer.Option(help="smoke (5 minutes), hour or full (as the paper).")] = "smoke",
    data_root: common.DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to work in; work in an existing folder resumes.", callback=common.can_be_written),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the classes; default: the paper's.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Measure only these shots. Repeatable.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Measure only these rows. Repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every method, with seeds 0, 1, ...")] = 1,
    stop_after: Annotated[
        float | None, typer.Option(min=0.01, help=f"Stop after this many minutes, with exit code {UNFINISHED}.")
    ] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Train nothing; write the table of the existing results.")
    ] = False,
    device: common.Device = "auto",
    threads: common.Threads = 0,
) -> None:
    """Train and evaluate every method of a table on the same frozen test episodes, and give a verdict.

    Writes table.md, table.json, table.png and table-comparisons.png into the folder. After a stop or a kill, the same
    command resumes and ends with the identical table. With --row, the command adds only those rows and the trainings
    that they need to the folder, and table-so-far.* holds the results so far.

    Example: metadarts reproduce tnas-fc100 --budget hour --data-root DATA --out runs/fc100
    """
    from metadarts.papers.reproduction import LENGTHS_IN_WORDS, Job, Stopped, carry_out, table_named, tabulate

    if not table:
        _list_tables()
        return
    spec = table_named(table)
    if budget not in LENGTHS_IN_WORDS:
        raise ConfigError(f"--budget {budget!r}: expected {', '.join(LENGTHS_IN_WORDS)}")
    if out is None:
        raise ConfigError("reproduce needs --out FOLDER to work in")
    measured = _settings(spec, budget, shots)
    rows = _rows(spec, budget, measured, row)
    if rows and so_far:
        raise ConfigError("--so-far shows every row that is there: leave out --row")
    chosen, name = spec.source(split)
    resolved = common.prepare(device, threads)
    source = _open(name, spec.place(_there(data_root)))
    common.console.print(f"{spec.title}; {budget} budget ({LENGTHS_IN_WORDS[budget]})", soft_wrap=True)
    common.console.print(f"split {chosen}: {spec.splits[chosen]}", soft_wrap=True)
    with stop_on_signals() as asked, _stages() as tell:
        begun: list[float] = []  # at the first step that is told: a limit that starting up uses up must not end it

        def told(title: str, now: Progress) -> None:
            begun.append(time.monotonic())
            del begun[1:]
            tell(title, now)

        def stop() -> bool:
            late = stop_after is not None and begun and time.monotonic() >= begun[0] + 60.0 * stop_after
            return asked() or bool(late)

        seeds_of, place = tuple(range(seeds)), spec.place(data_root)
        job = Job(spec, budget, chosen, source, place, out, seeds_of, measured, resolved, told, stop, so_far, rows)
        try:
            found = carry_out(job)
            if rows:
                job = replace(job, so_far=True, rows=())
                found = carry_out(job)
            page = tabulate(job, found)
        except Stopped:
            common.console.print(f"stopped; the same command goes on from here ({out})", soft_wrap=True)
            raise typer.Exit(asked.exit_code if asked() else UNFINISHED) from None
    _write(page, out, "table-so-far" if job.so_far else "table")


def _list_tables() -> None:
    from metadarts.papers.reproduction import LENGTHS_IN_WORDS, TABLES, rows_of

    for spec in TABLES.values():
        common.console.print(f"{spec.name:14} {spec.title}", soft_wrap=True)
        for split, source in spec.sources.items():
            common.console.print(f"{'':14} --split {split} ({source}): {spec.splits[split]}", soft_wrap=True)
    rows = {row.name: row.method for row in rows_of(next(iter(TABLES.values())), "hour", 5)}
    common.console.print("rows, each of which --row NAME measures alone:", soft_wrap=True)
    for name, method in rows.items():
        common.console.print(f"  {name!r:32} {method}", soft_wrap=True)
    common.console.print(
        "budgets: " + "; ".join(f"{name}: {text}" for name, text in LENGTHS_IN_WORDS.items()), soft_wrap=True
    )


def _settings(spec: TableSpec, budget: str, shots: list[int] | None) -> tuple[int, ...]:
    known = spec.settings(budget)
    if odd := [number for number in shots or () if number not in known]:
        raise ConfigError(f"--shots {odd[0]}: under the {budget} budget {spec.name} has {', '.join(map(str, known))}")
    return tuple(number for number in known if not shots or number in shots)


def _rows(spec: TableSpec, budget: str, shots: tuple[int, ...], asked: list[str] | None) -> tuple[str, ...]:
    from metadarts.papers.reproduction import rows_of

    known = {row.name: None for number in shots for row in rows_of(spec, budget, number)}
    if odd := [name for name in asked or () if name not in known]:
        raise ConfigError(f"--row {odd[0]!r}: expected one of {', '.join(map(repr, known))}")
    return tuple(name for name in known if name in (asked or ()))


def _there(root: Path | None) -> Path | None:
    if root is not None and not is_there(root):
        raise ConfigError(f"--data-root {str(root)!r}: there is nothing at that place")
    return root


def _open(name: str, place: str) -> Source:
    from metadarts.tasks import open_source

    with common.bar(f"read {name}", quiet=True) as shown:
        return open_source(name, Path(place) if place else None, progress=shown.watch)


@contextmanager
def _stages() -> Iterator[Callable[[str, Progress], None]]:
    """A bar for what is being done, a new one for what comes next."""
    with ExitStack() as stack:
        shown: list[tuple[str, common.Bar]] = []

        def tell(title: str, now: Progress) -> None:
            if not shown or shown[-1][0] != title:
                stack.close()
                shown.append((title, stack.enter_context(common.bar(title))))
            shown[-1][1].watch(now)

        yield tell


def _write(table: ResultTable, out: Path, name: str) -> None:
    from metadarts.papers.page import table_markdown
    from metadarts.papers.pictures import draw_comparisons, draw_table
    from metadarts.store.files import write_atomically

    text = table_markdown(table)
    write_atomically(out / f"{name}.json", table.to_json().encode())
    write_atomically(out / f"{name}.md", text.encode())
    written = [f"{name}.md", f"{name}.json", f"{name}.png"]
    draw_table(table, out / f"{name}.png")
    if table.comparisons:
        written.append(f"{name}-comparisons.png")
        draw_comparisons(table, out / written[-1])
    common.console.page(text)
    common.console.print(f"written to {out}: {', '.join(written)}", soft_wrap=True)
    common.console.print(f"digest {table.digest}", soft_wrap=True)
