"""What a table trains: rows that are compared differ in what their comparison says, and in nothing else."""

from __future__ import annotations

import pytest

from metadarts.core.errors import ConfigError
from metadarts.networks import Image, NetworkSpec, discrete_network
from metadarts.papers.reproduction import TABLES, TableSpec, table_named
from metadarts.papers.reproduction.papers import AUTO_MAML
from metadarts.papers.reproduction.plans import comparisons_of, rows_of
from metadarts.papers.reproduction.recipes import CELLS, Recipe, Training
from metadarts.papers.reproduction.tables import QUERIES, TASKS, WAYS
from metadarts.papers.rows import BUDGETS, HEADLINE, META_CELL, RANDOM_CELL, TASK_CELL
from metadarts.spaces import Genotype, darts
from metadarts.tasks import SOURCES
from metadarts.training import Config, with_settings
from metadarts.training.config import to_settings

GENOTYPE = str(AUTO_MAML[1])
EVERY = [(name, budget) for name in TABLES for budget in BUDGETS]


def trainings(spec: TableSpec, budget: str, shots: int = 1) -> dict[str, Training]:
    return {training.name: training for training in spec.trainings(budget, shots)}


def config(spec: TableSpec, training: Training, shots: int = 1, seed: int = 0) -> Config:
    extra = {"model.genotype": GENOTYPE} if training.cell else {}
    return training.config(next(iter(spec.sources.values())), shots, seed, extra)


def differing(spec: TableSpec, budget: str, first: str, second: str) -> set[str]:
    """The names of the settings in which two trainings differ."""
    a, b = (to_settings(config(spec, trainings(spec, budget)[name])) for name in (first, second))
    names = {(group, name) for side in (a, b) for group in side for name in side[group]}
    return {f"{group}.{name}" for group, name in names if a[group].get(name) != b[group].get(name)}


LENGTH = "training.meta_steps"
PROTONET = {"inner.steps", "evaluate.steps", "tasks.train_ways", "tasks.queries", "training.tasks"}
CELL = {"model.network", "model.genotype", "model.affine", "model.pool_norm"}
MACRO = {"macro.name", "macro.channels", "macro.stem"}


@pytest.mark.parametrize(("name", "budget"), [pair for pair in EVERY if pair[1] != "full"])
def test_rows_that_are_compared_differ_in_what_is_said(name, budget):
    spec = TABLES[name]
    assert differing(spec, budget, "headline", "maml-ours") == MACRO
    assert differing(spec, budget, "headline", "headline-10") - {LENGTH} == set()
    assert differing(spec, budget, "maml", "maml-first") - {LENGTH} == {"inner.order"}
    assert differing(spec, budget, "maml", "maml-equal") - {LENGTH} == set()
    assert differing(spec, budget, "maml-ours", "protonet") - {LENGTH} <= PROTONET
    assert differing(spec, budget, "headline", META_CELL) - {LENGTH} == CELL


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_cells_differ_in_the_cell_alone(name, budget):
    """With one genotype for all of them, nothing is left to differ."""
    for other in CELLS:
        assert differing(TABLES[name], budget, META_CELL, other) == set()


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_equal_meta_updates_are_equal(name, budget, shots):
    found = {label: training.steps for label, training in trainings(TABLES[name], budget, shots).items()}
    rows = {row.name for row in rows_of(TABLES[name], budget, 5)}
    plans = [plan for plan in comparisons_of(budget) if {plan.first, plan.second} <= rows]
    equal = [plan for plan in plans if "equal meta-updates" in plan.about]
    assert len(equal) == (2 if budget == "hour" else 0)
    for plan in equal:
        assert found[plan.first] == found[plan.second]


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_a_comparison_says_whether_more_than_the_network_differs(name, budget):
    """Two trainings of one recipe differ in the network and the length alone."""
    known = {row.name: row.training for row in rows_of(TABLES[name], budget, 5)}
    alike = {LENGTH, *MACRO, *CELL}
    for plan in comparisons_of(budget):
        if {plan.first, plan.second} <= known.keys() and budget != "full":
            differ = differing(TABLES[name], budget, known[plan.first], known[plan.second])
            assert bool(differ - alike) is plan.recipes_differ, plan
        assert (plan.papers is None) is not plan.second.startswith("maml")


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_every_training_is_a_configuration_without_a_limit_of_minutes(name, budget):
    """A run limited by minutes could not be had again."""
    spec = TABLES[name]
    for training in spec.trainings(budget, shots=5):
        found = config(spec, training, shots=5, seed=7)
        assert found.training.minutes == 0
        assert found.training.meta_steps == training.steps > 0
        assert (found.training.seed, found.tasks.shots, found.tasks.ways) == (7, 5, WAYS)
        assert found.training.validation_tasks >= (4 if budget == "smoke" else 100)
        assert found.evaluate.queries == QUERIES, "validation tasks are like those of the test"


