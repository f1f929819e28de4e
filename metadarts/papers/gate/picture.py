"""A gate as a picture: the accuracy of each operation in each domain, and what choosing gains."""

from __future__ import annotations

from metadarts.stats.intervals import interval95
from metadarts.viz import Ranges, draw_ranges
from metadarts.viz._canvas import Target

from .study import Gate


def draw_gate(found: Gate, target: Target) -> None:
    """Write the picture to a .png or .svg file, or a `Picture`. Raises ConfigError for another ending."""
    import torch

    table = 100 * found.table.mean((0, 4))  # [D, M, C]
    best = table.mean((0, 1)).argmax()
    panels = []
    for place, domain in enumerate(found.domains):
        off = table[place] - table[place, :, best : best + 1]
        rows = {}
        for column, name in enumerate(found.names):
            mean, half = float(off[:, column].mean()), interval95(torch.from_numpy(off[:, column].copy()))
            rows[name] = (mean, mean - half, mean + half)
        panels.append(Ranges(f"{domain or 'all tasks'}: accuracy less that of {found.names[best]}, points", rows))
    draw_ranges(panels, target, title=f"which operation suits which tasks? {found.facts['source']}")
