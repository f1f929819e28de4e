"""From findings to a table, with findings made up: no training, so every number to expect can be written down."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.networks import Image, discrete_network
from metadarts.papers.reproduction import TABLES, Job, tabulate
from metadarts.papers.reproduction.job import Finding, Findings
from metadarts.papers.reproduction.papers import FC100
from metadarts.papers.reproduction.plans import RowPlan, comparisons_of, rows_of
from metadarts.papers.reproduction.results_cache import Measured
from metadarts.papers.rows import NO_VERDICT, ResultTable, verdict
from metadarts.spaces import Genotype, darts, random_genotype
from metadarts.stats import estimate, paired
from metadarts.training import RunFolder
from tests.papers.tiny_tables import ALL, NODES, auto_maml, job, shrink, spec

MODULE = importlib.import_module("metadarts.papers.reproduction.tabulate")
TASKS = 7
MAMLS = ("maml", "maml-equal", "maml-ours")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


def cell(number: int) -> Genotype:
    return random_genotype(darts(NODES), Key.from_seed(number).child("tabulate")).canonical()


def sizes(cells: list[Genotype], **changes: Any) -> list[int]:
    """Weights of the cells' networks, as the tiny supernet is made but for ``changes``."""
    network = spec().trainings("hour", 1)[0].config("glyphs", 1, 0, {}).structure(Image(1))
    return [discrete_network(one, darts(NODES), replace(network, **changes)).count(5)[0] for one in cells]


def plan(work: Job, name: str) -> RowPlan:
    return next(row for row in rows_of(work.spec, work.budget, 5) if row.name == name)


@pytest.fixture
def made(tmp_path) -> Callable[..., Finding]:
    """(job, row, ...) -> a finding of 5-shot tasks; its run folder takes as many seconds as are said."""

    runs: dict[tuple[Any, ...], RunFolder] = {}

    def make(
        work: Job,
        name: str,
        seed: int = 0,
        cells: tuple[tuple[Genotype, int], ...] = (),
        behind: tuple[RunFolder, ...] = (),
        seconds: float = 3600.0,
        shift: float = 0.0,
        device: str = "a machine",
        threads: int = 1,
    ) -> Finding:
        row = plan(work, name)
        draws = Key.from_seed(seed).child("tabulate", name).numpy().integers(0, 60, TASKS) / 100
        measured = Measured(draws + shift, 3, row.bn or "transductive", seconds / 100)
        if not row.training:
            return Finding(row, 5, seed, measured)
        training = next(each for each in work.spec.trainings(work.budget, 5) if each.name == row.training)
        extra = {"model.genotype": str(cells[0][0])} if training.cell else {}
        what = str(cells[0][0]) if training.cell else training.name
        key = (what, seed, seconds, device, threads)
        if key not in runs:
            config = training.config("glyphs", 5, seed, extra)
            facts = {"device": device, "threads": threads}
            runs[key] = RunFolder.create(tmp_path / f"run {len(runs)}", config, facts)
            runs[key].write_json("finished.json", {"steps": training.steps, "seconds": seconds})
        run = runs[key]
        return Finding(row, 5, seed, measured, training.steps, (run, *behind), cells)

    return make


@pytest.fixture
def work(tmp_path) -> Job:
    """Of one hour, in 5-shot tasks, with the paper's values of FC100."""
    return job(tmp_path, replace(spec(), printed=FC100), budget="hour", shots=(5,))


def table(work: Job, *found: Finding, missing: tuple[str, ...] = ()) -> ResultTable:
    episodes: Any = {5: SimpleNamespace(sha256="0" * 64, tasks=TASKS)}
    told = tabulate(work, Findings(episodes, found, missing))
    assert ResultTable.from_json(told.to_json()) == told
    return told


def compared(told: ResultTable, first: str, second: str) -> Any:
    return next((each for each in told.comparisons if (each.first, each.second) == (first, second)), None)


def everything(made: Callable[..., Finding], work: Job, **more: Any) -> list[Finding]:
    """A finding of every row."""
    found = []
    for row in rows_of(work.spec, work.budget, 5):
        training = {each.name: each for each in work.spec.trainings(work.budget, 5)}.get(row.training)
        discrete = row.mode == "cells" or (training is not None and training.cell)
        found.append(made(work, row.name, cells=((cell(len(found)), TASKS),) if discrete else (), **more))
    return found


