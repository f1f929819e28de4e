"""Joins parts of one table that were measured on several machines or days (``reproduce --row``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from metadarts.core.errors import DataError
from metadarts.papers.page import HOURS
from metadarts.papers.rows import HEADLINE, META_CELL, TASK_CELL, Comparison, ResultTable, Row

from .notes import UNFINISHED, setting, unfinished
from .plans import ComparisonPlan, RowPlan, comparisons_of, rows_of
from .tables import TableSpec, table_named

Item = TypeVar("Item", Row, Comparison)
ItemKey = tuple[str, ...]
OF_THE_HEADLINE = (META_CELL, TASK_CELL)
"""Rows whose cell is read off the headline's alphas: without its row nothing says which headline that was."""


def joined(tables: Sequence[ResultTable]) -> list[ResultTable]:
    """Every table once, in the order of its first occurrence; parts of one table, budget and split are joined.

    The result does not depend on the order of the parts. A part that is given twice counts once. For a row that was
    measured again, the shorter times are kept, because they are nearer to those of an undisturbed machine.

    Raises:
        DataError: when two parts measured one row or comparison and differ in it; when they were measured on other
            test tasks, with other seeds, or by a version that says other things of the table; and when a part has a
            cell of a headline without that headline.
        ConfigError: for parts of a table that is none of ours.
    """
    groups: dict[ItemKey, list[ResultTable]] = {}
    for table in tables:
        parts = groups.setdefault((table.name, table.budget, table.split), [])
        if table not in parts:
            parts.append(table)
    return [parts[0] if len(parts) == 1 else _joined(parts) for parts in groups.values()]


def _joined(given: list[ResultTable]) -> ResultTable:
    parts = sorted(given, key=lambda part: (part.digest, part.to_json()))
    first, spec = parts[0], table_named(parts[0].name)
    _require_alike(parts)
    plans = _plans(spec, parts)
    compared = [(of, plan) for of in dict.fromkeys(of for of, _ in plans) for plan in comparisons_of(first.budget)]
    quick = sorted(
        (row for part in parts for row in part.rows), key=lambda row: row.search_seconds + row.measure_seconds
    )
    rows = _union([quick], _row_key, _row_facts, [(of, plan.name) for of, plan in plans])
    comparisons = _union(
        (part.comparisons for part in parts),
        _comparison_key,
        _comparison_facts,
        [_plan_key(*each) for each in compared],
    )
    return replace(
        first,
        episodes={of: digest for part in parts for of, digest in part.episodes.items()},
        rows=rows,
        comparisons=comparisons,
        environment=_environments(parts),
        notes=(*_notes(parts, rows, plans, comparisons, compared), *_table_notes(first)),
    )


# ------------------------------------------------------------------------------------------------------ what must agree


def _require_alike(parts: list[ResultTable]) -> None:
    first = parts[0]
    known: dict[str, str] = {}
    for part in parts:
        for name in ("title", "paper", "source"):
            one, two = getattr(first, name), getattr(part, name)
            if one != two:
                raise DataError(f"parts of {first.name} differ in their {name}: {one[:60]!r} and {two[:60]!r}")
        for of, digest in part.episodes.items():
            if known.setdefault(of, digest) != digest:
                raise DataError(
                    f"parts of {first.name} were measured on other test tasks of {of} ({known[of][:12]}… and "
                    f"{digest[:12]}…): they are no one table"
                )
        if odd := set(_table_notes(first)) ^ set(_table_notes(part)):
            raise DataError(
                f"parts of {first.name} were made by versions that say other things of it: only one of them has "
                f"{sorted(odd)[0][:120]!r}; measure the older part anew"
            )
        there = {_row_key(row) for row in part.rows}
        for of, name in there:
            if name in OF_THE_HEADLINE and (of, HEADLINE) not in there:
                raise DataError(
                    f"a part of {first.name} has the row {name!r} of {of} without its headline: give the part of the "
                    f"folder that has both (reproduce --row {HEADLINE} --row {name})"
                )
    seeds = {row.seeds for part in parts for row in part.rows if row.meta_steps}
    if len(seeds) > 1:
        raise DataError(
            f"parts of {first.name} were trained with the seeds {sorted(seeds)}: give parts of the same ones"
        )


def _table_notes(part: ResultTable) -> list[str]:
    """What a part says of the whole table."""
    return [note for note in part.notes if not note.startswith(UNFINISHED)]


# ------------------------------------------------------------------------------------------------------ what it becomes


