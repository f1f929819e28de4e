"""The diagnosis: swaps are swaps, two draws share no image, and the answer says no more than its intervals do."""

from __future__ import annotations

import importlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from metadarts.cli.diagnose import diagnose as verb
from metadarts.core.errors import ConfigError, NumericsError, RunError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch, alphas_of
from metadarts.derive import derive_genotype, genotype_distance
from metadarts.networks import Network
from metadarts.papers.cells import adapt_batch
from metadarts.papers.diagnosis import (
    Contrast,
    Evidence,
    as_markdown,
    as_text,
    diagnose,
    draw_diagnosis,
    passes,
    verdict,
)
from metadarts.papers.diagnosis.distances import (
    between,
    edits,
    largest_shares,
    pair_scores,
    retrieved,
    shares_of,
    variations,
    within,
)
from metadarts.papers.diagnosis.passes import DISCRETE, SOFT, measure, partners_of, second_support, spans
from metadarts.papers.diagnosis.summary import summarised
from metadarts.relaxations import DEFAULT_RELAXATION, Softmax
from metadarts.spaces import darts, random_genotype
from metadarts.stats import Estimate, estimate, paired
from metadarts.training import Config, RunFolder, build, discretised, with_settings
from metadarts.training.build import HeldOutTasks, held_out
from metadarts.training.checkpoints import Checkpoint
from metadarts.viz import Picture, Ranges, draw_ranges
from tests.papers.cases import relaxed

TASKS = 5
TINY = {
    "tasks.ways": 3,
    "macro.channels": 4,
    "space.nodes": 1,
    "macro.stem": (4, 6),
    "inner.alpha_rate": 20.0,
    "training.meta_steps": 1,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
    "evaluate.batch": 3,
}
ZERO = Estimate(0.0, 0.0, 0.0)


@pytest.fixture(scope="module", autouse=True)
def fonts():
    """matplotlib's list of fonts, which it makes once per machine and not without a word: no test may be the first."""
    importlib.import_module("matplotlib.font_manager")


@pytest.fixture(scope="module")
def experiment():
    return build(with_settings(Config(), TINY).check())


@pytest.fixture(scope="module")
def checkpoint(experiment):
    return Checkpoint(experiment.fresh_state().params, {}, {"step": 0})


@pytest.fixture(scope="module")
def meta(experiment, checkpoint):
    return derive_genotype(alphas_of(checkpoint.params), experiment.network.space).canonical()


@pytest.fixture(scope="module")
def diagnosis(experiment, checkpoint):
    return diagnose(experiment, checkpoint, TASKS)


@pytest.fixture(scope="module")
def still(experiment, checkpoint):
    config = with_settings(experiment.config, {"inner.alpha_rate": 0.0})
    return diagnose(replace(experiment, config=config), checkpoint, TASKS)


def comparable(plain):
    """Without the machine's facts, whose commit changes while one works."""
    return plain | {"facts": {name: fact for name, fact in plain["facts"].items() if name != "environment"}}


def settled(experiment, **settings):
    return replace(experiment, config=with_settings(experiment.config, settings))


# What is measured


def test_alphas_that_do_not_move_leave_every_task_the_meta_learned_cell(still, meta):
    shown = still.architecture
    assert (shown.distinct, shown.commonest, shown.commonest_count) == (1, str(meta), TASKS)
    assert shown.meta == str(meta)
    assert shown.cells_from_meta == shown.cells_between == shown.alphas_moved == shown.alphas_between == ZERO
    assert shown.moved_over_between is None
    assert shown.adapted_share.mean == pytest.approx(shown.meta_share)
    assert still.control.alphas == still.control.cells == Contrast(ZERO, ZERO, ZERO)
    assert still.control.retrieval.rate == pytest.approx(still.control.retrieval.chance) == pytest.approx(1 / TASKS)
    assert still.verdict.startswith("No: the alphas do not move")


def test_alphas_that_do_not_move_make_every_swap_change_nothing_at_all(still):
    soft, discrete = still.per_task["soft"], still.per_task["discrete"]
    assert soft["own"] == soft["meta"] == soft["own_fixed"] == soft["other_fixed"]
    assert discrete["own"] == discrete["other"] == discrete["meta"]
    assert still.alphas_swapped == ZERO
    assert {v.name: v.difference for v in still.discrete}["other"] == ZERO