# Papers


def test_the_papers_difference_stands_beside_every_comparison_with_maml(made, work):
    """FC100, 5-shot: T-NAS 53.1 %, MAML 50.4 %."""
    told = table(work, *everything(made, work))
    assert len(told.comparisons) == len(comparisons_of("hour"))
    for each in told.comparisons:
        expected = pytest.approx(0.027) if each.second in MAMLS else None
        assert each.paper == expected, each


def test_a_method_that_the_paper_has_not_in_a_setting_has_no_difference(made, work):
    printed = {method: values for method, values in FC100.items() if method != "MAML"}
    lone = replace(work, spec=replace(work.spec, printed=printed))
    assert {each.paper for each in table(lone, *everything(made, lone)).comparisons} == {None}


@pytest.mark.parametrize(
    ("name", "split", "own_cells", "unlike"),
    [
        ("headline", "built-in", False, "another protocol"),
        ("headline, cells", "built-in", False, "another protocol"),
        ("task-cell", "built-in", False, ""),
        ("maml", "built-in", False, ""),
        ("maml-first", "built-in", False, ""),
        ("auto-maml-5-shot", "built-in", False, "released cell, transferred"),
        ("auto-maml-5-shot", "built-in", True, ""),
        ("auto-maml-5-shot", "other", True, "another split"),
        ("task-cell", "other", False, "another split"),
        ("maml", "other", False, "another split"),
    ],
)
def test_why_the_papers_value_is_of_something_else(made, work, name, split, own_cells, unlike):
    printed = FC100 | {"MAML, first order": {5: (0.5, None)}}
    work = replace(work, split=split, spec=replace(work.spec, own_cells=own_cells, printed=printed))
    cells = ((cell(1), TASKS),) if "cell" in name or "auto" in name else ()
    (row,) = table(work, made(work, name, cells=cells)).rows
    assert row.paper is not None
    assert row.unlike == unlike
    assert verdict(row, "full").startswith(NO_VERDICT) is bool(unlike)


def test_what_has_no_value_is_unlike_nothing(made, work):
    rows = {row.name: row for row in table(work, *everything(made, work)).rows}
    for name in ("headline, no steps", "meta-cell", "random-cell", "pixels", "protonet", "auto-maml-1-shot"):
        assert (rows[name].paper, rows[name].unlike) == (None, "")


def test_released_cells_are_the_papers_where_it_has_them():
    assert {name for name, table in TABLES.items() if table.own_cells} == {"tnas-mini"}


# Comparisons


def test_recipes_differ_where_the_plan_says_so(made, work):
    told = table(work, *everything(made, work))
    assert {(each.first, each.second) for each in told.comparisons if each.recipes_differ} == {
        ("headline-10", "maml"), ("headline-10", "maml-equal"), ("headline", "maml"),
    }  # fmt: skip


def test_rows_of_one_network_are_the_same(made, work):
    headline = made(work, "headline")
    one, other = ((cell(1), TASKS),), ((cell(2), TASKS),)
    meta = made(work, "meta-cell", cells=one, behind=headline.runs)
    for cells, same in ((one, True), (other, False), (((cell(1), 5), (cell(2), 2)), False)):
        told = table(work, headline, meta, made(work, "task-cell", cells=cells, behind=headline.runs))
        assert compared(told, "task-cell", "meta-cell").same is same
        assert compared(told, "headline", "task-cell").same is False


def test_the_same_run_in_another_mode_is_not_the_same(made, work):
    rows = ("headline", "headline, no steps", "headline, support statistics")
    told = table(work, *(made(work, name) for name in rows))
    assert [each.same for each in told.comparisons] == [False, False]


def test_of_several_seeds_all_must_be_the_same(made, work):
    one, other = ((cell(1), TASKS),), ((cell(2), TASKS),)
    found = [made(work, "meta-cell", seed, cells=one) for seed in (0, 1)]
    found += [made(work, "task-cell", 0, cells=one), made(work, "task-cell", 1, cells=other)]
    assert compared(table(work, *found), "task-cell", "meta-cell").same is False