def _plans(spec: TableSpec, parts: list[ResultTable]) -> list[tuple[str, RowPlan]]:
    """(setting, row) of everything that the table is to have, in its order."""
    settings = {setting(shots): shots for shots in spec.settings(parts[0].budget)}
    met = [of for of in settings if any(of in part.episodes for part in parts)]
    return [(of, plan) for of in met for plan in rows_of(spec, parts[0].budget, settings[of])]


def _row_key(row: Row) -> ItemKey:
    return row.setting, row.name


def _row_facts(row: Row) -> Row:
    """All but times and machine, which another measurement of the same need not share."""
    return replace(row, search_seconds=0.0, measure_seconds=0.0, device="")


def _comparison_key(comparison: Comparison) -> ItemKey:
    return comparison.setting, comparison.first, comparison.second, comparison.about


def _plan_key(of: str, plan: ComparisonPlan) -> ItemKey:
    return of, plan.first, plan.second, plan.about


def _comparison_facts(comparison: Comparison) -> Comparison:
    return replace(comparison, seconds=(0.0, 0.0))


def _union(
    parts: Iterable[Iterable[Item]],
    key_of: Callable[[Item], ItemKey],
    facts: Callable[[Item], Item],
    order: list[ItemKey],
) -> tuple[Item, ...]:
    """Every item once, in ``order``; what that does not name comes last."""
    found: dict[ItemKey, Item] = {}
    for item in (item for part in parts for item in part):
        there = found.setdefault(key_of(item), item)
        one, two = facts(there), facts(item)
        if odd := [field.name for field in fields(one) if getattr(one, field.name) != getattr(two, field.name)]:
            raise DataError(
                f"parts of one table measured {' / '.join(key_of(item))} and differ in its {odd[0]}: "
                f"{getattr(one, odd[0])!r} and {getattr(two, odd[0])!r}; give one of them, or measure it anew"
            )
    ranks = {at: rank for rank, at in enumerate(order)}
    return tuple(sorted(found.values(), key=lambda item: ranks.get(key_of(item), len(ranks))))


def _notes(
    parts: list[ResultTable],
    rows: tuple[Row, ...],
    plans: list[tuple[str, RowPlan]],
    comparisons: tuple[Comparison, ...],
    compared: list[tuple[str, ComparisonPlan]],
) -> list[str]:
    """What is missing, and which part has what."""
    there, held = {_row_key(row) for row in rows}, {_comparison_key(each) for each in comparisons}
    missing = [f"{plan.method} ({of})" for of, plan in plans if (of, plan.name) not in there]
    method = {_row_key(row): row.method for row in rows}
    apart = [
        f"{method[of, plan.first]} with {method[of, plan.second]} ({of})"
        for of, plan in compared
        if {(of, plan.first), (of, plan.second)} <= there and _plan_key(of, plan) not in held
    ]
    told = [unfinished(missing)] if missing else []
    for number, part in enumerate(parts, 1):
        methods = "; ".join(dict.fromkeys(row.method for row in part.rows))
        told.append(f"Part {number} of {len(parts)} (commit {part.environment.get('commit', 'unknown')}): {methods}.")
    again = [f"{method[key]} ({key[0]})" for key, times in sorted(_times(parts).items()) if len(set(times)) > 1]
    if again:
        told.append(f"Done anew in another part, and equal to the last digit: {'; '.join(again)}.")
    if apart:
        told.append(f"Not compared, since no part has the accuracies of both by task: {'; '.join(apart)}.")
    return told


def _times(parts: list[ResultTable]) -> dict[ItemKey, list[float]]:
    """The seconds of each row's training in every part that has it (of its measuring, where nothing was trained).

    Two trainings never take equally long to a tenth of a second for an hour, so that equal times are one training.
    """
    found: dict[ItemKey, list[float]] = {}
    for row in (row for part in parts for row in part.rows):
        found.setdefault(_row_key(row), []).append(row.search_seconds or row.measure_seconds)
    return found


def _environments(parts: list[ResultTable]) -> dict[str, Any]:
    """What the parts have in common, and a list where they differ; hours are added up, a training done twice too.

    Without hours where parts share a training, whose time would count twice.
    """
    environments = [part.environment for part in parts]
    copied = any(len(set(times)) < len(times) for times in _times(parts).values())
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in environments for name in each):
        values = [each[name] for each in environments if name in each]
        distinct = [value for at, value in enumerate(values) if value not in values[:at]]
        if name not in HOURS:
            found[name] = distinct[0] if len(distinct) == 1 else distinct
        elif not copied and all(isinstance(value, int | float) for value in values):
            found[name] = round(sum(values), 2)
    return found
