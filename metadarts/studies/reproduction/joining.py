"""Parts of one table that were measured apart, on several machines or in several sittings (``reproduce --row``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from metadarts.core.described import number
from metadarts.core.errors import DataError
from metadarts.studies.rows import Comparison, Row, Table

from .notes import UNFINISHED, setting, unfinished
from .plans import RowPlan, comparisons_of, rows_of
from .tables import Spec, table_named

HOURS = ("training_hours", "measuring_hours")
Item = TypeVar("Item", Row, Comparison)
Place = tuple[str, ...]


def joined(tables: Sequence[Table]) -> list[Table]:
    """Every table once, in the order in which they are first met; parts of one table, budget and split are joined.

    Raises:
        DataError: when two parts measured one row or comparison and differ in it, or were measured on other tasks.
        ConfigError: for parts of a table that is none of ours.
    """
    groups: dict[Place, list[Table]] = {}
    for table in tables:
        groups.setdefault((table.name, table.budget, table.split), []).append(table)
    return [parts[0] if len(parts) == 1 else _joined(parts) for parts in groups.values()]


def _joined(parts: list[Table]) -> Table:
    first, spec = parts[0], table_named(parts[0].name)
    for part in parts[1:]:
        _require_like(first, part)
    plans = _plans(spec, parts)
    order: list[Place] = [(of, plan.name) for of, plan in plans]
    compared: list[Place] = [
        (of, plan.first, plan.second, plan.about)
        for of in dict.fromkeys(of for of, _ in plans)
        for plan in comparisons_of(first.budget)
    ]
    rows, twice = _union((part.rows for part in parts), _row_place, _row_facts, order)
    comparisons, _ = _union((part.comparisons for part in parts), _comparison_place, _comparison_facts, compared)
    there = {_row_place(row) for row in rows}
    missing = [f"{plan.method} ({of})" for of, plan in plans if (of, plan.name) not in there]
    notes = dict.fromkeys(note for part in parts for note in part.notes if not note.startswith(UNFINISHED))
    told = f"Measured in {len(parts)} parts; rows that are in more than one of them, and equal there: {twice}."
    return replace(
        first,
        episodes={of: digest for part in parts for of, digest in part.episodes.items()},
        rows=rows,
        comparisons=comparisons,
        environment=_environments([part.environment for part in parts]),
        notes=(*([unfinished(missing)] if missing else []), told, *notes),
    )


def _require_like(first: Table, other: Table) -> None:
    for name in ("title", "paper", "source"):
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise DataError(f"parts of {first.name} differ in their {name}: {one[:60]!r} and {two[:60]!r}")
    for of in first.episodes.keys() & other.episodes.keys():
        if first.episodes[of] != other.episodes[of]:
            raise DataError(
                f"parts of {first.name} were measured on other test tasks of {of} ({first.episodes[of][:12]}… and "
                f"{other.episodes[of][:12]}…): they are no one table"
            )


def _plans(spec: Spec, parts: list[Table]) -> list[tuple[str, RowPlan]]:
    """(setting, row) of everything that the table is to have, in its order."""
    settings = {setting(shots): shots for shots in spec.settings(parts[0].budget)}
    met = [of for of in settings if any(of in part.episodes for part in parts)]
    return [(of, plan) for of in met for plan in rows_of(spec, parts[0].budget, settings[of])]


def _row_place(row: Row) -> Place:
    return row.setting, row.name


def _row_facts(row: Row) -> Row:
    """All but times and machine, which another measurement of the same need not share."""
    return replace(row, search_seconds=0.0, measure_seconds=0.0, device="")


def _comparison_place(comparison: Comparison) -> Place:
    return comparison.setting, comparison.first, comparison.second, comparison.about


def _comparison_facts(comparison: Comparison) -> Comparison:
    return replace(comparison, seconds=(0.0, 0.0))


def _union(
    parts: Iterable[Iterable[Item]],
    place: Callable[[Item], Place],
    facts: Callable[[Item], Item],
    order: list[Place],
) -> tuple[tuple[Item, ...], int]:
    """Every item once, in ``order``, what that does not name last; and how many are in more than one part."""
    found: dict[Place, Item] = {}
    twice = set()
    for item in (item for part in parts for item in part):
        at = place(item)
        if at in found:
            twice.add(at)
            if facts(found[at]) != facts(item):
                raise DataError(
                    f"parts of one table measured {' / '.join(at)} and differ in it: {_told(found[at])} and "
                    f"{_told(item)}; give one of them, or measure it anew with one version and one seed"
                )
        found.setdefault(at, item)
    ranks = {at: rank for rank, at in enumerate(order)}
    return tuple(sorted(found.values(), key=lambda item: ranks.get(place(item), len(ranks)))), len(twice)


def _told(item: Row | Comparison) -> str:
    value = item.estimate if isinstance(item, Row) else item.difference
    return f"{100 * value.mean:.4f} [{100 * value.low:.4f}, {100 * value.high:.4f}]"


def _environments(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the parts have in common, and a list where they differ; hours are added up, a training done twice too."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        distinct = [value for at, value in enumerate(values) if value not in values[:at]]
        found[name] = distinct[0] if len(distinct) == 1 else distinct
        if name in HOURS:
            found[name] = round(sum(number(value) for value in values), 2)
    return found
