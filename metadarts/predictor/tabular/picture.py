"""What was measured as pictures: every method with its interval, by K or by left-out family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metadarts.stats import Estimate
from metadarts.viz import Branch, Picture, draw_forest

from .report import Result


def draw_result(result: Result, path: Path | Picture) -> None:
    """Write one line per method, in groups: by K where architectures are chosen, by family where they are ordered.

    Args:
        result: of a `Report`.
        path: the file, ending in .svg or .png, or a `Picture`.

    Raises:
        ConfigError: when the ending is another.
    """
    if "percentile" in result.measures:
        groups = {
            f"K = {shot}": _branches(result, lambda name, shot=shot: result.interval("percentile", name, shot))  # type: ignore[misc]
            for shot in result.shots
        }
        xlabel = "percentile of the chosen architecture on test values, mean over left-out tasks"
    else:
        groups = {
            f"{family}, K = {shot}": _branches(
                result,
                lambda name, shot=shot, family=family: result.interval("spearman", name, shot, family),  # type: ignore[misc]
            )
            for family in dict.fromkeys(result.groups)
            for shot in result.shots
        }
        xlabel = "rank correlation (Spearman) on devices of the family that was left out"
    draw_forest(groups, path, xlabel=xlabel, title=result.name, ours="measured, 95 % interval over seeds")


def _branches(result: Result, interval: Callable[[str], Estimate]) -> list[Branch]:
    found = ((name, interval(name)) for name in result.methods)
    return [Branch(name, *one.ends) for name, one in found]
