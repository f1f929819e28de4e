"""A table from end to end: complete, the same again, after any stop and any kill, and never from altered parts."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from metadarts.core.errors import DataError, RunError
from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.experiments import RunFolder
from metadarts.experiments.checkpoints import save_checkpoint
from metadarts.experiments.config import to_settings
from metadarts.experiments.evaluation import alphas_of
from metadarts.experiments.search import SearchStopped
from metadarts.spaces import darts, random_genotype
from metadarts.studies.reproduction import Job, Stopped, carry_out, tabulate
from metadarts.studies.reproduction.runner import Finding, Findings, most_frequent
from metadarts.studies.reproduction.tables import comparisons_of
from metadarts.studies.rows import MISSED, REPRODUCED, TOO_SMALL, Table, verdict
from metadarts.studies.statistics import estimate, overlap, paired
from metadarts.tasks import EpisodeSampler, nearest_class_mean
from tests.conftest import CHECKOUT
from tests.studies import tiny_tables
from tests.studies.tiny_tables import FEW, NODES, TASKS, auto_maml, job, shrink, source, spec

ROOM = "metadarts.studies.reproduction"
RUNNER, TRAININGS, TABULATE = (
    importlib.import_module(f"{ROOM}.{name}") for name in ("runner", "trainings", "tabulate")
)
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
STOPS = (Stopped, SearchStopped)


class Done(NamedTuple):
    """A table that was carried out, and what was seen meanwhile."""

    job: Job
    findings: Findings
    table: Table
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


@pytest.fixture
def copy(few, tmp_path) -> Job:
    """The work of ``few`` in a folder of the test's own."""
    out = tmp_path / "copy"
    shutil.copytree(few.job.out, out)
    return replace(few.job, out=out)


@pytest.fixture(scope="module")
def two(few, tmp_path_factory) -> tuple[Job, Findings]:
    """``few`` gone on with for a second seed, in a folder of its own."""
    out = tmp_path_factory.mktemp("two") / "out"
    shutil.copytree(few.job.out, out)
    work = replace(few.job, out=out, seeds=(0, 1))
    return work, carry_out(work)


@pytest.fixture
def counted(monkeypatch) -> dict[str, list[str]]:
    """What is trained, and what is measured, from now on."""
    told: dict[str, list[str]] = {"search": [], "measure": []}
    search, measure = TRAININGS.search, RUNNER.measure

    def searched(experiment: Any, folder: RunFolder, *rest: Any) -> Any:
        told["search"].append(folder.path.name)
        return search(experiment, folder, *rest)

    def measured(row: Any, *rest: Any) -> Any:
        told["measure"].append(row.name)
        return measure(row, *rest)

    monkeypatch.setattr(TRAININGS, "search", searched)
    monkeypatch.setattr(RUNNER, "measure", measured)
    return told


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


def measured_file(work: Job, name: str) -> Path:
    return work.out / "measured" / "1shot" / f"{name}-seed0.json"


# What a table holds


def test_every_row_is_there_in_its_order(whole):
    found = [(row.setting, row.name) for row in whole.table.rows]
    assert found == [(setting, name) for setting in ("5-way 1-shot", "5-way 5-shot") for name in ROWS]
    assert whole.table.settings == ("5-way 1-shot", "5-way 5-shot")
    assert {(row.tasks, row.seeds) for row in whole.table.rows} == {(TASKS, (0,))}
    assert Table.from_json(whole.table.to_json()) == whole.table


def test_every_comparison_of_rows_that_are_there_is_there(whole):
    names = [(each.first, each.second, each.about) for each in whole.table.comparisons]
    assert names == 2 * comparisons_of("smoke")