def test_alphas_that_move_give_tasks_cells_of_their_own(diagnosis):
    shown = diagnosis.architecture
    assert shown.distinct > 1
    assert shown.alphas_moved.low > 0
    assert shown.alphas_between.mean > 0
    assert shown.moved_over_between == pytest.approx(shown.alphas_moved.mean / shown.alphas_between.mean)
    assert shown.choices == 4
    assert 1 / 8 <= shown.meta_share < shown.adapted_share.mean < 1


def test_a_swap_gives_every_task_the_architecture_of_its_partner(experiment, checkpoint, meta, monkeypatch):
    asked, given, adapted = [], [], []
    real_cells, real_alphas, real_adapt = passes.with_choices, passes.with_fixed_alphas, passes.adapt_batch

    def cells(experiment, checkpoint, params, batch, choices):
        asked.extend(choices)
        return real_cells(experiment, checkpoint, params, batch, choices)

    def alphas(experiment, checkpoint, batch, tables):
        given.append(tables)
        return real_alphas(experiment, checkpoint, batch, tables)

    def adapt(experiment, checkpoint, batch):
        adapted.append(real_adapt(experiment, checkpoint, batch))
        return adapted[-1]

    for name, spy in (("with_choices", cells), ("with_fixed_alphas", alphas), ("adapt_batch", adapt)):
        monkeypatch.setattr(passes, name, spy)
    batch = held_out(experiment, "test").batch(0, 3)
    found = measure(experiment, checkpoint, batch, meta, Key(("random",)), first=7)
    assert found.partners == [8, 9, 7]
    own, other, same, random = (asked[3 * i : 3 * i + 3] for i in range(4))
    assert [cell for _, cell in own] == found.genotypes
    assert [cell for _, cell in other] == [found.genotypes[i] for i in (1, 2, 0)]
    assert found.genotypes[0] != found.genotypes[1]
    assert {cell for _, cell in same} == {meta}
    expected = [random_genotype(experiment.network.space, Key(("random",)).child(7 + i)).canonical() for i in range(3)]
    assert [cell for _, cell in random] == expected
    assert [task for task, _ in asked] == [0, 1, 2] * 4
    _, own_fixed, other_fixed, uniform = given
    for kind in ("normal", "reduce"):
        table = adapted[0][0][f"alphas.{kind}"]
        assert torch.equal(own_fixed[kind], table)
        assert torch.equal(other_fixed[kind], table[[1, 2, 0]])
        assert not uniform[kind].any()


def test_figures_can_be_made_again_from_the_lists_per_task(diagnosis):
    rows = diagnosis.per_task
    key = Key.from_seed(0).child("diagnosis", "discrete")
    arrays = {name: np.array([rows["discrete"][name]]) for name in DISCRETE}
    for variant in diagnosis.discrete:
        assert variant.accuracy == estimate(arrays[variant.name], key.child(variant.name))
        if variant.difference is not None:
            again = paired(arrays[variant.name], arrays["own"], key.child(variant.name, "less", "own"))
            assert variant.difference == again
    assert [variant.name for variant in diagnosis.soft] == list(SOFT)
    assert diagnosis.soft[0].difference is None
    control = diagnosis.control
    assert control.retrieval.rate == pytest.approx(np.mean(rows["retrieved"]))
    for distances, kind in ((control.alphas, "alphas"), (control.cells, "cells")):
        near, far = np.array(rows[f"{kind}_within"]), np.array(rows[f"{kind}_between"])
        assert distances.within.mean == pytest.approx(near.mean())
        assert distances.between.mean == pytest.approx(far.mean())
        assert distances.difference.mean == pytest.approx(far.mean() - near.mean())
    cells = [rows["genotypes"][number] for number in rows["genotype"]]
    assert len(set(cells)) == diagnosis.architecture.distinct
    assert len(rows["genotype_again"]) == len(rows["partner"]) == TASKS
    assert rows["partner"] == [1, 0, 3, 4, 2]


def test_the_same_run_twice_is_the_same_plain_json(experiment, checkpoint, diagnosis):
    told = []
    again = diagnose(experiment, checkpoint, TASKS, progress=lambda now: told.append((now.done, now.value)))
    plain = diagnosis.as_json()
    assert json.dumps(comparable(again.as_json())) == json.dumps(comparable(plain))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["format"] == "metadarts.diagnosis"
    assert plain["facts"]["episodes_sha256"] == held_out(experiment, "test").sha256(TASKS)
    assert [done for done, _ in told] == [2, 5]
    assert told[-1][1] == pytest.approx(diagnosis.soft[0].accuracy.mean)


