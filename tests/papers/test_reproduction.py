"""A table from end to end: complete, the same again, and after any stop and any kill."""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import derive_genotype
from metadarts.papers.reproduction import Job, Stopped, carry_out, tabulate
from metadarts.papers.reproduction.job import Finding, Findings
from metadarts.papers.reproduction.place import locked
from metadarts.papers.reproduction.plans import comparisons_of
from metadarts.papers.reproduction.runner import most_frequent
from metadarts.papers.reproduction.tabulate import seconds_of
from metadarts.papers.rows import ResultTable
from metadarts.spaces import darts, random_genotype
from metadarts.stats import estimate, paired
from metadarts.tasks import EpisodeSampler, nearest_class_mean
from metadarts.training import RunFolder
from metadarts.training.build import assemble
from metadarts.training.checkpoints import save_checkpoint
from metadarts.training.config import to_settings
from tests.papers.tiny_tables import NODES, TASKS, auto_maml, in_a_process, job, shrink, spec

REPRODUCTION = "metadarts.papers.reproduction"
RUNNER, TABULATE = (importlib.import_module(f"{REPRODUCTION}.{name}") for name in ("runner", "tabulate"))
ROWS = [
    "headline",
    "headline, support statistics",
    "headline, no steps",
    "headline, cells",
    "headline-10",
    "maml",
    "maml-first",
    "maml-equal",
    "maml-ours",
    "protonet",
    "auto-maml-1-shot",
    "auto-maml-5-shot",
    "random-cell",
    "meta-cell",
    "task-cell",
    "pixels",
]


class Done(NamedTuple):
    """A table that was carried out, and what was seen meanwhile."""

    job: Job
    findings: Findings
    table: ResultTable
    polls: int
    classes: dict[str, set[int]]
    """"training" and "measuring" -> the classes whose images were read then."""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