def test_lengths_of_a_setting_are_of_trainings_that_it_has_alone():
    """Else two settings would name one run folder and want other lengths in it."""
    for spec in TABLES.values():
        for shots in (1, 5, 20):
            for budget in BUDGETS:
                one, other = trainings(spec, budget), trainings(spec, budget, shots)
                assert list(one) == list(other)
                odd = {name for name in one if one[name] != other[name]}
                assert odd <= {name for name in one if one[name].own_setting}
    omniglot = table_named("tnas-omniglot")
    for name in ("maml", "maml-first"):
        assert trainings(omniglot, "hour", 5)[name].steps < trainings(omniglot, "hour", 1)[name].steps


def test_six_times_the_time_is_six_times_the_updates():
    for spec in TABLES.values():
        found = trainings(spec, "hour")
        assert 5.9 < found["headline"].steps / found["headline-10"].steps < 6.1


def test_mamls_own_recipe_is_the_papers():
    """Finn et al. (2017), section A.1: one step of 0.4 on Omniglot, five of 0.01 on miniImageNet; 15 queries."""
    for name, steps, rate, size, at_test in (("tnas-omniglot", 1, 0.4, 28, 1), ("tnas-fc100", 5, 0.01, 32, 10)):
        spec = TABLES[name]
        found = config(spec, trainings(spec, "hour")["maml"])
        assert (found.macro.name, found.macro.options["channels"], found.model.head) == ("conv4", 32, "shared")
        assert (found.inner.steps, found.inner.weight_rate, found.inner.order) == (steps, rate, "second")
        assert (found.evaluate.steps, found.tasks.queries, found.tasks.train_ways) == (at_test, 15, 0)
        assert found.structure(Image(1, size, size)).cells == ()


def test_the_full_budget_has_mamls_meta_batch_and_constant_outer_rates():
    """Finn et al. (2017), section A.1: 32 tasks a meta-batch on Omniglot, 4 on miniImageNet; a constant rate."""
    for name, tasks, smaller in (("tnas-omniglot", 32, 8), ("tnas-fc100", 4, 4), ("tnas-mini", 4, 4)):
        for label in ("maml", "maml-first"):
            full, hour = (config(TABLES[name], trainings(TABLES[name], budget)[label]) for budget in ("full", "hour"))
            assert (full.training.tasks, full.outer.final, full.training.meta_steps) == (tasks, 1.0, 60_000)
            assert (hour.training.tasks, hour.outer.final) == (smaller, 0.02)


def test_the_trainings_of_every_budget():
    """The full one has the paper's methods, not our own controls."""
    cells = list(CELLS)
    controls = ["headline", "headline-10", "maml", "maml-first", "maml-equal", "maml-ours", "protonet", *cells]
    for spec in TABLES.values():
        for budget in ("smoke", "hour"):
            assert list(trainings(spec, budget)) == controls
        assert list(trainings(spec, "full")) == ["headline", "maml", "maml-first", "protonet", *cells]
        assert [training.name for training in spec.trainings("full", 1) if training.cell] == cells


def test_the_full_headline_is_t_nass():
    """Lian et al. (2020): inner rate 0.1 for weights, 10 epochs of 5,000 tasks, 4 at a time."""
    for spec in TABLES.values():
        full, hour = (config(spec, trainings(spec, budget)[HEADLINE]) for budget in ("full", "hour"))
        assert (full.training.meta_steps * full.training.tasks, full.inner.weight_rate) == (50_000, 0.1)
        assert full.model.head == "shared"
        assert hour.model.head == "prototype"


def test_protonet_takes_no_step():
    for spec in TABLES.values():
        found = config(spec, trainings(spec, "hour")["protonet"])
        assert (found.inner.steps, found.evaluate.steps, found.model.head) == (0, 0, "prototype")


def test_the_published_cells_are_those_of_the_paper():
    """Auto-MAML's release: 23,213 weights for one shot and 26,061 for five."""
    spec = NetworkSpec(affine=True, pool_norm=False)
    counts = {shots: discrete_network(cell, darts(), spec).count(ways=5) for shots, cell in AUTO_MAML.items()}
    assert counts == {1: (23_213, 0), 5: (26_061, 0)}
    for cell in AUTO_MAML.values():
        assert Genotype.parse(str(cell)) == cell
        assert Genotype.parse(str(cell.canonical())) == cell.canonical()
        assert discrete_network(cell.canonical(), darts(), spec).count(ways=5) == discrete_network(
            cell, darts(), spec
        ).count(5)


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_the_rows_of_a_table(name, budget):
    spec = TABLES[name]
    for shots in spec.settings(budget):
        rows = rows_of(spec, budget, shots)
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        assert names[:4] == ["headline", "headline, support statistics", "headline, no steps", "headline, cells"]
        assert names[-1] == "pixels"
        assert {row.training for row in rows} - {""} == set(trainings(spec, budget))
        assert {row.name for row in rows if row.protocol == "C"} == {TASK_CELL, META_CELL, RANDOM_CELL}
        printed = {row.paper for row in rows if row.paper}
        assert printed == {"T-NAS", "MAML", "MAML, first order", "Auto-MAML"} - (
            {"Auto-MAML"} if shots == 10 else set()
        )
        assert all(row.bn == ("support" if row.name.endswith("statistics") else "") for row in rows)


