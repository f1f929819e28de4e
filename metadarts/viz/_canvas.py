"""One figure, one file: no pyplot, no global state, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metadarts.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
INK = "#2b2f36"
FAINT = "#8a919c"


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A blank white figure of ``width`` x ``height`` inches, written to ``path`` on leaving. Raises ConfigError."""
    check_suffix(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "font.family": "DejaVu Sans",
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
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        sheet.savefig(path, format=path.suffix[1:], dpi=150, metadata=metadata)


def check_suffix(path: Path) -> None:
    """Require a file type that we write. Raises ConfigError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"expected a picture ending in {' or '.join(SUFFIXES)}, got {path.name!r}: rename it")