def done(work: Job) -> Done:
    polls: list[int] = []
    classes: dict[str, set[int]] = {"training": set(), "measuring": set()}
    doing = ["measuring"]
    read, train = EpisodeSampler.read, RUNNER.train

    def seen(self: EpisodeSampler, plan: Any) -> Any:
        rows = {*plan.support_rows.ravel().tolist(), *plan.query_rows.ravel().tolist()}
        owners = {n for n, entry in enumerate(self.source.classes) if rows & set(entry.rows.tolist())}
        classes[doing[0]] |= owners
        return read(self, plan)

    def trained(*args: Any) -> RunFolder:
        doing[0] = "training"
        try:
            folder: RunFolder = train(*args)
        finally:
            doing[0] = "measuring"
        return folder

    def stop() -> bool:
        polls.append(1)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpisodeSampler, "read", seen)
        patch.setattr(RUNNER, "train", trained)
        work = replace(work, stop=stop)
        findings = carry_out(work)
    return Done(work, findings, tabulate(work, findings), len(polls), classes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Done:
    """Every row in two settings."""
    return done(job(tmp_path_factory.mktemp("whole"), spec(), shots=(1, 5)))


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Done:
    """The headline, MAML and the cells, in one setting."""
    return done(job(tmp_path_factory.mktemp("few")))


@pytest.fixture(scope="module")
def two(few, tmp_path_factory) -> tuple[Job, Findings]:
    """``few`` gone on with for a second seed, in a folder of its own."""
    out = tmp_path_factory.mktemp("two") / "out"
    shutil.copytree(few.job.out, out)
    work = replace(few.job, out=out, seeds=(0, 1))
    return work, carry_out(work)


def finding(found: Findings, name: str, shots: int = 1, seed: int = 0) -> Finding:
    return next(each for each in found.found if (each.row.name, each.shots, each.seed) == (name, shots, seed))


def values(found: Findings, name: str, shots: int = 1, seeds: tuple[int, ...] = (0,)) -> Any:
    return np.stack([finding(found, name, shots, seed).measured.accuracies for seed in seeds])


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def measured_file(work: Job, name: str, how: str, seed: int = 0) -> Path:
    return work.out / "measured" / "1shot" / f"{name}-1shot-seed{seed}-{how}.json"


def genotype(one: Finding) -> str:
    return str(one.runs[0].config().model.genotype)


# What a table holds


def test_every_row_is_there_in_its_order(whole):
    found = [(row.setting, row.name) for row in whole.table.rows]
    assert found == [(setting, name) for setting in ("5-way 1-shot", "5-way 5-shot") for name in ROWS]
    assert whole.table.settings == ("5-way 1-shot", "5-way 5-shot")
    assert {(row.tasks, row.seeds) for row in whole.table.rows} == {(TASKS, (0,))}
    assert ResultTable.from_json(whole.table.to_json()) == whole.table


def test_every_comparison_of_rows_that_are_there_is_there(whole):
    names = [(each.first, each.second, each.about) for each in whole.table.comparisons]
    assert names == 2 * [(plan.first, plan.second, plan.about) for plan in comparisons_of("smoke")]


def test_rows_say_how_they_came_about(whole):
    rows = {row.name: row for row in whole.table.rows if row.setting == "5-way 1-shot"}
    assert (rows["headline"].steps, rows["headline, no steps"].steps, rows["protonet"].steps) == (1, 0, 0)
    assert (rows["headline"].bn, rows["headline, support statistics"].bn) == ("transductive", "support")
    assert (rows["pixels"].weights, rows["pixels"].bn, rows["pixels"].selection) == (0, "none", "none")
    assert {name for name, row in rows.items() if row.alphas} == {
        "headline", "headline, support statistics", "headline, no steps", "headline-10",
    }  # fmt: skip
    assert {row.selection for row in rows.values()} == {"none", "one look at 2 tasks of validation classes"}
    assert "over 3 tasks, the most frequent one is that of" in rows["headline, cells"].note
    assert "of 3 tasks have one of the" in rows["task-cell"].covers
    assert {name for name, row in rows.items() if row.covers} == {"task-cell"}
    assert f"cell {auto_maml()[5]}" in rows["auto-maml-5-shot"].note
    five = whole.table.row("5-way 5-shot", "maml")
    assert "trained on 1-shot tasks" in whole.table.row("5-way 5-shot", "maml-ours").note
    assert "trained on" not in rows["maml"].note + five.note, "MAML after its paper has a training for each setting"
    assert (rows["headline"].paper.accuracy, five.paper.accuracy) == (0.99, 0.2)
    assert rows["pixels"].paper is None


def test_pixels_are_measured_on_the_frozen_episodes(whole):
    for shots, episodes in whole.findings.episodes.items():
        expected = nearest_class_mean(episodes.batch(0, TASKS)).double().numpy()
        np.testing.assert_array_equal(values(whole.findings, "pixels", shots)[0], expected)
    assert whole.table.episodes == {f"5-way {n}-shot": each.sha256 for n, each in whole.findings.episodes.items()}


def test_intervals_and_differences_are_those_of_the_measured_arrays(whole):
    for row in whole.table.rows:
        key = TABULATE.BOOTSTRAP.child(row.setting, row.name)
        shots = int(row.setting.removeprefix("5-way ").removesuffix("-shot"))
        assert row.estimate == estimate(values(whole.findings, row.name, shots), key)
    for each in whole.table.comparisons:
        shots = int(each.setting.removeprefix("5-way ").removesuffix("-shot"))
        a, b = (values(whole.findings, name, shots) for name in (each.first, each.second))
        key = TABULATE.BOOTSTRAP.child(each.setting, each.first, each.second)
        runs = [finding(whole.findings, name, shots).runs[0] for name in (each.first, each.second)]
        same = runs[0].path == runs[1].path
        assert each.difference == (estimate(a - b, key) if same else paired(a, b, key))
        assert each.difference.mean == pytest.approx(a.mean() - b.mean())
        first, second = (whole.table.row(each.setting, name) for name in (each.first, each.second))
        assert each.overlaps == first.estimate.overlaps(second.estimate)
    printed = {(e.setting, e.first, e.second): e.paper for e in whole.table.comparisons}
    assert printed["5-way 1-shot", "headline", "maml"] == pytest.approx(0.09)
    assert printed["5-way 1-shot", "headline", "headline, cells"] is None, "one and the same value of the paper"


# What is trained


def test_no_test_class_ever_reaches_a_training(whole):
    split = whole.job.source.split
    assert whole.classes["training"] <= {*split["train"], *split["val"]}
    assert all(whole.classes["training"] & set(split[name]) for name in ("train", "val")), "both were seen"
    assert whole.classes["measuring"] <= set(split["test"])
    assert whole.classes["measuring"], "something was measured"


def test_the_runs_on_disk_differ_in_what_is_said(whole):
    def settings(name: str) -> dict[str, Any]:
        told = to_settings(finding(whole.findings, name).runs[0].config())
        return {f"{group}.{key}": value for group, section in told.items() for key, value in section.items()}

    def differing(first: str, second: str) -> set[str]:
        a, b = settings(first), settings(second)
        return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}

    assert differing("headline", "maml-ours") == {"macro.name", "macro.stem"}, "the channels are patched to be equal"
    assert differing("headline", "headline-10") == set(), "the lengths are equal here"
    assert differing("maml", "maml-first") == {"inner.order"}
    assert differing("meta-cell", "task-cell") <= {"model.genotype"}
    assert differing("meta-cell", "random-cell") == {"model.genotype"}
    assert differing("headline", "meta-cell") == {
        "model.network", "model.genotype", "model.affine", "model.pool_norm",
    }  # fmt: skip