def test_the_published_cell_stands_beside_the_value_of_its_own_shots():
    rows = {row.name: row.paper for row in rows_of(TABLES["tnas-omniglot"], "hour", 1)}
    assert (rows["auto-maml-1-shot"], rows["auto-maml-5-shot"]) == ("Auto-MAML", "")
    rows = {row.name: row.paper for row in rows_of(TABLES["tnas-omniglot"], "hour", 5)}
    assert (rows["auto-maml-1-shot"], rows["auto-maml-5-shot"]) == ("", "Auto-MAML")


def test_comparisons_name_rows_that_there_are():
    for budget in BUDGETS:
        known = {row.name for row in rows_of(TABLES["tnas-fc100"], budget, 5)}
        assert {name for plan in comparisons_of(budget) for name in (plan.first, plan.second)} <= known
        pairs = [(plan.first, plan.second) for plan in comparisons_of(budget)]
        assert len(set(pairs)) == len(pairs)


def test_only_an_hour_holds_anything_equal():
    """A few updates of smoke take any time; at the paper's lengths each has its own."""
    assert any("wall-clock meant to be equal" in plan.about for plan in comparisons_of("hour"))
    for budget in ("smoke", "full"):
        texts = [plan.about for plan in comparisons_of(budget)]
        assert not any(text.startswith("equal") or "times the time" in text for text in texts)


def test_budgets_differ_in_length_and_settings():
    for spec in TABLES.values():
        assert spec.tasks("hour") == spec.tasks("full") == TASKS == 600
        assert spec.tasks("smoke") < 60
        assert [spec.trained_at("full", shots) for shots in spec.shots] == list(spec.shots)
        assert {spec.trained_at("hour", shots) for shots in spec.small_shots} == {spec.trained_shots}
        steps = [trainings(spec, budget)[HEADLINE].steps for budget in ("smoke", "hour", "full")]
        assert steps == sorted(steps)
        assert steps[2] == 12_500, "as the paper"


def test_a_table_names_sources_and_splits_that_there_are():
    for spec in TABLES.values():
        assert set(spec.sources) == set(spec.splits)
        assert set(spec.sources.values()) <= set(SOURCES)
        assert spec.source(None) == next(iter(spec.sources.items()))
        assert {split for split, _ in spec.episodes} <= set(spec.sources)
        assert {shots for _, shots in spec.episodes} <= set(spec.shots)
        assert all(len(digest) == 64 for digest in spec.episodes.values())
        for values in spec.printed.values():
            assert set(values) <= set(spec.shots)
            assert all(0 < accuracy < 1 and (half is None or half < 0.05) for accuracy, half in values.values())


def test_what_there_is_not_is_refused():
    spec = TABLES["glyphs"]
    with pytest.raises(ConfigError, match=r"unknown table 'tnas-fc10': did you mean 'tnas-fc100'"):
        table_named("tnas-fc10")
    with pytest.raises(ConfigError, match=r"unknown budget 'hours': did you mean 'hour'"):
        spec.trainings("hours", 1)
    with pytest.raises(ConfigError, match=r"--split 'tnas': glyphs has built-in"):
        spec.source("tnas")


def test_a_training_without_a_length_is_left_out():
    recipe = Recipe({}, {}, {}, {"smoke": {HEADLINE: 3, "maml": 0}})
    assert [training.name for training in recipe.trainings("smoke", 1)] == [HEADLINE]


def test_the_data_lie_below_the_root(tmp_path):
    spec = TABLES["tnas-fc100"]
    assert spec.place(None) == ""
    assert spec.place(tmp_path) == str(tmp_path.resolve())
    (tmp_path / "cifar100").mkdir()
    assert spec.place(tmp_path) == str((tmp_path / "cifar100").resolve())


@pytest.mark.parametrize("table", TABLES)
def test_a_headline_stays_a_supernet_to_its_end(table):
    """Its alphas are adapted to every task, and its cells are derived from them."""
    settings = table_named(table).recipe.ours
    found = with_settings(Config(), dict(settings) | {"training.meta_steps": 1}).check()
    assert not found.commit.ends_in_a_cell
    assert found.has_alphas()
    assert found.search_space().inputs_by == "rule"
