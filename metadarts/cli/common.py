"""Options that all verbs share, and how progress is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from metadarts.core.errors import ConfigError, nearest

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16 (activations only).")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

DATA_HELP = "glyphs (built in), omniglot (downloaded once), or Omniglot's .npz file or folder."

console = Console(highlight=False, markup=False, emoji=False)


def data_settings(data: str) -> dict[str, str]:
    """``--data`` as settings: the name of a source, or a path to Omniglot.

    Raises:
        ConfigError: when it is neither.
    """
    from metadarts.tasks import SOURCES

    if data in SOURCES:
        return {"tasks.source": data, "tasks.file": ""}
    path = Path(data)
    if not path.exists():
        raise ConfigError(f"--data {data!r}: no such file, and not the name of a source; {nearest(data, SOURCES)}")
    return {"tasks.source": "omniglot", "tasks.file": str(path.resolve())}


def prepare(device: str, threads: int) -> str:
    """Set the number of threads and resolve the device's name."""
    import torch

    from metadarts.experiments.environment import choose_device

    if threads:
        torch.set_num_threads(threads)
    return choose_device(device)


def read_settings(pairs: list[str]) -> dict[str, str]:
    """["group.field=value", ...] as a dictionary. Raises ConfigError on a pair without "="."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r}: expected group.field=value, e.g. inner.steps=3")
        settings[name.strip()] = value.strip()
    return settings


class _Elapsed(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = int(task.elapsed or 0)
        return Text(f"{seconds // 60}:{seconds % 60:02d}")


class Bar:
    """A bar from 0 to 1 with a line of current figures; plain lines now and then where there is no terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._printed = progress, task, -1

    def update(self, fraction: float, figures: str) -> None:
        """Show ``fraction`` (0 to 1) and ``figures``."""
        self._progress.update(self._task, completed=fraction, figures=figures)
        tenth = int(fraction * 10)
        if not console.is_terminal and tenth > self._printed:
            self._printed = tenth
            console.print(f"  {fraction:4.0%}  {figures}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A progress bar with elapsed and remaining time."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        _Elapsed(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    if not console.is_terminal:
        console.print(title)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(title, total=1.0, figures=""))