def test_the_meta_cell_is_that_of_the_best_checkpoint(whole):
    best = finding(whole.findings, "headline").runs[0].load("best")
    expected = derive_genotype(alphas_of(best.params), darts(NODES)).canonical()
    assert genotype(finding(whole.findings, "meta-cell")) == str(expected)


@pytest.mark.parametrize("shots", [1, 5])
def test_every_task_answers_with_its_own_cell_where_that_is_trained(whole, shots):
    """Of three tasks three cells can be trained, so every task has its own."""
    own = finding(whole.findings, "headline, cells", shots).measured.genotypes
    row = finding(whole.findings, "task-cell", shots)
    trained = [run.config().model.genotype for run in row.runs[:-1]]
    assert trained == [cell for cell, _ in most_frequent(own)]
    assert row.runs[-1].path == finding(whole.findings, "headline", shots).runs[0].path
    assert {str(cell): count for cell, count in row.cells} == Counter(own)
    assert row.covers == f"3 of 3 tasks have one of the {len(trained)} trained cells; {len(trained)} distinct cells"


def cell_of(number: int) -> Any:
    return random_genotype(darts(NODES), Key.from_seed(number).child("planted")).canonical()


@pytest.fixture
def planted(monkeypatch) -> Callable[[list[str]], dict[str, Any]]:
    """(names of the tasks' own cells) -> cells by name: once the headline is trained, its checkpoint "best" stands for
    one and "last" for another; the tasks' own cells are those named."""
    from metadarts.derive import genotype_weights

    cells = {name: cell_of(number) for number, name in enumerate(("best", "last", "a", "b", "c", "d"))}
    train, measure = RUNNER.train, RUNNER.measure
    own: list[str] = []

    def trained(path: Path, config: Any, data: Any, device: str, *rest: Any) -> RunFolder:
        fresh = not path.exists()
        folder: RunFolder = train(path, config, data, device, *rest)
        if fresh and path.name.startswith("headline-1shot"):
            state = assemble(folder.config(), data, device).fresh_state()
            for name in ("last", "best"):
                for kind, table in genotype_weights(cells[name], darts(NODES)).items():
                    state.params[f"alphas.{kind}"] = 5.0 * table.float()
                save_checkpoint(folder.path / "checkpoints", name, state, {})
        return folder

    def measured(row: Any, *rest: Any) -> Any:
        found = measure(row, *rest)
        return replace(found, genotypes=tuple(own)) if row.mode == "cells" else found

    def plant(names: list[str]) -> dict[str, Any]:
        own[:] = [str(cells[name]) for name in names]
        monkeypatch.setattr(importlib.import_module(f"{REPRODUCTION}.tables"), "SMOKE_TASKS", len(names))
        return cells

    monkeypatch.setattr(RUNNER, "train", trained)
    monkeypatch.setattr(RUNNER, "measure", measured)
    return plant


