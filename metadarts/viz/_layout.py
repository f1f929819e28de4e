"""Where the parts of a cell go, as plain numbers.

A layered drawing (Sugiyama, Tagawa and Toda, 1981). Column 0 holds the cell's inputs, column d the nodes at depth d,
the last column the output. Each operation is a box glued to the left of the node that it feeds, so that no label can
meet another. A state read further to the right crosses each column in between along a lane of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

BLOCK, LANE, TERMINAL = 1.5, 0.55, 1.2
BOX_STEP, OUTPUT_STEP = 0.68, 0.2
EXHAUSTIVE, SWEEPS = 6, 8
OUTPUT = -1
Item = tuple[str, int]
"""What stands in a column: ("block", state), or ("lane", state) where a wire of that state passes."""


@dataclass(frozen=True)
class Wire:
    """One stretch of wire across the gap after ``column``, from one height to another, carrying ``state``."""

    column: int
    state: int
    start: float
    stop: float
    lane: bool


@dataclass(frozen=True)
class Layout:
    """A cell laid out.

    Args:
        columns: number of columns, inputs and output included.
        place: (column, height) of every state, and of the output as `OUTPUT`.
        boxes: for each node state its operations as (operation, height), top to bottom.
        wires: every stretch of wire.
        lanes: (column, height) of every lane.
    """

    columns: int
    place: dict[int, tuple[int, float]]
    boxes: dict[int, tuple[tuple[str, float], ...]]
    wires: tuple[Wire, ...]
    lanes: tuple[tuple[int, float], ...]


class _Graph:
    """The cell as columns of items; ``order`` is what the search for few crossings changes."""

    def __init__(self, choices: Sequence[tuple[int, int, str]], concat: Sequence[int], inputs: int) -> None:
        self.reads: dict[int, list[tuple[int, str]]] = {}
        for node, source, op in choices:
            self.reads.setdefault(node + inputs, []).append((source, op))
        self.concat = tuple(concat)
        self.depth = dict.fromkeys(range(inputs), 0)
        for state, reads in sorted(self.reads.items()):
            self.depth[state] = 1 + max(self.depth[source] for source, _ in reads)
        self.depth[OUTPUT] = 1 + max(self.depth.values())
        self.targets = {state: self._targets(state) for state in self.depth}
        self.order = [self._column(column) for column in range(self.depth[OUTPUT] + 1)]

    def _targets(self, state: int) -> list[int]:
        readers = [node for node, reads in self.reads.items() if any(source == state for source, _ in reads)]
        return readers + ([OUTPUT] if state in self.concat else [])

    def _column(self, column: int) -> tuple[Item, ...]:
        blocks = [("block", state) for state, depth in self.depth.items() if depth == column]
        lanes = [
            ("lane", state)
            for state, targets in self.targets.items()
            if targets and self.depth[state] < column < max(self.depth[target] for target in targets)
        ]
        return tuple(lanes + blocks)

    def heights(self, column: int) -> dict[Item, float]:
        """The centre of every item of a column, stacked downwards and centred on zero."""
        sizes = [_size(item, column in (0, len(self.order) - 1)) for item in self.order[column]]
        top, heights = sum(sizes) / 2, {}
        for item, size in zip(self.order[column], sizes, strict=True):
            heights[item], top = top - size / 2, top - size
        return heights

    def gap(self, column: int) -> list[tuple[Item, Item]]:
        """The wires between ``column`` and the next, as (item left, item right)."""
        wires = []
        for item in self.order[column]:
            state = item[1]
            right = [("block", target) for target in self.targets[state] if self.depth[target] == column + 1]
            wires += [(item, target) for target in right]
            if ("lane", state) in self.order[column + 1]:
                wires.append((item, ("lane", state)))
        return wires

    def cost(self, column: int) -> float:
        """How untidy the gaps on both sides of ``column`` are: crossings first, then length."""
        total = 0.0
        for left in (column - 1, column):
            if 0 <= left < len(self.order) - 1:
                starts, stops = self.heights(left), self.heights(left + 1)
                ends = [(starts[a], stops[b]) for a, b in self.gap(left)]
                total += 4.0 * sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(ends, 2))
                total += sum(abs(start - stop) for start, stop in ends)
        return total


def _size(item: Item, terminal: bool) -> float:
    return TERMINAL if terminal else BLOCK if item[0] == "block" else LANE


def _tidy(graph: _Graph) -> None:
    """Reorder each column in turn while it helps."""
    for _ in range(SWEEPS):
        before = [tuple(order) for order in graph.order]
        for column in range(1, len(graph.order)):
            scores = []
            for order in _orders(graph.order[column]):
                graph.order[column] = order
                scores.append((graph.cost(column), order))
            graph.order[column] = min(scores, key=lambda score: score[0])[1]
        if graph.order == before:
            return


def _orders(items: tuple[Item, ...]) -> Iterable[tuple[Item, ...]]:
    """Every order of a short column; for a long one, the present order and those one exchange away."""
    if len(items) <= EXHAUSTIVE:
        return permutations(items)
    return [items, *(_exchange(items, first, second) for first, second in combinations(range(len(items)), 2))]


def _exchange(items: tuple[Item, ...], first: int, second: int) -> tuple[Item, ...]:
    changed = list(items)
    changed[first], changed[second] = items[second], items[first]
    return tuple(changed)


def lay_out(choices: Sequence[tuple[int, int, str]], concat: Sequence[int], inputs: int = 2) -> Layout:
    """Lay out the cell whose kept edges are ``choices``, (node, input state, operation), joined as ``concat`` says."""
    graph = _Graph(choices, concat, inputs)
    _tidy(graph)
    heights = [graph.heights(column) for column in range(len(graph.order))]
    place = {state: (depth, heights[depth]["block", state]) for state, depth in graph.depth.items()}
    boxes: dict[int, tuple[tuple[str, float], ...]] = {}
    entries: dict[tuple[int, int], float] = {}
    for state, reads in graph.reads.items():
        column, middle = place[state]
        ordered = _downwards(reads, heights[column - 1])
        slots = _spread(middle, len(ordered), BOX_STEP)
        boxes[state] = tuple((op, slot) for (_, op), slot in zip(ordered, slots, strict=True))
        entries |= {(source, state): slot for (source, _), slot in zip(ordered, slots, strict=True)}
    joined = _downwards([(state, "") for state in graph.concat], heights[-2])
    slots = _spread(place[OUTPUT][1], len(joined), OUTPUT_STEP)
    entries |= {(source, OUTPUT): slot for (source, _), slot in zip(joined, slots, strict=True)}
    lanes = [(column, y) for column, items in enumerate(heights) for item, y in items.items() if item[0] == "lane"]
    return Layout(len(graph.order), place, boxes, _wires(graph, heights, entries), tuple(lanes))


def _downwards(reads: list[tuple[int, str]], before: dict[Item, float]) -> list[tuple[int, str]]:
    """``reads``, (source, operation), in the order in which their wires arrive from the column before, top first."""
    height = {item[1]: y for item, y in before.items()}
    return sorted(reads, key=lambda read: -height[read[0]])


def _spread(middle: float, count: int, step: float) -> list[float]:
    """``count`` heights, top to bottom, ``step`` apart and centred on ``middle``."""
    return [middle + step * ((count - 1) / 2 - index) for index in range(count)]


def _wires(graph: _Graph, heights: list[dict[Item, float]], entries: dict[tuple[int, int], float]) -> tuple[Wire, ...]:
    wires = []
    for column, items in enumerate(heights[:-1]):
        for left, right in graph.gap(column):
            lane = right[0] == "lane"
            stop = heights[column + 1][right] if lane else entries[left[1], right[1]]
            wires.append(Wire(column, left[1], items[left], stop, lane))
    return tuple(wires)