def test_split_and_seed_choose_the_tasks(experiment, checkpoint, diagnosis):
    other = diagnose(experiment, checkpoint, 2, split="val", seed=3)
    assert (other.facts["split"], other.facts["seed"]) == ("val", 3)
    assert other.facts["episodes_sha256"] == held_out(experiment, "val", 3).sha256(2)


def test_a_task_that_left_the_finite_numbers_scores_0_and_has_no_architecture(experiment, checkpoint, meta):
    batch, start = (
        held_out(experiment, "test").batch(0, 4),
        shares_of({k: v[None] for k, v in meta_alphas(checkpoint)}, DEFAULT_RELAXATION),
    )
    clean = measure(experiment, checkpoint, batch, meta, Key(("random",)), 0)
    images = batch.support_images.clone()
    images[1] = torch.nan
    found = measure(experiment, checkpoint, replace(batch, support_images=images), meta, Key(("random",)), 0)
    assert found.finite.tolist() == [True, False, True, True]
    assert found.partners == [2, 2, 3, 0]
    for arrays, before in ((found.soft, clean.soft), (found.discrete, clean.discrete)):
        assert all(values[1] == 0 for name, values in arrays.items() if name not in ("meta", "uniform"))
        assert arrays["own"][[0, 2, 3]].tolist() == before["own"][[0, 2, 3]].tolist()
    shown = summarised(found, meta, start, Key(("bootstrap",)), {})
    assert shown.per_task["genotype"][1] is None
    assert shown.per_task["alphas_within"][1] is None
    assert None not in [shown.per_task["alphas_within"][i] for i in (0, 2, 3)]
    assert shown.per_task["discrete"]["own"][1] == 0
    assert shown.control.retrieval.chance == pytest.approx(1 / 3)
    assert json.loads(json.dumps(shown.as_json(), allow_nan=False)) == shown.as_json()


def meta_alphas(checkpoint):
    return alphas_of(checkpoint.params).items()


def test_too_few_finite_tasks_are_refused(experiment, checkpoint, monkeypatch):
    real = HeldOutTasks.batch

    def poisoned(self, first, last):
        batch = real(self, first, last)
        return replace(batch, support_images=torch.full_like(batch.support_images, torch.nan))

    monkeypatch.setattr(HeldOutTasks, "batch", poisoned)
    with pytest.raises(NumericsError, match=r"at least 2 tasks.*got 0 of 2; lower inner"):
        diagnose(experiment, checkpoint, 2)


def test_what_cannot_be_diagnosed_is_refused(experiment, checkpoint, meta):
    with pytest.raises(ConfigError, match="expected at least 2, whose architectures can be swapped, got 1"):
        diagnose(experiment, checkpoint, 1)
    with pytest.raises(ConfigError, match=r"as many queries per class as shots \(4\).*got 3; raise evaluate.queries"):
        diagnose(build(with_settings(experiment.config, {"tasks.shots": 4})), checkpoint, 2)
    with pytest.raises(ConfigError, match="expected the run of a supernet"):
        diagnose(*discretised(experiment, checkpoint, meta), 2)


# Passes


@pytest.mark.parametrize("size", range(1, 8))
def test_passes_cover_every_task_and_none_is_alone(size):
    for tasks in range(2, 40):
        cut = spans(tasks, size)
        assert [task for first, last in cut for task in range(first, last)] == list(range(tasks))
        assert min(last - first for first, last in cut) >= 2
        assert max(last - first for first, last in cut) <= max(size, 3)


def test_a_partner_is_the_next_finite_task_and_never_the_task_itself():
    assert partners_of([True] * 4) == [1, 2, 3, 0]
    assert partners_of([True, False, True, True]) == [2, 2, 3, 0]
    assert partners_of([True, False]) == [1, 0]
    for finite in itertools.product([True, False], repeat=4):
        assert all(partner != task for task, partner in enumerate(partners_of(finite)))