def values(*found: Finding) -> Any:
    return np.stack([each.measured.accuracies for each in found])


def test_three_seeds_against_two_of_the_same_trainings_are_the_two(made, work):
    one = [made(work, "headline", seed) for seed in (0, 1, 2)]
    other = [made(work, "headline, cells", seed, cells=((cell(1), TASKS),), shift=0.1) for seed in (0, 2)]
    each = compared(table(work, *one, *other), "headline", "headline, cells")
    key = MODULE.BOOTSTRAP.child("5-way 5-shot", "headline", "headline, cells")
    assert each.difference == estimate(values(one[0], one[2]) - values(*other), key)


def test_three_seeds_against_two_of_trainings_of_their_own_are_all(made, work):
    one = [made(work, "headline", seed) for seed in (0, 1, 2)]
    other = [made(work, "maml", seed) for seed in (0, 1)]
    each = compared(table(work, *one, *other), "headline", "maml")
    assert each.difference == paired(
        values(*one), values(*other), MODULE.BOOTSTRAP.child("5-way 5-shot", "headline", "maml")
    )


def test_without_a_seed_in_common_rows_of_one_training_are_not_compared(made, work):
    one, other = made(work, "headline", 0), made(work, "headline, no steps", 1)
    told = table(work, one, other)
    assert len(told.rows) == 2
    assert compared(told, "headline", "headline, no steps") is None


def test_a_row_that_is_not_there_is_compared_with_nothing(made, work):
    assert table(work, made(work, "maml")).comparisons == ()


# Sizes, costs, notes


def test_weights_of_cells_are_the_median_over_tasks_and_seeds(made, work):
    cells = [cell(number) for number in range(1, 6)]
    small, middle, large = sorted(cells, key=lambda one: sizes([one])[0])[::2]
    of = dict(zip((small, middle, large), sizes([small, middle, large]), strict=True))
    assert len(set(of.values())) == 3
    counts = ((large, 2), (small, 4), (middle, 1))
    (row,) = table(work, made(work, "headline, cells", cells=counts)).rows
    assert (row.weights, row.alphas) == (of[small], 0), "that of four tasks of seven"
    found = [
        made(work, "headline, cells", seed, cells=((one, TASKS),)) for seed, one in enumerate((small, large, middle))
    ]
    assert table(work, *found).rows[0].weights == of[middle]


def test_weights_of_the_task_cell_are_those_of_networks_trained_as_such(made, work):
    """With affine batch norms, and none after pools."""
    cells = [cell(1), cell(2)]
    (row,) = table(work, made(work, "task-cell", cells=((cells[0], 5), (cells[1], 2)))).rows
    alone = sizes(cells, affine=True, pool_norm=False)
    assert row.weights == alone[0]
    assert alone[0] != sizes(cells)[0], "or nothing was tested"


def test_steps_of_an_inherited_cell_count_twice(made, work):
    told = table(work, made(work, "headline"), made(work, "headline, cells", cells=((cell(1), TASKS),)))
    assert [row.steps for row in told.rows] == [3, 6]


def test_costs_are_of_every_training_once(made, work):
    """Two rows of one headline, one of them of a network besides: 1 h, then 1 h and 2 h; 3 h in all."""
    headline = made(work, "headline")
    meta = made(work, "meta-cell", cells=((cell(1), TASKS),), behind=headline.runs, seconds=7200.0)
    random = made(work, "random-cell", cells=((cell(2), TASKS),), seconds=1800.0)
    told = table(work, headline, meta, random, made(work, "headline, no steps"))
    assert [row.search_seconds for row in told.rows] == [3600.0, 10800.0, 1800.0, 3600.0]
    assert [row.measure_seconds for row in told.rows] == [36.0, 72.0, 18.0, 36.0]
    assert told.environment["training_hours"] == 3.5
    assert compared(told, "meta-cell", "random-cell").seconds == (10800.0, 1800.0)


def test_two_seeds_cost_twice(made, work):
    (row,) = table(work, *(made(work, "maml", seed) for seed in (0, 1))).rows
    assert (row.seeds, row.search_seconds, row.measure_seconds) == ((0, 1), 7200.0, 72.0)