def test_rows_say_how_they_came_about(whole):
    rows = {row.name: row for row in whole.table.rows if row.setting == "5-way 1-shot"}
    assert (rows["headline"].steps, rows["headline, no steps"].steps, rows["protonet"].steps) == (1, 0, 0)
    assert (rows["headline"].bn, rows["headline, support statistics"].bn) == ("transductive", "support")
    assert (rows["pixels"].weights, rows["pixels"].bn, rows["pixels"].selection) == (0, "none", "none")
    assert {name for name, row in rows.items() if row.alphas} == {
        "headline", "headline, support statistics", "headline, no steps", "headline-10",
    }  # fmt: skip
    assert {row.selection for row in rows.values()} == {"none", "best of 1 looks at 2 tasks of validation classes"}
    assert "distinct cells over 3 tasks, the most frequent" in rows["headline, cells"].note
    assert "one training for all tasks" in rows["task-cell"].note
    assert f"cell {auto_maml()[5]}" in rows["auto-maml-5-shot"].note
    five = whole.table.row("5-way 5-shot", "maml")
    assert "trained on 1-shot tasks" in five.note
    assert "trained on" not in rows["maml"].note
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
        runs = [finding(whole.findings, name, shots).run for name in (each.first, each.second)]
        same = runs[0].path == runs[1].path
        assert each.difference == (estimate(a - b, key) if same else paired(a, b, key))
        assert each.difference.mean == pytest.approx(a.mean() - b.mean())
        first, second = (whole.table.row(each.setting, name) for name in (each.first, each.second))
        assert each.overlaps == overlap(first.estimate, second.estimate)
    printed = {(e.setting, e.first, e.second): e.paper for e in whole.table.comparisons}
    assert printed["5-way 1-shot", "headline", "maml"] == pytest.approx(0.09)
    assert printed["5-way 1-shot", "headline", "headline, cells"] is None, "one and the same value of the paper"


def test_verdicts_depend_on_the_budget(whole):
    out_of_reach, reached = (whole.table.row(f"5-way {shots}-shot", "headline") for shots in (1, 5))
    out_of_reach = replace(out_of_reach, estimate=replace(out_of_reach.estimate, mean=0.5, low=0.4, high=0.6))
    assert [verdict(out_of_reach, budget) for budget in ("smoke", "hour", "full")] == [TOO_SMALL, TOO_SMALL, MISSED]
    assert {verdict(reached, budget) for budget in ("smoke", "hour", "full")} == {REPRODUCED}
    assert verdict(whole.table.row("5-way 1-shot", "pixels"), "full") == ""


def test_notes_follow_the_budget(whole):
    told = " ".join(whole.table.notes)
    assert "Smoke budget" in told
    assert "One training a row" in told
    assert "One training serves all settings, on 1-shot tasks." in told
    hour = " ".join(tabulate(replace(whole.job, budget="hour", seeds=(0, 1)), whole.findings).notes)
    assert "Hour budget: the headline has 2 meta-updates" in hour
    assert "Smoke budget" not in hour
    assert "One training a row" not in hour


def test_episodes_that_are_not_the_published_ones_are_said_to_be_others(few, monkeypatch):
    monkeypatch.setattr(TABULATE, "TASKS", TASKS)
    for digest, expected in (("0" * 64, True), (few.findings.episodes[1].sha256, False)):
        work = replace(few.job, spec=replace(few.job.spec, episodes={("built-in", 1): digest}))
        told = any("are not those of docs/results.md" in note for note in tabulate(work, few.findings).notes)
        assert told is expected


# What is trained


def test_no_test_class_ever_reaches_a_training(whole):
    split = whole.job.source.split
    assert whole.classes["training"] <= {*split["train"], *split["val"]}
    assert all(whole.classes["training"] & set(split[name]) for name in ("train", "val")), "both were seen"
    assert whole.classes["measuring"] <= set(split["test"])
    assert whole.classes["measuring"], "something was measured"


def test_the_runs_on_disk_differ_in_what_is_said(whole):
    def settings(name: str) -> dict[str, Any]:
        told = to_settings(finding(whole.findings, name).run.config())
        return {f"{group}.{key}": value for group, section in told.items() for key, value in section.items()}

    def differing(first: str, second: str) -> set[str]:
        a, b = settings(first), settings(second)
        return {name for name in a if a[name] != b[name]}

    assert differing("headline", "maml-ours") == {"model.network"}, "the channels are patched to be equal"
    assert differing("headline", "headline-10") == set(), "the lengths are equal here"
    assert differing("maml", "maml-first") == {"inner.order"}
    assert differing("meta-cell", "task-cell") <= {"model.genotype"}
    assert differing("meta-cell", "random-cell") == {"model.genotype"}
    assert differing("headline", "meta-cell") == {
        "model.network", "model.genotype", "model.affine", "model.pool_norm",
    }  # fmt: skip


def test_the_meta_cell_is_that_of_the_best_checkpoint_and_the_task_cell_the_most_frequent(whole):
    best = finding(whole.findings, "headline").run.load("best")
    expected = derive_genotype(alphas_of(best.params), darts(NODES)).canonical()
    assert finding(whole.findings, "meta-cell").run.config().model.genotype == str(expected)
    genotypes = finding(whole.findings, "headline, cells").measured.genotypes
    assert len(genotypes) == TASKS
    assert finding(whole.findings, "task-cell").run.config().model.genotype == most_frequent(genotypes)[0]