@pytest.mark.parametrize(
    ("names", "trained", "under"),
    [
        ("abbcdcd", "bcd", "bbbcdcd"),  # the fourth has no network: its task answers with the most frequent cell's
        ("a" * 39 + "b", "a", "a" * 40),  # of one task in forty: too few
        ("a" * 19 + "b", "ab", "a" * 19 + "b"),  # of one in twenty: enough
    ],
)  # fmt: skip
def test_planted_cells_are_the_ones_that_are_trained(planted, tmp_path, names, trained, under):
    cells = planted(list(names))
    found = carry_out(job(tmp_path, spec(("headline", "cells"))))
    assert genotype(finding(found, "meta-cell")) == str(cells["best"])
    row = finding(found, "task-cell")
    assert [run.config().model.genotype for run in row.runs[:-1]] == [str(cells[name]) for name in trained]
    assert [(str(cell), count) for cell, count in row.cells] == [
        (str(cells[name]), under.count(name)) for name in trained
    ]
    covered = sum(a == b for a, b in zip(names, under, strict=True))
    distinct = f"{len(set(names))} distinct cells"
    assert row.covers == (f"{covered} of {len(names)} tasks have one of the {len(trained)} trained cells; {distinct}")
    of_cell = {name: measured_under(tmp_path, run) for name, run in zip(trained, row.runs[:-1], strict=True)}
    expected = [of_cell[name][task] for task, name in enumerate(under)]
    assert row.measured.accuracies.tolist() == expected


def measured_under(out: Path, run: RunFolder) -> list[float]:
    """What the network of ``run`` comes to on every task, from the file."""
    import json

    accuracies: list[float] = json.loads((out / "measured" / "1shot" / f"{run.path.name}-adapted.json").read_text())[
        "accuracies"
    ]
    return accuracies


def test_a_task_cell_that_is_the_meta_cell_is_trained_once_and_nothing_to_compare(planted, counted, tmp_path):
    planted(["best"] * TASKS)
    work = job(tmp_path, spec(("headline", "cells")))
    found = carry_out(work)
    rows = [finding(found, name) for name in ("meta-cell", "task-cell")]
    assert [run.path for run in rows[0].runs] == [run.path for run in rows[1].runs]
    assert len(counted["search"]) == len(set(counted["search"])) == 5, "the headline, two released, a random, this one"
    assert counted["measure"].count("meta-cell") + counted["measure"].count("task-cell") == 1
    table = tabulate(work, found)
    same = {(each.first, each.second): each.same for each in table.comparisons}
    assert same.pop(("task-cell", "meta-cell")) is True
    assert not any(same.values())
    assert table.row("5-way 1-shot", "task-cell").weights == table.row("5-way 1-shot", "meta-cell").weights


def test_most_frequent_first_and_of_equally_frequent_ones_the_first_met():
    assert most_frequent(("b", "a", "a", "b", "c")) == [("b", 2), ("a", 2), ("c", 1)]
    assert most_frequent(("c", "a", "a")) == [("a", 2), ("c", 1)]