def test_a_digest_is_of_what_was_measured(made, work):
    """Whatever the time, the device and its threads; not whatever the accuracies, the cells and the seeds."""
    found = everything(made, work)
    digest = table(work, *found).digest
    assert table(work, *everything(made, work, seconds=90.0, device="another", threads=8)).digest == digest
    assert table(work, *everything(made, work, shift=0.01)).digest != digest
    assert table(work, *everything(made, work, seed=1)).digest != digest
    last = replace(found[3], cells=((cell(99), TASKS),))
    assert table(work, *found[:3], last, *found[4:]).digest != digest


def notes(work: Job, *missing: str, found: tuple[Finding, ...]) -> list[str]:
    return list(table(work, *found, missing=missing).notes)


@pytest.mark.parametrize(
    ("count", "named"),
    [(1, "1 row is not measured yet: r0."), (5, "5 rows are not measured yet: r0; r1; r2; r3; r4."),
     (6, "6 rows are not measured yet: r0; r1; r2; r3; r4; and 1 more."),
     (30, "30 rows are not measured yet: r0; r1; r2; r3; r4; and 25 more.")],
)  # fmt: skip
def test_what_is_missing_is_named_up_to_five(made, work, count, named):
    told = notes(work, *(f"r{number}" for number in range(count)), found=(made(work, "maml"),))
    assert told[0] == f"Unfinished: {named}"


def test_notes_follow_the_budget(made, work):
    found = (made(work, "maml"),)
    smoke, hour, full = (" ".join(notes(replace(work, budget=name), found=found)) for name in ("smoke", "hour", "full"))
    assert "Smoke budget" in smoke
    assert "Hour budget: the headline has 2 meta-updates, the shorter search 2" in hour
    assert "Full budget: T-NAS's numbers of updates, its inner rate of 0.1" in full
    for text, others in ((smoke, ("Hour", "Full")), (hour, ("Smoke", "Full")), (full, ("Smoke", "Hour"))):
        assert not any(f"{other} budget" in text for other in others)
        assert ("outer rates that fall, 8 tasks a meta-batch" in text) is (text is not full)
        assert "One training a row" in text
        assert "Unfinished" not in text


def test_several_seeds_and_settings_have_notes_of_their_own(made, work):
    found = (made(work, "maml"),)
    assert "One training a row" not in " ".join(notes(replace(work, seeds=(0, 1)), found=found))
    for budget, expected in (("hour", True), ("full", False)):
        told = notes(replace(work, budget=budget, shots=(1, 5)), found=found)
        expected_note = "One training serves all settings, on 1-shot tasks; MAML after its paper has one for each."
        assert (expected_note in told) is expected


@pytest.mark.parametrize(("digest", "tasks", "expected"), [("1", TASKS, True), ("0", TASKS, False), ("1", 600, False)])
def test_episodes_that_are_not_the_published_ones_are_said_to_be_others(
    made, work, monkeypatch, digest, tasks, expected
):
    monkeypatch.setattr(importlib.import_module("metadarts.papers.reproduction.notes"), "TASKS", tasks)
    work = replace(work, spec=replace(work.spec, episodes={("built-in", 5): digest * 64}))
    told = notes(work, found=(made(work, "maml"),))
    assert any("are not those of docs/results.md" in note for note in told) is expected


def test_a_row_says_what_its_cells_are_and_of_which_seed(made, work):
    one = made(work, "random-cell", 0, cells=((cell(1), TASKS),))
    two = made(work, "random-cell", 1, cells=((cell(2), TASKS),))
    assert table(work, one).rows[0].note == f"cell {cell(1)}"
    assert table(work, one, two).rows[0].note == f"seed 0: cell {cell(1)}; seed 1: cell {cell(2)}"
    derived = made(work, "headline, cells", cells=((cell(1), 5), (cell(2), 2)))
    expected = "2 distinct cells over 7 tasks, the most frequent one is that of 5; weights: the median"
    assert table(work, derived).rows[0].note == expected


def test_the_tiny_table_has_every_row(work):
    """Or the tests above would compare less than there is."""
    names = {row.name for row in rows_of(work.spec, "hour", 5)}
    assert {name for plan in comparisons_of("hour") for name in (plan.first, plan.second)} <= names
    assert set(ALL) - {"cells"} <= names
    assert len(auto_maml()) == 2