def cell_of(number: int) -> Any:
    return random_genotype(darts(NODES), Key.from_seed(number).child("planted")).canonical()


@pytest.fixture
def planted(monkeypatch) -> dict[str, Any]:
    """Once the headline is trained, its checkpoint "best" stands for one cell and "last" for another; of protocol B's
    tasks two have a third."""
    from metadarts.derive import genotype_weights

    cells = {"best": cell_of(1), "last": cell_of(2), "task": cell_of(3), "rare": cell_of(4)}
    train, measure = RUNNER.train, RUNNER.measure

    def trained(path: Path, config: Any, data: Any, device: str, *rest: Any) -> RunFolder:
        fresh = not path.exists()
        folder: RunFolder = train(path, config, data, device, *rest)
        if fresh and path.name.startswith("headline-1shot"):
            state = TRAININGS.trained(folder, data, device).fresh_state()
            for name in ("last", "best"):
                weights = genotype_weights(cells[name], darts(NODES))
                for kind, table in weights.items():
                    state.params[f"alphas.{kind}"] = 5.0 * table.float()
                save_checkpoint(folder.path / "checkpoints", name, state, {})
        return folder

    def measured(row: Any, *rest: Any) -> Any:
        found = measure(row, *rest)
        genotypes = (str(cells["rare"]), str(cells["task"]), str(cells["task"]))
        return replace(found, genotypes=genotypes) if row.mode == "cells" else found

    monkeypatch.setattr(RUNNER, "train", trained)
    monkeypatch.setattr(RUNNER, "measure", measured)
    return cells


def test_planted_cells_are_the_ones_that_are_trained(planted, tmp_path):
    found = carry_out(job(tmp_path))
    for row, cell in (("meta-cell", "best"), ("task-cell", "task")):
        assert finding(found, row).run.config().model.genotype == str(planted[cell])
    assert "2 distinct cells over 3 tasks, the most frequent 2 times" in tabulate(job(tmp_path), found).row(
        "5-way 1-shot", "headline, cells"
    ).note  # fmt: skip


def test_of_equally_frequent_cells_the_first_is_kept():
    assert most_frequent(("b", "a", "a", "b", "c")) == ("b", 2, 3)


def test_equal_cells_are_trained_once(monkeypatch, counted, tmp_path):
    monkeypatch.setattr(RUNNER, "random_genotype", lambda *_: auto_maml()[5])
    found = carry_out(job(tmp_path))
    rows = [finding(found, name) for name in ("random-cell", "auto-maml-5-shot")]
    assert rows[0].run.path == rows[1].run.path
    np.testing.assert_array_equal(rows[0].measured.accuracies, rows[1].measured.accuracies)
    assert len(counted["search"]) == len(set(counted["search"]))
    genotypes = {str(each.run.config().model.genotype) for each in found.found if each.run and each.run.config().cell()}
    assert len(counted["search"]) == 2 + len(genotypes)


def test_further_seeds_are_added_to_what_is_there(few, two):
    table, found = tabulate(*two), two[1]
    before, after = files(few.job.out), files(two[0].out)
    assert {name: after[name][1] for name in before if name != "plan.json"} == {
        name: content for name, (_, content) in before.items() if name != "plan.json"
    }
    assert all("seed1" in name for name in set(after) - set(before))
    assert {row.seeds for row in table.rows} == {(0, 1)}
    for row in table.rows:
        both = values(found, row.name, seeds=(0, 1))
        assert both.shape == (2, TASKS)
        assert row.estimate == estimate(both, TABULATE.BOOTSTRAP.child(row.setting, row.name))
    np.testing.assert_array_equal(values(found, "maml"), values(few.findings, "maml"))
    seeds = {each.run.config().training.seed for each in found.found if each.run is not None}
    assert seeds == {0, 1}
    cells = [finding(found, "random-cell", seed=seed).run.config().model.genotype for seed in (0, 1)]
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


def test_a_digest_is_of_what_was_measured(few):
    """A control: other seeds of the trainings are another table."""
    rows = (replace(few.table.rows[0], weights=few.table.rows[0].weights + 1), *few.table.rows[1:])
    assert replace(few.table, rows=rows).digest != few.table.digest
    rows = (replace(few.table.rows[0], device="another", search_seconds=1e6), *few.table.rows[1:])
    assert replace(few.table, rows=rows).digest == few.table.digest