def test_equal_cells_are_trained_and_measured_once(monkeypatch, counted, tmp_path):
    monkeypatch.setattr(RUNNER, "random_genotype", lambda *_: auto_maml()[5])
    found = carry_out(job(tmp_path))
    rows = [finding(found, name) for name in ("random-cell", "auto-maml-5-shot")]
    assert rows[0].runs[0].path == rows[1].runs[0].path
    np.testing.assert_array_equal(rows[0].measured.accuracies, rows[1].measured.accuracies)
    assert ("auto-maml-5-shot" in counted["measure"], "random-cell" in counted["measure"]) == (True, False)
    assert len(counted["search"]) == len(set(counted["search"]))
    genotypes = {run.config().model.genotype for each in found.found for run in each.runs} - {""}
    assert len(counted["search"]) == 2 + len(genotypes)


def test_costs_count_every_training_behind_a_row_and_in_all_each_once(few):
    rows = {row.name: row for row in few.table.rows}
    seconds = {run.path: seconds_of(run) for each in few.findings.found for run in each.runs}
    headline = seconds[finding(few.findings, "headline").runs[0].path]
    assert rows["headline"].search_seconds == rows["headline, cells"].search_seconds == headline > 0
    for name, searches in (("meta-cell", 1), ("task-cell", 1), ("random-cell", 0), ("auto-maml-1-shot", 0)):
        one = finding(few.findings, name)
        own = [run for run in one.runs if run.config().model.network == "cell"]
        assert len(one.runs) - len(own) == searches
        expected = sum(seconds[run.path] for run in own) + searches * headline
        assert rows[name].search_seconds == pytest.approx(expected)
    assert few.table.environment["training_hours"] == round(sum(seconds.values()) / 3600, 2)
    assert len(seconds) == len(list((few.job.out / "runs").iterdir()))


def test_a_row_is_measured_in_all_settings_before_the_next(monkeypatch, tmp_path):
    told: list[str] = []
    work = job(tmp_path, spec(("headline",)), shots=(1, 5), tell=lambda title, *_: told.append(title))
    carry_out(work)
    settings = [title for title in dict.fromkeys(told) if title.startswith("measure")]
    assert ["1-shot" in title for title in settings] == [True, False] * 5


def test_further_seeds_are_added_to_what_is_there(few, two):
    table, found = tabulate(*two), two[1]
    before, after = files(few.job.out), files(two[0].out)
    assert {name: after[name][1] for name in before} == {name: content for name, (_, content) in before.items()}
    assert all("seed1" in name for name in set(after) - set(before)), "the pixels are not measured again"
    assert {row.name: row.seeds for row in table.rows} == {
        row.name: (0,) if row.name == "pixels" else (0, 1) for row in table.rows
    }
    for row in table.rows:
        both = values(found, row.name, seeds=row.seeds)
        assert row.estimate == estimate(both, TABULATE.BOOTSTRAP.child(row.setting, row.name))
    np.testing.assert_array_equal(values(found, "maml"), values(few.findings, "maml"))
    assert {run.config().training.seed for each in found.found for run in each.runs} == {0, 1}
    cells = [genotype(finding(found, "random-cell", seed=seed)) for seed in (0, 1)]
    assert cells[0] != cells[1], "a random cell is drawn for every seed"
    assert not any(note.startswith("One training a row") for note in table.notes)


# The same again


def test_a_second_fresh_run_gives_the_identical_table(few, tmp_path):
    again = done(job(tmp_path))
    assert again.table.digest == few.table.digest
    assert again.polls == few.polls
    for ours, theirs in zip(again.findings.found, few.findings.found, strict=True):
        np.testing.assert_array_equal(ours.measured.accuracies, theirs.measured.accuracies)


def test_nothing_is_done_twice(whole, counted):
    before = files(whole.job.out)
    work = replace(whole.job, stop=lambda: pytest.fail("polled, so something was being done"))
    table = tabulate(work, carry_out(work))
    assert counted == {"search": [], "measure": []}
    assert table.digest == whole.table.digest
    assert files(whole.job.out) == before


