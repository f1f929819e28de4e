"""``metadarts VERB``: gathers the verbs, and turns our own errors into one line and exit code 2."""

from __future__ import annotations

import io
import logging
import sys
from typing import Annotated

import typer

from metadarts import __version__
from metadarts.core.errors import MetadartsError
from metadarts.core.text import visible

from .adapt import adapt
from .archive import archive
from .demo import demo
from .derive import derive
from .diagnose import diagnose
from .evaluate import evaluate
from .export import export
from .info import info
from .metamodel import metamodel
from .predict import predict
from .report import report
from .reproduce import reproduce
from .results import results
from .search import search
from .signals import StopRequest, ended_by_sigterm

app = typer.Typer(
    name="metadarts",
    help="Few-shot differentiable architecture search.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"metadarts {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


for verb in (adapt, demo, derive, diagnose, evaluate, export, info, predict, report, reproduce, results, search):
    app.command()(verb)
app.add_typer(archive, name="archive")
app.add_typer(metamodel, name="metamodel")


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:  # what is logged has names in it too
        logging.lastResort.setFormatter(_OneLine())
    with ended_by_sigterm() as ended:
        try:
            _run(ended)
        except Exception:
            if ended.signal is None:
                raise  # else an import that the signal broke off
    if ended.signal is not None:
        sys.exit(ended.exit_code)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _run(ended: StopRequest) -> None:
    try:
        app()
    except MetadartsError as error:
        if ended.signal is not None:
            sys.exit(ended.exit_code)
        print("metadarts:", *map(visible, str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        from metadarts.training.memory import ADVICE, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"metadarts: memory ran out; {ADVICE}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("metadarts: interrupted", file=sys.stderr)
        sys.exit(130)