def stopping_at(poll: int) -> Callable[[], bool]:
    polls: list[int] = []

    def stop() -> bool:
        polls.append(1)
        return len(polls) == poll

    return stop


def test_stopped_at_every_poll_and_gone_on_with_it_is_the_same_table(few, tmp_path):
    """One folder, stopped again and again, each process at its third poll."""
    work, stops = job(tmp_path), 0
    while True:
        try:
            findings = carry_out(replace(work, stop=stopping_at(3)))
            break
        except STOPS:
            stops += 1
            assert stops < 3 * few.polls, "it goes on, and does not begin again"
    assert stops >= 12
    assert tabulate(work, findings).digest == few.table.digest


def test_stopped_once_in_the_midst_it_is_the_same_table(few, tmp_path):
    poll = few.polls // 3
    with pytest.raises(STOPS):
        carry_out(job(tmp_path, stop=stopping_at(poll)))
    work = job(tmp_path)
    assert tabulate(work, carry_out(work)).digest == few.table.digest


def test_a_stop_is_one_kind_of_stop(tmp_path):
    """As `carry_out` says: also in the middle of a training."""
    with pytest.raises(Stopped):
        carry_out(job(tmp_path, stop=lambda: True))


@pytest.mark.slow
def test_killed_it_goes_on_to_the_identical_table(few, tmp_path):
    """SIGKILL while a file is moved into place: the first one, within trainings, and between measurements."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", tiny_tables.__file__, str(tmp_path / "out"), *map(str, (0, 4, 9))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    work = job(tmp_path / "out")
    assert list(work.out.rglob("*.partial")), "the last one died between writing and moving"
    assert not measured_file(work, "task-cell").exists(), "there is something left to do"
    assert tabulate(work, carry_out(work)).digest == few.table.digest


# So far


def test_so_far_is_what_is_there_and_nothing_is_done(few, tmp_path, counted):
    work = job(tmp_path, stop=stopping_at(few.polls // 2))
    with pytest.raises(STOPS):
        carry_out(work)
    before, so_far = files(tmp_path), replace(work, so_far=True, stop=lambda: pytest.fail("polled"))
    told = {name: list(names) for name, names in counted.items()}
    with RUNNER._locked(tmp_path):  # also while another process is at work
        found = carry_out(so_far)
    assert (files(tmp_path), counted) == (before, told)
    table = tabulate(so_far, found)
    assert 0 < len(table.rows) < len(few.table.rows)
    assert len(found.found) + len(found.missing) == len(few.findings.found)
    assert any(note.startswith("Unfinished: not measured yet are ") for note in table.notes)
    for row in table.rows:
        assert row == replace(few.table.row(row.setting, row.name), search_seconds=row.search_seconds)


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
    measured_file(so_far, "headline-cells").with_name("headline-cells-seed1.json").unlink()
    found = carry_out(so_far)
    table = tabulate(so_far, found)
    each = next(each for each in table.comparisons if (each.first, each.second) == ("headline", "headline, cells"))
    expected = values(found, "headline").mean() - values(found, "headline, cells").mean()
    assert each.difference.mean == pytest.approx(expected)


# What is refused


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["maml", "headline", "headline-cells", "pixels"])
def test_an_edited_measurement_is_refused(copy, name):
    path = measured_file(copy, name)
    told = json.loads(path.read_text())
    told["accuracies"][0] = 1.0 - told["accuracies"][0] if told["accuracies"][0] != 0.5 else 0.4
    path.write_text(json.dumps(told))
    with pytest.raises(RunError, match="was changed since it was written; remove it") as refused:
        carry_out(copy)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        ("[]", "cannot be read"),
        ("null", "cannot be read"),
        ('{"sha256": NaN}', "cannot be read"),
        ("[" * 50_000, "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_measurement_that_is_none_is_refused(copy, content, words):
    measured_file(copy, "maml").write_text(content)
    with pytest.raises(RunError, match=words):
        carry_out(copy)


def test_the_measurement_of_another_row_is_refused(copy):
    shutil.copy(measured_file(copy, "headline"), measured_file(copy, "headline-no-steps"))
    with pytest.raises(RunError, match="was measured on something else: its row is 'headline', expected 'headline, no"):
        carry_out(copy)


def test_the_measurement_of_another_checkpoint_is_refused(copy, few):
    """The training is gone and another one is there in its place, as long but of other weights."""
    shutil.rmtree(copy.out / "runs" / "maml-1shot-seed0")
    other = spec(FEW)
    other = replace(other, recipe=replace(other.recipe, maml=other.recipe.maml | {"outer.weight_rate": 0.02}))
    with pytest.raises(RunError, match="was measured on something else: its checkpoint is"):
        carry_out(replace(copy, spec=other))


def test_a_removed_measurement_is_measured_again(copy, few, counted):
    measured_file(copy, "maml").unlink()
    assert tabulate(copy, carry_out(copy)).digest == few.table.digest
    assert counted == {"search": [], "measure": ["maml"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": "hour"}, "holds another table: its budget is 'smoke', asked for is 'hour'"),
        ({"split": "other"}, "holds another table: its split is 'built-in', asked for is 'other'"),
        ({"spec": replace(spec(FEW), name="tiny-too")}, "holds another table: its table is 'tiny', asked for is 'tiny"),
    ],
)
def test_the_folder_of_another_table_is_refused(copy, counted, changes, words):
    before = files(copy.out)
    with pytest.raises(RunError, match=words):
        carry_out(replace(copy, **changes))
    assert files(copy.out) == before
    assert counted == {"search": [], "measure": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outer.weight_rate": 0.5}, r"was trained with other settings: outer.weight_rate is .*, this table wants 0.5"),
        ({"evaluate.steps": 4}, r"was trained with other settings: evaluate.steps is 1, this table wants 4"),
        ({"training.validation_tasks": 3}, None),
    ],
)
def test_trainings_of_other_settings_are_refused(copy, counted, change, words):
    work = replace(copy, spec=spec(FEW, change))
    if words is None:  # what the budget fixes, the recipe does not change
        assert tabulate(work, carry_out(work)).rows
        return
    with pytest.raises(RunError, match=words):
        carry_out(work)
    assert counted["search"] == []


def test_trainings_of_another_length_are_refused(copy):
    with pytest.raises(RunError, match=r"training.meta_steps is 2, this table wants 3"):
        carry_out(replace(copy, spec=spec(FEW, updates=3)))


def test_another_place_of_the_same_data_is_no_other_training(copy, few, counted):
    work = replace(copy, place="elsewhere")
    assert tabulate(work, carry_out(work)).digest == few.table.digest
    assert counted["search"] == []


def test_other_data_are_refused_wherever_they_could_come_in(copy, counted):
    work = replace(copy, source=source(changed=1))
    with pytest.raises(DataError, match="holds other episodes: content_sha256"):
        carry_out(work)
    (copy.out / "episodes-1shot.jsonl").unlink()
    with pytest.raises(RunError, match="the 1-shot test episodes are not those this table was begun with"):
        carry_out(work)
    (copy.out / "plan.json").unlink()
    with pytest.raises(RunError, match="was trained on other data than those given"):
        carry_out(work)
    assert counted == {"search": [], "measure": []}


def test_an_edited_test_episode_is_refused(copy, counted):
    path = copy.out / "episodes-1shot.jsonl"
    lines = path.read_text().splitlines()
    task = json.loads(lines[1])
    rows = copy.source.classes[task["classes"][0]].rows.tolist()
    task["query"][0][0] = next(row for row in rows if row not in task["query"][0] + task["support"][0])
    path.write_text("\n".join([lines[0], json.dumps(task), *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="was changed: its episodes hash to"):
        carry_out(copy)
    assert counted == {"search": [], "measure": []}


def test_removed_test_episodes_are_drawn_anew_and_are_the_same(copy, few, counted):
    (copy.out / "episodes-1shot.jsonl").unlink()
    assert tabulate(copy, carry_out(copy)).digest == few.table.digest
    assert counted == {"search": [], "measure": []}


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"episodes": 3}', '{"episodes": {"1": NaN}}', "[" * 50_000, '{"episodes": []}']
)
def test_a_broken_plan_is_refused(copy, content):
    (copy.out / "plan.json").write_text(content)
    with pytest.raises(RunError, match=r"plan.json cannot be read|holds another table"):
        carry_out(copy)


def test_two_processes_never_share_a_folder(copy):
    with RUNNER._locked(copy.out), pytest.raises(RunError, match="another process is at work in it"):
        carry_out(copy)


def test_a_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        carry_out(job(tmp_path / "file"))


def test_a_damaged_checkpoint_is_refused(copy):
    tensors = next((copy.out / "runs" / "maml-1shot-seed0" / "checkpoints").glob("best-*.safetensors"))
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"is damaged: its hash is not the one in best\.json"):
        carry_out(copy)