def stopping_at(poll: int) -> Callable[[], bool]:
    polls: list[int] = []

    def stop() -> bool:
        polls.append(1)
        return len(polls) == poll

    return stop


def test_stopped_at_every_tell_and_gone_on_with_it_is_the_same_table(tmp_path):
    """One folder, worked on again and again, each process stopped once it has told of anything."""
    small = spec(("headline", "maml"), {"evaluate.batch": 2})
    once = done(job(tmp_path / "once", small))
    stops = 0
    while True:
        told: list[str] = []
        work = job(
            tmp_path / "out", small, stop=lambda told=told: bool(told), tell=lambda *now, told=told: told.append(now)
        )
        try:
            findings = carry_out(work)
            break
        except Stopped:
            stops += 1
            assert stops <= once.polls, "it does not go on"
    assert stops >= 8
    assert tabulate(work, findings).digest == once.table.digest
    for ours, theirs in zip(findings.found, once.findings.found, strict=True):
        np.testing.assert_array_equal(ours.measured.accuracies, theirs.measured.accuracies)
        assert ours.measured.genotypes == theirs.measured.genotypes
    assert not list(tmp_path.rglob("*.part.jsonl"))


def test_a_stop_is_one_kind_of_stop(tmp_path):
    """As `carry_out` says: also in the middle of a training."""
    with pytest.raises(Stopped):
        carry_out(job(tmp_path, stop=lambda: True))


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_it_goes_on_to_the_identical_table(few, tmp_path):
    """SIGKILL within a write: of the episodes, of the plan, within trainings, and of a row's first share."""
    work = job(tmp_path / "out")
    in_a_process("table", work.out)
    assert len(list(work.out.glob("measured/*/*.json"))) < 4, "there is something left to do"
    assert tabulate(work, carry_out(work)).digest == few.table.digest


# So far


def test_so_far_is_what_is_there_and_nothing_is_done(few, tmp_path, counted):
    work = job(tmp_path, stop=stopping_at(few.polls // 2))
    with pytest.raises(Stopped):
        carry_out(work)
    before, so_far = files(tmp_path), replace(work, so_far=True, stop=lambda: pytest.fail("polled"))
    told = {name: list(names) for name, names in counted.items()}
    with locked(tmp_path):  # also while another process is at work
        found = carry_out(so_far)
    assert (files(tmp_path), counted) == (before, told)
    table = tabulate(so_far, found)
    assert 0 < len(table.rows) < len(few.table.rows)
    assert len(found.found) + len(found.missing) == len(few.findings.found)
    assert table.notes[0].startswith(f"Unfinished: {len(found.missing)} rows are not measured yet: ")
    for row in table.rows:
        assert row.estimate == few.table.row(row.setting, row.name).estimate


def test_so_far_of_a_finished_table_is_the_table(few):
    work = replace(few.job, so_far=True)
    assert tabulate(work, carry_out(work)).digest == few.table.digest


def test_so_far_of_nothing_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no table that was begun; leave out --so-far to begin one"):
        carry_out(job(tmp_path, so_far=True))
    assert not list(tmp_path.iterdir())


def test_so_far_compares_the_seeds_that_both_rows_have(two, tmp_path):
    """Else one row's second training would be held against the other's first."""
    shutil.copytree(two[0].out, tmp_path / "out")
    so_far = replace(two[0], out=tmp_path / "out", so_far=True)
    measured_file(so_far, "headline", "cells", seed=1).unlink()
    found = carry_out(so_far)
    table = tabulate(so_far, found)
    each = next(each for each in table.comparisons if (each.first, each.second) == ("headline", "headline, cells"))
    expected = values(found, "headline").mean() - values(found, "headline, cells").mean()
    assert each.difference.mean == pytest.approx(expected)
