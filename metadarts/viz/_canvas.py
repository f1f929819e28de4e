"""One figure, one file or one block of bytes: no pyplot, no global state, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metadarts.core.errors import ConfigError
from metadarts.store.files import cannot_write, write_atomically

from ._fonts import drawable, families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
DPI = 150
INK = "#2b2f36"
FAINT = "#8a919c"


class Picture(io.BytesIO):
    """A picture in memory: every drawing function takes one instead of a path; `getvalue` returns the file's bytes.

    Args:
        suffix: ".png" or ".svg".
        dpi: pixels per inch of a PNG.

    Raises:
        ConfigError: for another suffix.
    """

    def __init__(self, suffix: str = ".png", dpi: int = DPI) -> None:
        check_suffix(Path(f"picture{suffix}"))
        super().__init__()
        self.suffix = suffix
        self.dpi = dpi


Target = Path | Picture


@contextmanager
def figure(target: Target, width: float, height: float) -> Iterator[Figure]:
    """A blank white figure of ``width`` x ``height`` inches, written to ``target`` on leaving. Raises ConfigError."""
    if isinstance(target, Path):
        check_suffix(target)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "font.family": list(families()),
            "mathtext.fontset": "dejavusans",
            "svg.fonttype": "path",
            "svg.hashsalt": "metadarts",
            "text.color": INK,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        sheet = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(sheet)
        yield sheet
        metadata = {"Date": None} if target.suffix == ".svg" else None
        drawn = target if isinstance(target, Picture) else Picture(target.suffix)
        sheet.savefig(drawn, format=drawn.suffix[1:], dpi=drawn.dpi, metadata=metadata)
        if isinstance(target, Path):
            _write(target, drawn.getvalue())


def _write(path: Path, content: bytes) -> None:
    """The drawn file, whole or not at all, in a folder that is made when missing. Raises RunError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomically(path, content)


def check_suffix(path: Path) -> None:
    """Require a file type that we write. Raises ConfigError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"expected a picture ending in {' or '.join(SUFFIXES)}, got {path.name!r}: rename it")


def row_axes(axes: Axes, xlabel: str) -> None:
    """What all charts of rows share: a label under them, vertical lines to read along, no box."""
    axes.set_xlabel(xlabel, fontsize=9)
    axes.tick_params(labelsize=8, length=0)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)


def name_rows(axes: Axes, names: Collection[str]) -> None:
    """One row for each name, from top to bottom at the heights 0, 1, 2, ..."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)


def plain(text: str, longest: int = 60) -> str:
    """``text`` as a label that matplotlib prints as it stands: no formula, no letter that the fonts lack, not long."""
    letters = drawable(text)
    short = letters if len(letters) <= longest else letters[: longest - 3] + "..."
    return short.replace("$", r"\$")
