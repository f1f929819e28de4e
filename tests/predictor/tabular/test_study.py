"""The whole study on made-up tables: it repeats, it does not look where it may not, and its page says what it found."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.progress import Progress
from metadarts.core.rng import Key
from metadarts.predictor.tabular import baselines, draw_result, evaluate_table, read_table, study
from metadarts.predictor.tabular.methods import CHOICE, CHOSEN, MEANINGS, ORDER, RANDOM, SCRATCH
from metadarts.predictor.tabular.report import Report, Result, findings
from metadarts.predictor.tabular.selection import inner_folds, remaining
from metadarts.predictor.tabular.study import chosen_row, measure, percentile
from metadarts.predictor.tabular.tables import ALL_GPUS, Bench
from metadarts.viz import Picture
from tests.predictor.tabular.made_tables import TINY, latency_arrays, transnas_arrays, write


@pytest.fixture(scope="module")
def transnas(tmp_path_factory) -> Report:
    path = write(tmp_path_factory.mktemp("tables") / "transnas.npz", transnas_arrays())
    return evaluate_table(path, 2, TINY)


@pytest.fixture(scope="module")
def shares() -> list[float]:
    """What progress was told while the latencies were measured."""
    return []


@pytest.fixture(scope="module")
def latency(tmp_path_factory, shares) -> Report:
    path = write(tmp_path_factory.mktemp("tables") / "latency.npz", latency_arrays())
    return evaluate_table(path, 2, replace(TINY, shots=(4,)), lambda now: shares.append(now.share))


@pytest.fixture
def small_bench(tmp_path) -> Bench:
    """Three tasks of the macro space."""
    macro, _ = read_table(write(tmp_path / "table.npz", transnas_arrays()))
    groups = {name: macro.groups[name] for name in macro.tasks[:3]}
    return replace(
        macro, tasks=macro.tasks[:3], units=macro.units[:3], valid=macro.valid[:3], test=macro.test[:3], groups=groups
    )


def quiet(now: Progress) -> None:
    assert 0 <= now.share <= 1 + 1e-9
    assert now.text.startswith(("macro: cross-validation, recipe ", "macro: left out: "))


def test_every_cell_of_the_table_is_filled(transnas, latency):
    for report, baseline in ((transnas, CHOICE), (latency, ORDER)):
        for result in report.results:
            assert set(baseline) < set(result.methods) <= set(MEANINGS)
            for name, values in result.measures.items():
                assert np.isfinite(values).all(), name
    assert [result.name for result in transnas.results] == ["macro", "micro"]
    assert transnas.results[0].measures["percentile"].shape == (10 + 1, 2, 7, 2)
    assert latency.results[0].measures["spearman"].shape == (12, 1, 27 + 15, 2)


def test_same_seed_same_result(small_bench):
    once, again = (measure(small_bench, TINY, quiet).as_json() for _ in range(2))
    assert json.dumps(once) == json.dumps(again)


def test_seeds_do_not_depend_on_how_many_there_are(small_bench):
    one, two = (measure(small_bench, replace(TINY, seeds=seeds), quiet) for seeds in (1, 2))
    np.testing.assert_array_equal(one.measures["chosen"][..., 0], two.measures["chosen"][..., 0])


def test_left_out_task_speaks_through_its_known_rows_alone(small_bench):
    """Whatever stands in the other rows, the same architectures are chosen; what stands in the known ones counts."""
    settings = replace(TINY, seeds=2)
    drawn = [
        Key.from_seed(seed).child("macro", "rows", small_bench.tasks[0]).choose(small_bench.size, 5) for seed in (0, 1)
    ]
    hidden = np.setdiff1d(np.arange(small_bench.size), np.concatenate([rows[:4] for rows in drawn]))
    plain = measure(small_bench, settings, quiet)
    valid, test = small_bench.valid.copy(), small_bench.test.copy()
    valid[0, hidden] = valid[0, hidden[::-1]] * -37 + 5
    test[0] = -test[0]
    spoilt = measure(replace(small_bench, valid=valid, test=test), settings, quiet)
    np.testing.assert_array_equal(plain.measures["chosen"][:, :, 0], spoilt.measures["chosen"][:, :, 0])
    assert (plain.measures["percentile"][:, :, 0] != spoilt.measures["percentile"][:, :, 0]).any()
    assert (plain.measures["chosen"][:, :, 1:] != spoilt.measures["chosen"][:, :, 1:]).any()  # there it may be used
    valid = small_bench.valid.copy()
    valid[0, drawn[0][:4]] = valid[0, drawn[0][:4]] * -37
    changed = measure(replace(small_bench, valid=valid), settings, quiet)
    assert (plain.measures["chosen"][:, 1, 0, 0] != changed.measures["chosen"][:, 1, 0, 0]).any()


def test_cross_validation_never_sees_what_is_left_out(small_bench):
    """Hyper-parameters of a left-out task stay the same whatever its values are."""
    settings = replace(TINY, losses=("pairs", "top"))
    valid = small_bench.valid.copy()
    valid[0] = -(valid[0] ** 3)
    plain, spoilt = (measure(bench, settings, quiet) for bench in (small_bench, replace(small_bench, valid=valid)))
    task = small_bench.tasks[0]
    for name in ("meta-model, encoding alone", "meta-model, with the other tasks' values", SCRATCH):
        assert plain.recipes[name]["qualities"][task] == spoilt.recipes[name]["qualities"][task]
        assert plain.recipes[name]["qualities"] != spoilt.recipes[name]["qualities"]
    assert plain.recipes[CHOSEN]["chosen"][task] == spoilt.recipes[CHOSEN]["chosen"][task]


def test_folds_share_no_device(tmp_path):
    (bench,) = read_table(write(tmp_path / "table.npz", latency_arrays()))
    folds = inner_folds(bench)
    assert len(folds) == 15 + 3
    for left_out, validation in folds:
        assert not set(bench.groups[left_out]) & set(bench.groups[validation])
        gone = {*bench.groups[left_out], *bench.groups[validation]}
        assert set(remaining(bench, left_out, validation)) == set(range(27)) - gone
    assert {other for name, other in folds if name == ALL_GPUS} == {"CPU", "phone or embedded", "accelerator"}


def test_one_more_evaluation_keeps_the_better_by_validation(small_bench):
    result = measure(small_bench, replace(TINY, seeds=3), quiet)
    for number, place, task, seed in np.ndindex(result.measures["chosen"].shape):
        drawn = Key.from_seed(seed).child("macro", "rows", small_bench.tasks[task]).choose(small_bench.size, 5)
        shots = result.shots[place]
        suggested = int(result.measures["chosen"][number, place, task, seed])
        tried = [*drawn[:shots], drawn[shots] if result.methods[number] == RANDOM else suggested]
        best = max(tried, key=lambda row: small_bench.valid[task, row])
        expected = percentile(small_bench.test[task], int(best))
        assert result.measures["percentile_next"][number, place, task, seed] == pytest.approx(expected)
        regret = small_bench.test[task].max() - small_bench.test[task, suggested]
        assert result.measures["regret"][number, place, task, seed] == pytest.approx(regret)


def test_percentile():
    values = np.array([1.0, 5.0, 3.0, 3.0, 2.0])
    assert [percentile(values, row) for row in range(5)] == [0, 100, 62.5, 62.5, 25]


def test_equal_scores_are_told_apart_by_the_key():
    scores = np.zeros(50)
    rows = {chosen_row(scores, Key.from_seed(seed)) for seed in range(20)}
    assert len(rows) > 10
    scores[7] = 1
    assert chosen_row(scores, Key.from_seed(0)) == 7


def known(count: int) -> baselines.Known:
    """The first ``count`` of 40 architectures are known; the second of three training tasks is the new task itself."""
    noise = Key.from_seed(5).numpy()
    others = noise.standard_normal((3, 40))
    encoding = noise.standard_normal((40, 3)).astype(np.float32)
    facts = {"FLOPs": np.arange(40.0)}
    rows = np.arange(count)
    return baselines.Known(encoding, others, rows, others[1, rows], others[2], facts, Key.from_seed(0), 50)


def test_baselines_find_what_is_there_to_find():
    seen = known(12)
    np.testing.assert_array_equal(baselines.nearest_task(seen), seen.others[1])
    assert np.corrcoef(baselines.ridge(seen), seen.others[1])[0, 1] > 0.98
    assert int(np.argmax(baselines.best_of_known(seen))) == int(np.argmax(seen.values))
    fitted = baselines.trees(seen)[:12], baselines.trees_on_others(seen)[:12], baselines.trees_continued(seen)[:12]
    assert all(np.corrcoef(scores, seen.values)[0, 1] > 0.9 for scores in fitted)
    assert baselines.by_fact("FLOPs")(seen)[-1] == 39


def test_without_known_rows_a_baseline_says_what_it_can():
    none = known(0)
    average = baselines.best_on_average(none)
    for baseline in (baselines.nearest_task, baselines.ridge, baselines.trees_on_others):
        np.testing.assert_array_equal(baseline(none), average)
    np.testing.assert_array_equal(baselines.trees_continued(none), none.prior)
    assert len(np.unique(baselines.trees(none))) == 1


def test_average_is_of_ranks():
    seen = known(1)
    seen.others[0] *= 1e6
    expected = np.mean([np.argsort(np.argsort(row)) for row in seen.others], axis=0)
    np.testing.assert_allclose(baselines.best_on_average(seen), expected)


def test_missing_scikit_learn_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    with pytest.raises(ConfigError, match="need scikit-learn"):
        baselines.trees(known(4))


def test_page_names_what_wins(transnas):
    told = transnas.results[0]
    values = np.zeros_like(told.measures["percentile"])
    values += 50 + np.arange(values.shape[-1])
    values[told.methods.index("best on average")] += 10
    values[told.methods.index(SCRATCH)] -= 10
    values[told.methods.index(RANDOM)] += (-3, 1)  # worse on average, but not by every seed
    made = replace_measure(told, values)
    for line in findings(made, "percentile"):
        assert f"beats {SCRATCH} (+10.0 [+10.0, +10.0]; 7 of 7)" in line
        assert "**loses to best on average (-10.0 [-10.0, -10.0]; 0 of 7)**" in line
        assert "cannot be told from" in line
        assert f"{RANDOM} (+1.0 [-1.0, +3.0]; 7 of 7)" in line.partition("cannot be told from")[2]


def test_page_tells_what_adapting_is_worth(transnas):
    told = transnas.results[0]
    for change, said in ((5.0, "gains by"), (-5.0, "**loses by**"), (0.0, "gains nothing that shows by")):
        values = np.full_like(told.measures["percentile"], 50.0)
        values[told.methods.index(CHOSEN), told.shots.index(4)] += change
        page = replace(transnas, results=(replace_measure(told, values),)).as_markdown()
        assert f"The meta-model {said} adapting to K = 4, against its start at K = 0: {change:+.1f}" in page


def replace_measure(result: Result, values: np.ndarray) -> Result:
    return replace(result, measures=result.measures | {"percentile": values})


def test_page_and_json_say_the_same(transnas, latency):
    for report, measured in ((transnas, "percentile"), (latency, "spearman")):
        page, told = report.as_markdown(), json.loads(json.dumps(report.as_json()))
        assert told["kind"] in ("transnas", "latency")
        assert told["seeds"] == [0, 1]
        digits = 1 if measured == "percentile" else 3
        for summary in told["summary"]:
            for row in summary["rows"]:
                shown = f"{row['mean']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
                assert row["method"] in page
                if not any(abs(row[end] * 10**digits % 1 - 0.5) < 1e-2 for end in ("mean", "low", "high")):
                    assert shown in page
    assert "2 architectures of 40 are left out" in latency.as_markdown()


def test_progress_rises_to_one(latency, shares):
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_order_is_scored_on_what_is_not_known(monkeypatch, small_bench):
    seen = []
    monkeypatch.setattr(study, "spearman", lambda first, second: seen.append(len(first)) or 0.5)
    bench = replace(small_bench, by_rank=False, facts={"FLOPs": np.arange(30.0)})
    found = measure(bench, replace(TINY, shots=(4,), losses=("pairs",)), quiet)
    assert set(seen) == {26}
    assert (found.measures["spearman"] == 0.5).all()


def test_pictures(transnas, latency):
    for result in (transnas.results[0], latency.results[0]):
        picture = Picture(".svg")
        draw_result(result, picture)
        assert b"<svg" in picture.getvalue()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"seeds": 0}, "at least one seed"), ({"draws": 0}, "and one draw"), ({"shots": (0, 30)}, "fewer than the 30")],
)
def test_settings_out_of_range(small_bench, settings, said):
    with pytest.raises(ConfigError, match=said):
        measure(small_bench, replace(TINY, **settings), quiet)


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected the arrays of TransNAS-Bench-101"):
        evaluate_table(write(tmp_path / "other.npz", {"images": np.zeros(3)}))
