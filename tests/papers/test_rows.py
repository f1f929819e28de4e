"""A table on disk: what is written comes back, what is broken is refused by name, and what was measured has a hash."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadarts.core.errors import ConfigError, DataError
from metadarts.papers.rows import BUDGETS, PROTOCOLS, Comparison, Paper, ResultTable, Row, verdict
from metadarts.stats import Estimate
from tests.papers.made_tables import FIVE, ONE, around, row, table

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
COUNTS = st.integers(0, 10**9)
SHARES = st.floats(0, 1)
SECONDS = st.floats(0, 1e9)


def estimates(low: float) -> st.SearchStrategy[Estimate]:
    ends = st.lists(st.floats(low, 1), min_size=3, max_size=3).map(sorted)
    return ends.map(lambda values: Estimate(values[1], values[0], values[2]))


ROWS = st.builds(
    Row,
    setting=st.sampled_from([ONE, FIVE]),
    name=TEXTS,
    method=TEXTS,
    protocol=st.sampled_from([*PROTOCOLS]),
    paper=st.none() | st.builds(Paper, TEXTS, SHARES, st.none() | SHARES),
    estimate=estimates(0),
    seeds=st.lists(st.integers(-9, 9), min_size=1, unique=True).map(tuple),
    tasks=st.just(600),
    bn=TEXTS,
    selection=TEXTS,
    weights=COUNTS,
    alphas=COUNTS,
    steps=COUNTS,
    meta_steps=COUNTS,
    search_seconds=SECONDS,
    device=TEXTS,
    note=TEXTS,
    unlike=TEXTS,
    covers=TEXTS,
    measure_seconds=SECONDS,
)


@st.composite
def tables(draw: st.DrawFn) -> ResultTable:
    rows = tuple(draw(st.lists(ROWS, max_size=4, unique_by=lambda found: (found.setting, found.name))))
    pairs = [(a, b) for a in rows for b in rows if a.setting == b.setting]
    comparisons = tuple(
        Comparison(
            a.setting,
            a.name,
            b.name,
            draw(TEXTS),
            draw(estimates(-1)),
            draw(st.booleans()),
            (draw(SECONDS), draw(SECONDS)),
            (draw(COUNTS), draw(COUNTS)),
            draw(st.none() | st.floats(-1, 1)),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for a, b in (draw(st.lists(st.sampled_from(pairs), max_size=2)) if pairs else [])
    )
    texts = {name: draw(TEXTS) for name in ("name", "title", "paper", "source", "split")}
    environment = draw(st.dictionaries(TEXTS, st.none() | st.booleans() | COUNTS | TEXTS, max_size=3))
    notes = tuple(draw(st.lists(TEXTS, max_size=2)))
    budget = draw(st.sampled_from(BUDGETS))
    episodes = dict.fromkeys((ONE, FIVE), "0a" * 32)
    return ResultTable(
        **texts,
        budget=budget,
        episodes=episodes,
        rows=rows,
        comparisons=comparisons,
        environment=environment,
        notes=notes,
    )


@given(tables())
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(made: ResultTable) -> None:
    assert ResultTable.from_json(made.to_json()) == made


BROKEN = {
    "a field": (
        ("rows", 0, "estimate", "mean"),
        60.0,
        r"rows\[0\]\.estimate\.mean: expected a number from 0 to 1, got 60",
    ),
    "no such row": (
        ("comparisons", 0, "second"),
        "mamI",
        r"comparisons\[0\]\.second: no row is called 'mamI' in '5-way 5-shot'; did you mean 'maml'",
    ),
    "other tasks": (("rows", 0, "tasks"), 200, r"comparisons\[0\]: expected two rows on the same tasks, got 600"),
    "same name": (("rows", 1, "name"), "maml", r"rows\[1\]\.name: 'maml' is there twice in '5-way 5-shot'"),
    "version": (("version",), 2, r"version: expected 1, got 2 \(update metadarts\)"),
    "format": (("format",), "metadarts.model", "format: expected 'metadarts.table', got 'metadarts.model'"),
    "changed": (("rows", 0, "estimate", "mean"), 0.605, "sha256: the table was changed since it was measured"),
    "no hash": (("sha256",), None, "sha256: the table was changed since it was measured"),
}


@pytest.mark.parametrize("path, value, message", BROKEN.values(), ids=[*BROKEN])
def test_refuses_a_broken_field_by_name(path: tuple[Any, ...], value: Any, message: str) -> None:
    """Every other fault is in tests/store."""
    told = inside = json.loads(table().to_json())
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    with pytest.raises(DataError, match=message):
        ResultTable.from_json(json.dumps(told))


def test_nothing_is_written_that_could_not_be_read() -> None:
    made = table()
    wrong = replace(made, rows=(replace(made.rows[0], estimate=Estimate(60.0, 59.0, 61.0)), *made.rows[1:]))
    with pytest.raises(DataError, match=r"rows\[0\]\.estimate\.mean"):
        wrong.to_json()


SAME: dict[str, Callable[[ResultTable], ResultTable]] = {
    "seconds": lambda made: _first_row(made, search_seconds=1.0),
    "measuring": lambda made: _first_row(made, measure_seconds=1.0),
    "device": lambda made: _first_row(made, device="a GPU"),
    "environment": lambda made: replace(made, environment={}),
    "seconds compared": lambda made: _first_comparison(made, seconds=(0.0, 1.0)),
    "whole numbers": lambda made: _first_comparison(made, paper=float(made.comparisons[0].paper or 0)),
}
OTHER: dict[str, Callable[[ResultTable], ResultTable]] = {
    "estimate": lambda made: _first_row(made, estimate=around(0.6, 0.02)),
    "weights": lambda made: _first_row(made, weights=1),
    "seeds": lambda made: _first_row(made, seeds=(0, 1)),
    "difference": lambda made: _first_comparison(made, difference=around(0.1)),
    "overlaps": lambda made: _first_comparison(made, overlaps=False),
    "unlike": lambda made: _first_row(made, unlike="another split"),
    "covers": lambda made: _first_row(made, covers="596 of 600 tasks"),
    "meta-steps": lambda made: _first_comparison(made, meta_steps=(1, 1)),
    "same": lambda made: _first_comparison(made, same=True),
    "recipes": lambda made: _first_comparison(made, recipes_differ=True),
    "episodes": lambda made: replace(made, episodes=made.episodes | {ONE: "1" * 64}),
    "budget": lambda made: replace(made, budget="full"),
    "order": lambda made: replace(made, rows=made.rows[::-1]),
}


def _first_row(made: ResultTable, **changed: Any) -> ResultTable:
    return replace(made, rows=(replace(made.rows[0], **changed), *made.rows[1:]))


def _first_comparison(made: ResultTable, **changed: Any) -> ResultTable:
    return replace(made, comparisons=(replace(made.comparisons[0], **changed), *made.comparisons[1:]))


@pytest.mark.parametrize("change", SAME.values(), ids=[*SAME])
def test_times_and_machines_leave_the_digest(change: Callable[[ResultTable], ResultTable]) -> None:
    assert change(table()).digest == table().digest


@pytest.mark.parametrize("change", OTHER.values(), ids=[*OTHER])
def test_whatever_was_measured_changes_the_digest(change: Callable[[ResultTable], ResultTable]) -> None:
    assert change(table()).digest != table().digest


def test_a_whole_number_and_the_same_float_have_one_digest() -> None:
    one, other = (_first_row(table(), paper=Paper("x", value, None)) for value in (1, 1.0))
    assert one.digest == other.digest
    assert ResultTable.from_json(one.to_json()) == other


def measured(mean: float, low: float, high: float, paper: Paper | None, unlike: str = "") -> Row:
    return replace(row("x", mean), estimate=Estimate(mean, low, high), paper=paper, unlike=unlike)


@pytest.mark.parametrize(
    "mean, low, paper, interval, said",
    [
        (0.62, 0.61, 0.62, None, "reproduced"),
        (0.6199, 0.61, 0.62, None, "not reproduced"),
        (0.6125, 0.60, 0.625, 0.0125, "reproduced"),
        (0.6124, 0.60, 0.625, 0.0125, "not reproduced"),
        (0.62, 0.5801, 0.62, None, "reproduced"),  # its lower end may be two and two points below
        (0.62, 0.5799, 0.62, None, "not reproduced"),
        (0.62, 0.5801, 0.62, 0.01, "reproduced"),  # a printed interval narrower than two points asks no more
        (0.62, 0.5799, 0.62, 0.01, "not reproduced"),
        (0.62, 0.5501, 0.62, 0.05, "reproduced"),  # one that is wider asks less
        (0.62, 0.5499, 0.62, 0.05, "not reproduced"),
        (0.90, 0.57, 0.62, None, "not reproduced"),
    ],
)
def test_verdict(mean: float, low: float, paper: float, interval: float | None, said: str) -> None:
    assert verdict(measured(mean, low, 0.95, Paper("x", paper, interval)), "full") == said


@given(st.lists(SHARES, min_size=5, max_size=5).map(sorted), SHARES, st.none() | SHARES)
@settings(max_examples=200, deadline=None)
def test_a_wider_interval_never_helps(ends: list[float], paper: float, interval: float | None) -> None:
    lower, low, mean, high, higher = ends
    value = Paper("x", paper, interval)
    narrow, wide = measured(mean, low, high, value), measured(mean, lower, higher, value)
    if verdict(wide, "full") == "reproduced":
        assert verdict(narrow, "full") == "reproduced"
    assert verdict(measured(mean, low, higher, value), "full") == verdict(narrow, "full")
    assert not (verdict(wide, "full") == "reproduced" and mean < paper - (interval or 0.0))


@pytest.mark.parametrize("budget", ["smoke", "hour"])
@pytest.mark.parametrize("mean", [0.1, 0.9])
@pytest.mark.parametrize("unlike", ["", "another split"])
def test_a_small_budget_says_nothing_whatever_it_measured(budget: str, mean: float, unlike: str) -> None:
    found = measured(mean, mean, mean, Paper("x", 0.5, 0.01), unlike)
    assert verdict(found, budget) == "budget too small to say"


@pytest.mark.parametrize("mean", [0.1, 0.9])
def test_no_verdict_on_a_value_of_something_else(mean: float) -> None:
    value = Paper("x", 0.5, 0.01)
    assert verdict(measured(mean, mean, mean, value, "another split"), "full") == "no verdict: another split"
    assert verdict(measured(mean, mean, mean, None, "another split"), "full") == ""


def test_the_gap_to_the_papers_value() -> None:
    assert measured(0.6, 0.5, 0.7, Paper("x", 0.625, 0.01)).gap == pytest.approx(-0.025)
    assert measured(0.6, 0.5, 0.7, None).gap is None
    assert not measured(0.6, 0.5, 0.7, None).reaches


def test_no_verdict_without_a_value_of_the_paper() -> None:
    assert verdict(row("x", 0.5), "full") == ""


def test_verdict_refuses_another_budget() -> None:
    with pytest.raises(ConfigError, match="budget 'ful': expected one of them; did you mean 'full'"):
        verdict(row("x", 0.5), "ful")


def test_a_row_is_found_by_setting_and_name() -> None:
    assert table().row(ONE, "maml").estimate.mean == 0.45
    assert table().settings == (FIVE, ONE)
    with pytest.raises(ConfigError, match="has no row 'headlin' in '5-way 1-shot'; did you mean 'headline'"):
        table().row(ONE, "headlin")
