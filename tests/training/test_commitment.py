"""A run that commits: it drops candidates for good, is left with one cell, and trains that on."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.types import alphas_of
from metadarts.meta import MetaState
from metadarts.networks import inherit
from metadarts.spaces import Genotype, Kept
from metadarts.training import RunFolder, open_run, search
from metadarts.training.commitment import Commitment
from metadarts.training.search import SearchStopped
from tests.training.stopping import Crash, crash_at, same_state

MODULE = importlib.import_module("metadarts.training.search")
STEPS = 8
COMMITS = {
    "training.meta_steps": STEPS,
    "space.inputs_by": "pairs",
    "space.none": False,
    "relaxation.name": "annealed",
    "relaxation.begin": 0.0,
    "relaxation.finish": 0.5,
    "relaxation.end": 0.02,
    "outer.alpha_rate": 0.1,
    "commit.drop_below": 0.1,
    "commit.drop_from": 0.1,
    "commit.operations": 0.4,
    "commit.cell": 0.6,
}


@pytest.fixture
def run_of(make, one_thread, tmp_path):
    """(settings that differ, name) -> the experiment, its folder."""

    def made(changes=None, name="run"):
        experiment = make(COMMITS | (changes or {}))
        return experiment, RunFolder.create(tmp_path / name, experiment.config, {})

    return made


def test_the_run_ends_with_the_one_cell_that_its_alphas_chose(run_of):
    experiment, run = run_of()
    state = search(experiment, run)
    genotype = Genotype.parse(run.load("best").facts["genotype"])
    assert str(genotype) == run.load("last").facts["genotype"]
    assert not alphas_of(state.params)
    cell = experiment.network.discrete(genotype)
    assert {name: tensor.shape for name, tensor in state.params.items()} == cell.shapes()
    before, after = [line for line in run.records("validate") if "of" in line]
    assert before["step"] == after["step"] == 5  # the first step that begins with 0.6 of 8 done
    assert run.records("alphas")[-1]["genotype"] == str(genotype)
    assert run.load("supernet").facts["validation_accuracy"] == before["accuracy"]


def test_what_is_dropped_stays_dropped_and_is_never_the_whole_of_a_row(run_of):
    experiment, run = run_of()
    search(experiment, run)
    left = [line["candidates"] for line in run.records("commit") if "candidates" in line]
    assert left
    assert left == sorted(left, reverse=True)
    network = experiment.network.fitting(run.load("supernet").params)
    rows = {d.name: network.kept.named(network.space)[d.name] for d in network.decisions}
    assert all(sum(row) == 1 for d in network.decisions if d.node is None for row in rows[d.name])
    assert all(any(row) for table in rows.values() for row in table)


CLIPPED = {"inner.learn_rates": True, "inner.granularity": "tensor", "outer.clip": 0.02, "inner.clip": 0.02}
"""Norms to clip are sums over all tensors, in their order: of a part of the network as of a fresh one."""


@pytest.fixture(scope="module")
def undisturbed(make, one_thread, tmp_path_factory):
    """(whether norms are clipped) -> the end of a run that nothing stopped, and its folder; made once."""

    @functools.cache
    def of(clipped):
        experiment = make(COMMITS | (CLIPPED if clipped else {}))
        whole = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", experiment.config, {})
        return search(experiment, whole), whole

    return of


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_that_stopped_at_any_step_ends_as_the_run_that_did_not(run_of, undisturbed, step):
    expected, whole = undisturbed(True)
    experiment, run = run_of(CLIPPED)
    with pytest.raises(Crash):
        search(experiment, run, crash_at(step))
    assert same_state(search(experiment, run), expected)
    assert run.load("best").facts == whole.load("best").facts


@pytest.mark.parametrize("validation", [2, 3])
def test_a_stop_while_the_cut_is_measured_changes_nothing(run_of, undisturbed, monkeypatch, validation):
    """The second validation is of the supernet just before the cut, the third of the cell just after."""
    expected, whole = undisturbed(False)
    experiment, run = run_of()
    evaluate, measured = MODULE.evaluate, []

    def counting(*arguments, **options):
        measured.append(1)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(MODULE, "evaluate", counting)
    with pytest.raises(SearchStopped):
        search(experiment, run, stop=lambda: len(measured) == validation)
    monkeypatch.undo()
    assert len(run.records("validate")) == validation - 1
    assert ("genotype" in run.load("last").facts) == (validation == 3)
    assert same_state(search(experiment, run), expected)
    assert run.load("best").facts == whole.load("best").facts
    found, asked = ([(r["step"], r.get("of"), r["accuracy"]) for r in one.records("validate")] for one in (run, whole))
    assert found == asked


def test_a_validation_that_is_due_at_the_cut_is_that_of_the_cell(run_of):
    experiment, run = run_of({"training.meta_steps": 10, "training.validations": 5})
    search(experiment, run)
    shown = [(line["step"], line.get("of", "")[:12]) for line in run.records("validate")]
    assert shown == [(2, ""), (4, ""), (6, "the supernet"), (6, "the cell tha"), (8, ""), (10, "")]


def test_what_is_due_is_not_missed_between_two_looks(make):
    """A run by minutes looks at a clock that goes on between its looks."""
    network, commit = make(COMMITS).network, Commitment(cell=0.16)
    assert not commit.is_due(network, 0.1, 0.159)
    assert commit.is_due(network, 0.1601, 0.165)
    assert commit.is_due(network, 0.3, 0.9)
    drops = Commitment(drop_below=0.1, every=0.02)
    shares = [float(torch.tensor(step / 3000)) for step in range(300)]  # as a state keeps them
    looks = [step for step in range(1, 300) if drops.is_due(network, shares[step - 1], step / 3000)]
    assert looks == [60, 120, 180, 240]
    choosing, space = Commitment(operations=0.4), network.space
    assert choosing.is_due(network, 0.5, 0.6)
    scores = {d.name: [[float(k) for k in range(len(d.candidates))]] * d.rows for d in space.decisions}
    assert not choosing.is_due(network.pruned(Kept.everything(space).best_operations(space, scores)), 0.5, 0.6)


def cloned(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_the_optimiser_goes_on_where_it_was(run_of):
    """What is left of the network keeps its moments: those of before, cut as its parameters are."""
    experiment, run = run_of({"commit.drop_below": 0.0, "commit.operations": 1.0})
    moments = []
    original = MetaState.cut

    def spy(state, cut, rates):
        before = cloned(state.memory())
        found = original(state, cut, rates)
        moments.append((before, cloned(found.memory())))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaState, "cut", spy)
        search(experiment, run)
    ((before, after),) = moments
    cell = experiment.network.discrete(Genotype.parse(run.load("best").facts["genotype"]))
    for slot in ("exp_avg", "exp_avg_sq"):
        whole = {name.rpartition("/")[0]: moment for name, moment in before.items() if name.endswith(f"/{slot}")}
        expected = inherit(cell, whole, experiment.network)
        assert all(torch.equal(after[f"{name}/{slot}"], moment) for name, moment in expected.items())
        assert any(bool(moment.any()) for moment in expected.values())
    assert {float(after[f"{name}/step"]) for name in cell.shapes()} == {5.0}


def test_every_verb_of_a_run_sees_the_cell(run_of):
    experiment, run = run_of()
    search(experiment, run)
    opened = open_run(run.path)
    assert opened.config.model.network == "cell"
    assert not opened.config.has_alphas()
    assert opened.configured.has_alphas()
    assert open_run(run.path, checkpoint="supernet").config.has_alphas()


def test_an_unfinished_run_is_opened_as_far_as_it_is(run_of, source):
    experiment, run = run_of()
    with pytest.raises(Crash):
        search(experiment, run, crash_at(5))
    opened = open_run(run.path, checkpoint="last")
    found = opened.experiment(source)
    assert found.network.mixes
    assert found.network.kept is not None
    found.check_params(opened.checkpoint.params)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("inputs_by", ["rule", "pairs", "edges"])
@pytest.mark.parametrize("none", [True, False])
def test_it_commits_in_every_kind_of_space(run_of, inputs_by, none):
    experiment, run = run_of({"space.inputs_by": inputs_by, "space.none": none})
    search(experiment, run)
    assert "genotype" in run.load("best").facts


def test_a_run_of_one_step_is_left_with_a_cell_too(run_of):
    experiment, run = run_of({"training.meta_steps": 1})
    assert not alphas_of(search(experiment, run).params)


@pytest.mark.parametrize(
    "options", [{"cell": 0.0}, {"operations": 1.5}, {"drop_below": 1.0}, {"drop_from": -0.1}, {"every": 0.0}]
)
def test_shares_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="commit: expected"):
        Commitment(**options)


def test_settings_out_of_range_are_refused_like_all_others(tiny):
    with pytest.raises(ConfigError, match="commit"):
        tiny({"commit.cell": 2.0})