@pytest.mark.parametrize("shots", [1, 2])
def test_a_second_support_set_has_other_images_of_the_same_classes(experiment, shots):
    experiment = settled(experiment, **{"tasks.shots": shots})
    batch = held_out(experiment, "test").batch(0, 3)
    second = second_support(batch, shots)
    assert second.support_images.shape == batch.support_images.shape
    assert torch.equal(second.support_labels, batch.support_labels)
    assert bool(second.support_mask.all())
    plan = held_out(experiment, "test").sampler.plan(held_out(experiment, "test").key, 3)
    images = experiment.source.images
    for task in range(3):
        seen = set(plan.support_rows[task].ravel().tolist())
        drawn = plan.query_rows[task][:, :shots]
        assert seen.isdisjoint(drawn.ravel().tolist())
        expected = torch.from_numpy(images[drawn.ravel()]).float() / 255
        turns = [experiment.source.classes[number].quarter_turns for number in plan.classes[task]]
        for row, image in enumerate(second.support_images[task]):
            torch.testing.assert_close(image, torch.rot90(expected[row], turns[row // shots], (1, 2)))
        apart = (second.support_images[task][:, None] - batch.support_images[task][None]).abs().amax((2, 3, 4))
        assert bool((apart > 0).all())


def test_a_second_support_set_looks_at_labels_and_masks():
    """Queries in any order, some of them padding: the first of each class that count, in the order they have."""
    labels = torch.tensor([[1, 0, 1, 0, 1, 0]])
    mask = torch.tensor([[False, True, True, True, True, True]])
    queries = torch.arange(6.0).view(1, 6, 1, 1, 1)
    batch = TaskBatch(
        torch.full((1, 2, 1, 1, 1), -1.0), torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool),
        queries, labels * mask, mask, 2,
    )  # fmt: skip
    second = second_support(batch, 2)
    assert second.support_images.flatten().tolist() == [1, 3, 2, 4]
    assert second.support_labels.tolist() == [[0, 0, 1, 1]]
    assert torch.equal(second.query_images, queries)
    with pytest.raises(ConfigError, match=r"shots \(3\).*got 2"):
        second_support(batch, 3)


def test_cells_and_shares_are_those_of_the_runs_relaxation(tmp_path):
    """What `metadarts derive` names, and not the softmax's; shares are its scores, brought to a sum of 1."""
    experiment, checkpoint = relaxed(tmp_path, inner__alpha_rate=20.0, evaluate__steps=1)
    space, relaxation, alphas = experiment.network.space, experiment.network.relaxation, alphas_of(checkpoint.params)
    found = diagnose(experiment, checkpoint, 2)
    derived, plain = (derive_genotype(alphas, space, each).canonical() for each in (relaxation, DEFAULT_RELAXATION))
    assert found.architecture.meta == str(derived) != str(plain)
    adapted = adapt_batch(experiment, checkpoint, held_out(experiment, "test").batch(0, 2))[0]
    tasks = [{kind: table[task] for kind, table in alphas_of(adapted).items()} for task in range(2)]
    own = [str(derive_genotype(each, space, relaxation).canonical()) for each in tasks]
    assert [found.per_task["genotypes"][number] for number in found.per_task["genotype"]] == own
    scores = torch.cat([alphas[kind].double().sigmoid() for kind in ("normal", "reduce")])
    shares = scores / scores.sum(-1, keepdim=True)
    assert found.architecture.meta_share == pytest.approx(float(shares.amax(-1).mean()))


def test_edges_whose_candidates_all_score_0_have_even_shares():
    class Nothing(Softmax):
        def scores(self, alpha):
            return torch.zeros_like(alpha, dtype=torch.float64)

    assert shares_of({"normal": torch.randn(1, 2, 4)}, Nothing()).tolist() == [[[0.25] * 4] * 2]


@pytest.mark.parametrize("inputs_by", ["pairs", "edges"])
def test_alphas_for_inputs_are_refused_before_anything_is_measured(experiment, checkpoint, inputs_by, monkeypatch):
    network = experiment.network
    own = Network(network.spec, replace(network.space, inputs_by=inputs_by))
    monkeypatch.setattr("metadarts.papers.diagnosis.study.held_out", None)
    with pytest.raises(ConfigError, match=r"has alphas for inputs too: diagnose the run of a space whose inputs_by"):
        diagnose(replace(experiment, learner=replace(experiment.learner, network=own)), checkpoint, TASKS)


# Distances


def test_shares_and_their_distances_by_hand():
    alphas = {"normal": torch.tensor([[[0.0, 0.0]], [[0.0, 2000.0]]]), "reduce": torch.tensor([[[0.0, 0.0]]] * 2)}
    shares = shares_of(alphas, DEFAULT_RELAXATION)
    assert shares.tolist() == [[[0.5, 0.5], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]
    assert largest_shares(shares).tolist() == [0.5, 0.75]
    assert variations(shares, shares).tolist() == [[0.0, 0.25], [0.25, 0.0]]


def test_edits_are_genotype_distances():
    first, second = ([random_genotype(darts(2), Key(("cells",)).child(side, i)) for i in range(3)] for side in "ab")
    table = edits(first, second)
    assert table.tolist() == [[genotype_distance(a, b) for b in second] for a in first]
    assert table.max() > 0


def test_within_and_between_by_hand():
    table = np.array([[1.0, 5.0, 6.0], [7.0, 2.0, 8.0], [9.0, 10.0, 3.0]])
    assert within(table).tolist() == [1, 2, 3]
    assert between(table).tolist() == [(5 + 6 + 7 + 9) / 4, (7 + 8 + 5 + 10) / 4, (9 + 10 + 6 + 8) / 4]
    assert between(table).mean() == pytest.approx((5 + 6 + 7 + 8 + 9 + 10) / 6)


def test_the_interval_of_a_mean_over_pairs_is_that_of_redrawn_tasks():
    """One-dimensional tasks: the spread of the mean distance over many draws of 40 tasks, against one interval."""
    draw, widths, means = Key(("tests", "pairs")).numpy(), [], []
    for _ in range(150):
        places = draw.normal(size=40) ** 3
        per_task = between(np.abs(places[:, None] - places))
        means.append(per_task.mean())
        widths.append(pair_scores(per_task).std() / np.sqrt(40))
    assert np.mean(widths) == pytest.approx(np.std(means), rel=0.15)
    assert pair_scores(per_task).mean() == pytest.approx(per_task.mean())


def test_a_task_is_found_again_by_its_direction():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    assert retrieved(first, first * torch.tensor([[0.1], [9.0], [1.0]])).tolist() == [1, 1, 1]
    assert retrieved(first, first[[1, 0, 2]]).tolist() == [0, 0, 1]
    assert retrieved(torch.zeros(4, 2), torch.zeros(4, 2)).tolist() == [0.25] * 4
    assert retrieved(first[[0, 0, 2]], first[[0, 0, 2]]).tolist() == [0.5, 0.5, 1]


def test_directions_are_taken_from_the_meta_learned_alphas(meta):
    """Two tasks that move differently, the second one further: seen from elsewhere it would hide the first."""
    start = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    moves = torch.tensor([[[0.1, -0.1, 0.0]], [[0.3, -0.15, -0.15]]], dtype=torch.float64)
    rows = {name: np.array([0.5, 0.75]) for name in SOFT}, {name: np.array([0.5, 0.75]) for name in DISCRETE}
    cells = [meta, meta]
    found = passes.TaskResults(start + moves, start + moves / 2, cells, cells, np.array([True, True]), [1, 0], *rows)
    shown = summarised(found, meta, start, Key(("bootstrap",)), {})
    assert shown.per_task["retrieved"] == [1.0, 1.0]
    assert shown.per_task["alphas_moved"] == pytest.approx([0.1, 0.3])
    assert shown.per_task["alphas_within"] == pytest.approx([0.05, 0.15])


# The answer

DOWN, UP, WIDE, NARROW = Estimate(-0.03, -0.05, -0.01), Estimate(0.03, 0.01, 0.05), Estimate(0, -0.1, 0.1), ZERO
HALF = Estimate(0.002, -0.004, 0.006)
FOLLOWS = Contrast(Estimate(0.1, 0.1, 0.1), Estimate(0.2, 0.2, 0.2), Estimate(0.1, 0.05, 0.15))
DRAWN = Contrast(Estimate(0.2, 0.2, 0.2), Estimate(0.2, 0.2, 0.2), HALF)


def findings(cells=NARROW, alphas=NARROW, meta=NARROW, draws=FOLLOWS, finite=10, moved=0.1):
    return Evidence(10, finite, moved, cells, alphas, meta, draws)


@pytest.mark.parametrize(
    "given, begins, holds",
    [
        (findings(DOWN, meta=DOWN), "Yes: ", "-3.00 [-5.00, -1.00] points"),
        (findings(DOWN, meta=NARROW), "Only in part: ", "does as well"),
        (findings(DOWN, meta=UP), "Only in part: ", "does better"),
        (findings(DOWN, meta=DOWN, draws=DRAWN), "Only in part: ", "images drawn rather than their task"),
        (findings(HALF, alphas=DOWN), "Only as a mixture: ", "lost in the discrete cell"),
        (findings(HALF, alphas=DOWN, draws=DRAWN), "No: ", "no nearer to each other"),
        (findings(UP), "No: ", "even better"),
        (findings(HALF), "No: ", "+0.20 [-0.40, +0.60] points. Two draws of one task's images do"),
        (findings(HALF, draws=DRAWN), "No: ", "no nearer to each other than two tasks"),
        (findings(WIDE), "Not shown: ", "measure more tasks"),
        (findings(DOWN, meta=DOWN, finite=4), "Cannot say: ", "only 4 of 10 tasks"),
        (findings(DOWN, meta=DOWN, moved=0.0), "No: ", "do not move"),
    ],
)
def test_every_answer(given, begins, holds):
    answer = verdict(given)
    assert answer.startswith(begins)
    assert holds in answer


def test_yes_is_said_only_where_no_interval_holds_0():
    ends = [Estimate((low + high) / 2, low, high) for low, high in [(-2, -1), (-1, 0), (-1, 1), (0, 1), (1, 2)]]
    for cells, alphas, meta, apart in itertools.product(ends, repeat=4):
        answer = verdict(findings(cells, alphas, meta, Contrast(ZERO, ZERO, apart)))
        says_yes = cells.high < 0 and meta.high < 0 and apart.low > 0
        assert answer.startswith("Yes") == says_yes
        assert not says_yes or not any(part.contains(0.0) for part in (cells, meta, apart))


# The page, the picture, the verb


def test_the_page_begins_with_the_answer_and_fits(diagnosis):
    page, text = as_markdown(diagnosis), as_text(diagnosis)
    assert page.splitlines()[2] == f"**{diagnosis.verdict}**"
    assert "".join(text.split()).startswith("".join(diagnosis.verdict.split()))
    assert max(map(len, text.splitlines())) <= 100
    for variant in (*diagnosis.soft, *diagnosis.discrete):
        assert variant.meaning in text
        assert f"| {variant.meaning} |" in page
    assert f"{diagnosis.architecture.distinct} of {TASKS}" in page
    for line in page.splitlines():
        assert not line.startswith("|") or line.count("|") in (3, 4, 5)
    lost = replace(diagnosis, facts=diagnosis.facts | {"finite_tasks": TASKS - 1})
    assert "1 tasks left the finite numbers" in as_text(lost)


@pytest.mark.parametrize("suffix, magic", [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_picture_is_drawn(diagnosis, still, suffix, magic):
    for drawn in (diagnosis, still):
        picture = Picture(suffix)
        draw_diagnosis(drawn, picture)
        assert picture.getvalue().startswith(magic)


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="got none"):
        draw_ranges([], Picture())
    with pytest.raises(ConfigError, match="empty"):
        draw_ranges([Ranges("points", {})], Picture())


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", experiment.config, {})
    folder.save("best", experiment.fresh_state())
    return folder


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(verb)

    def called(*words):
        return CliRunner().invoke(app, [*map(str, words), "--device", "cpu", "--threads", "1", "--tasks", str(TASKS)])

    return called


def test_the_verb_writes_page_figures_and_picture(call, run, tmp_path, diagnosis):
    early = call(run.path)
    assert isinstance(early.exception, RunError)
    assert "search has not ended" in str(early.exception)
    run.write_json("finished.json", {})
    out = tmp_path / "deep" / "there"
    answer = call(run.path, "--out", out)
    assert answer.exit_code == 0, answer.output
    assert as_text(diagnosis) in answer.output
    written = json.loads((out / "diagnosis.json").read_text(encoding="utf-8"))
    assert comparable(written) == comparable(diagnosis.as_json())
    assert (out / "diagnosis.md").read_text(encoding="utf-8").startswith(as_markdown(diagnosis))
    assert (out / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert not (run.path / "diagnosis").exists()


def test_the_verb_measures_validation_tasks_into_the_run_folder(call, run):
    answer = call(run.path, "--split", "val")
    assert answer.exit_code == 0, answer.output
    names = {path.name for path in (run.path / "diagnosis").iterdir()}
    assert names == {"diagnosis.json", "diagnosis.md", "diagnosis.png"}


def test_the_verb_refuses_an_unknown_split_and_a_place_it_cannot_make(call, run, tmp_path):
    assert "expected val or test" in str(call(run.path, "--split", "train").exception)
    (tmp_path / "file").touch()
    assert "cannot write" in str(call(run.path, "--split", "val", "--out", tmp_path / "file" / "below").exception)
