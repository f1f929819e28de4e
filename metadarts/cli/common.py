"""Options that all verbs share, and how progress is shown."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

from metadarts.core.errors import ConfigError
from metadarts.core.progress import Progress, Watch
from metadarts.core.text import visible
from metadarts.store.files import is_there, require_place

if TYPE_CHECKING:
    from metadarts.training import Config, Experiment, OpenRun


def existing(message: str) -> Callable[[Any], Any]:
    """A check of an option: something is there. It runs before torch is loaded, which takes seconds.

    Args:
        message: what to say otherwise, with {} for the path.
    """

    def check(value: Any) -> Any:
        for path in value if isinstance(value, list | tuple) else [value]:
            if path is not None and not is_there(path):
                raise ConfigError(message.format(path))
        return value

    return check


def name_or_existing(message: str) -> Callable[[str | None], str | None]:
    """The same of a text that is a name or a path: what has a separator is a path, unless it names a mixture."""

    def check(value: str | None) -> str | None:
        named = value is None or os.sep not in value or value.startswith("mixture:")
        if not named and not is_there(Path(str(value))):
            raise ConfigError(message.format(repr(value)))
        return value

    return check


def can_be_written(path: Path | None) -> Path | None:
    """A check of an option: a file or folder can be made there, which must not be found out after hours of work."""
    if path is not None:
        require_place(path)
    return path


is_run = existing("{} is not a run folder (it has no config.yaml): give what search --out named")
is_archive = existing("there is no archive {}; `metadarts archive add` makes one")
are_images = existing(
    "{}: there is nothing; expected a folder of class folders, a .csv file of lines path,label, or an .npz file of "
    "images and label"
)
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16 (activations only).")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 uses torch's default.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]

DATA_HELP = (
    "A name (glyphs, built in; omniglot, cifar-fs, fc100, mini-imagenet, tiered-imagenet, learn2learn:TASKSET), "
    "several names (mixture:omniglot,cifar-fs=PLACE), or a path: a folder with one subfolder per class, or an .npz "
    "file."
)
is_data = name_or_existing("--data {}: no such file, and not the name of a source")
MovedData = Annotated[
    str | None, typer.Option(help=f"Data, if they moved since the search: {DATA_HELP}", callback=is_data)
]
CHECKPOINTS = ("best", "last", "supernet")
WhichCheckpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        help="best, last, or supernet (of a run that committed: the state before its cell was extracted).",
    ),
]
FitMemory = Annotated[
    bool | None, typer.Option("--fit-memory", help="If memory runs out, evaluate fewer tasks per pass.")
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="A .py file or module with your own entries; its code runs. Repeatable."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder or file with the named data; default: the source's usual place.",
        callback=existing("--data-root '{}': there is nothing at that place"),
    ),
]


class SafeConsole(Console):
    """A console on which text is one line, whatever names are in it."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's, with each text `visible`."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)

    def page(self, text: str) -> None:
        """Print a text of several lines."""
        for line in text.splitlines():
            self.print(line, soft_wrap=True)


console = SafeConsole(highlight=False, markup=False, emoji=False)


def require_checkpoint(name: str) -> None:
    """Require the name of a checkpoint that runs have. Raises ConfigError."""
    if name not in CHECKPOINTS:
        raise ConfigError(f"--checkpoint {name!r}: expected {', '.join(CHECKPOINTS)}")


def plugin_words(plugins: Sequence[str]) -> str:
    """The plug-ins as words of a command line, each with a space before it."""
    return "".join(f" --plugin {shlex.quote(plugin)}" for plugin in plugins)


def program() -> str:
    """The program as it was called, so that a command that is printed can be copied."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m metadarts"
    found = shutil.which("metadarts")
    known = called.parent == Path() or (found is not None and called.exists() and called.samefile(found))
    return "metadarts" if known else shlex.quote(str(called))


def say_next(commands: Iterable[str]) -> None:
    """The commands that may come next, without the program's name, a line for each so that one can be copied."""
    console.print("next:")
    for command in commands:
        console.print(f"  {program()} {command}", soft_wrap=True)


def open_experiment(config: Config, device: str) -> Experiment:
    """Build the experiment, under a bar when there are many images to read. Raises MetadartsError."""
    from metadarts.training import build

    with _reading(config) as progress:
        return build(config, device, progress)


def experiment_of(run: OpenRun) -> Experiment:
    """The experiment of a run on disk, as `open_experiment`. Raises MetadartsError."""
    with _reading(run.config) as progress:
        return run.experiment(progress=progress)


@contextmanager
def _reading(config: Config) -> Iterator[Watch]:
    with bar(f"read {config.tasks.source}", quiet=True) as shown:
        yield shown.watch


def prepare(device: str, threads: int) -> str:
    """Set the number of threads and resolve the device's name."""
    import torch

    from metadarts.training.environment import choose_device

    if threads:
        torch.set_num_threads(threads)
    return choose_device(device)


def read_settings(pairs: list[str], form: str = "group.field=value, e.g. inner.steps=3") -> dict[str, str]:
    """["group.field=value", ...] as a dictionary. Raises ConfigError, which says the ``form``, on one without "="."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r}: expected {form}")
        settings[name.strip()] = value.strip()
    return settings


class _Elapsed(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> Text:
        seconds = int(task.elapsed or 0)
        return Text(f"{seconds // 60}:{seconds % 60:02d}")


class _Remaining(rich_progress.TimeRemainingColumn):
    """What is told of the seconds that remain; where nothing is, as the share that is done goes up."""

    def render(self, task: rich_progress.Task) -> Text:
        told = task.fields.get("remaining")
        if told is None:
            return super().render(task)
        minutes, seconds = divmod(int(told), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours:d}:{minutes:02d}:{seconds:02d}", style="progress.remaining")


class Bar:
    """A bar from 0 to 1 with a line of current figures; plain lines now and then where there is no terminal."""

    def __init__(self, progress: rich_progress.Progress, title: str) -> None:
        self._progress, self._title, self._printed = progress, visible(title), -1
        self._task: rich_progress.TaskID | None = None

    def show(self) -> rich_progress.TaskID:
        """Make the bar visible, or print its title."""
        if self._task is None:
            if not console.is_terminal:
                console.print(self._title)
            self._task = self._progress.add_task(self._title, total=1.0, figures="")
        return self._task

    def watch(self, now: Progress) -> None:
        """Show how far a computation is."""
        self.update(now.share, now.text)

    def update(self, fraction: float, figures: str, remaining: float | None = None) -> None:
        """Show ``fraction`` (0 to 1) and ``figures``, and the seconds that remain where they are known."""
        figures = visible(figures)
        self._progress.update(self.show(), completed=fraction, figures=figures, remaining=remaining)
        tenth = int(fraction * 10)
        if not console.is_terminal and tenth > self._printed:
            self._printed = tenth
            console.print(f"  {fraction:4.0%}  {figures}")


@contextmanager
def bar(title: str, quiet: bool = False) -> Iterator[Bar]:
    """A progress bar with elapsed and remaining time; a ``quiet`` one appears with its first update."""
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:>3.0f}%"),
        _Elapsed(),
        rich_progress.TextColumn("ETA"),
        _Remaining(),
        rich_progress.TextColumn("{task.fields[figures]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        shown = Bar(progress, title)
        if not quiet:
            shown.show()
        yield shown
