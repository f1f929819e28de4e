"""Progress reports of long computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a long computation stands.

    Args:
        done: how much is done, in images, tasks, epochs or percent.
        total: of how much.
        value: the current figure, such as the mean accuracy so far; NaN if there is none.
        figures: the current figures in words, for a progress bar; empty for "done/total".
    """

    done: float
    total: float
    value: float = math.nan
    figures: str = ""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / max(self.total, 1)

    @property
    def text(self) -> str:
        """The figures in words."""
        return self.figures or f"{self.done:g}/{self.total:g}"


Watch = Callable[[Progress], None]
"""Called whenever there is progress; it may raise, to stop the computation."""


def tell(watch: Watch | None, done: float, total: float, value: float = math.nan, figures: str = "") -> None:
    """Call ``watch``, where there is one; the others are the fields of `Progress`."""
    if watch is not None:
        watch(Progress(done, total, value, figures))


def tell_images(watch: Watch | None, done: int, total: int) -> None:
    """`tell` of images."""
    tell(watch, done, total, figures=f"{done}/{total} images")


def tell_mean(watch: Watch | None, done: int, total: int, mean: float) -> None:
    """`tell` of tasks and their mean accuracy so far, from 0 to 1."""
    tell(watch, done, total, mean, f"{done} tasks  {mean:.2%}")


def within(watch: Watch | None, first: float, size: float, figures: str = "") -> Watch:
    """The watch of a part that begins at the share ``first`` and is the share ``size`` of the whole.

    Args:
        figures: of the whole part; empty for its own.
    """

    def told(now: Progress) -> None:
        tell(watch, first + size * now.share, 1.0, now.value, figures or now.text)

    return told
