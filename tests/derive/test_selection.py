"""Selection rules on accuracies that are made by hand, so that the right cell is known."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.derive import SELECTIONS, Searched, derive_genotype, genotype_weights
from metadarts.derive.rules._cells import DRAWS, crossed, distinct, draw_by_scores, mutated
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import Genotype, SearchSpace, darts, decode, random_genotype
from metadarts.testing import AdditiveJudge, check_selection, searched_at
from metadarts.testing.selections import SPACES

KEY = Key(("tests", "selection"))
SMALL = SearchSpace("small", ("none", "skip_connect", "avg_pool_3x3", "max_pool_3x3"), 2, cell_types=("normal",))
JUDGED = ("perturbation", "sampled", "evolution")
SEARCHING = {"perturbation": {}, "sampled": {"cells": 10**6}, "evolution": {"generations": 30}}


def uniform(space: SearchSpace) -> Searched:
    """Alphas that say nothing."""
    return searched_at(space, {d.name: torch.zeros(d.shape, dtype=torch.float64) for d in space.decisions})


def drawn(space: SearchSpace, key: Key = KEY) -> Searched:
    found = {}
    for decision in space.decisions:
        generator = key.child(space.name, decision.name).torch()
        found[decision.name] = torch.randn(decision.shape, dtype=torch.float64, generator=generator)
    return searched_at(space, found)


def worth_of(space: SearchSpace, seed: int) -> dict[str, torch.Tensor]:
    """Of every operation on every edge; that of ``none`` is the highest, and no rule may fall for it."""
    worth = {}
    for cell in space.cell_types:
        generator = KEY.child("worth", seed, cell).torch()
        worth[cell] = 0.9 * torch.rand(space.alpha_shape, dtype=torch.float64, generator=generator)
        if space.none in space.primitives:
            worth[cell][:, space.primitives.index(space.none)] = 1.0
    return worth


def optimum(space: SearchSpace, worth: dict[str, torch.Tensor]) -> Genotype:
    """Every edge's best operation, every node's best edges: the sum has no other maximum."""
    ranked = dataclasses.replace(space, inputs_by="rule")
    return decode(ranked, {cell: table.tolist() for cell, table in worth.items()}).canonical()


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_rule_conforms(name):
    check_selection(SELECTIONS[name]())


@pytest.mark.parametrize("options", [{"cells": 5, "by": "scores"}, {"cells": 500}], ids=str)
def test_every_way_to_sample_conforms(options):
    check_selection(SELECTIONS["sampled"](**options))


def test_the_table_says_what_there_is():
    assert list(SELECTIONS) == ["argmax", "evolution", "perturbation", "sampled", "threshold"]
    with pytest.raises(ConfigError, match="unknown selection rule 'perturb': did you mean 'perturbation'"):
        SELECTIONS["perturb"]


@pytest.mark.parametrize("space", [*SPACES, darts()], ids=lambda space: space.name)
def test_argmax_is_the_rule_of_derivation(space):
    known = drawn(space)
    found = SELECTIONS["argmax"]().select(known, None, KEY)
    assert found.genotype == derive_genotype(known.alphas, space, known.relaxation)
    assert repr(found.genotype) == repr(derive_genotype(known.alphas, space, known.relaxation)), "in the same order"
    assert found.notes == ()


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("seed", range(3))
def test_rules_by_accuracy_find_the_best_cell(name, seed):
    worth = worth_of(SMALL, seed)
    found = SELECTIONS[name](**SEARCHING[name]).select(uniform(SMALL), AdditiveJudge(worth), KEY.child(seed))
    assert found.genotype.canonical() == optimum(SMALL, worth)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("renormalise", [True, False])
def test_perturbation_finds_the_best_cell_of_every_kind_of_space(space, renormalise):
    worth = worth_of(space, 7)
    rule, judge = SELECTIONS["perturbation"](renormalise=renormalise), AdditiveJudge(worth)
    assert rule.select(uniform(space), judge, KEY).genotype.canonical() == optimum(space, worth)
    assert len(judge.seen) == rule.judged(space)


def test_perturbation_takes_one_operation_away_and_brings_the_rest_to_the_same_sum():
    known, judge = drawn(SMALL), AdditiveJudge(worth_of(SMALL, 0))
    SELECTIONS["perturbation"]().select(known, judge, KEY)
    before = known.mixing["normal"]
    first = judge.seen[0]["normal"]
    (edge,) = [row for row in range(len(before)) if not torch.equal(first[row], before[row])]
    for column, candidate in enumerate(judge.seen[:3], start=1):
        masked = known.alphas["normal"][edge].clone()
        masked[column] = -torch.inf
        torch.testing.assert_close(candidate["normal"][edge], masked.softmax(-1))
        others = [row for row in range(len(before)) if row != edge]
        assert torch.equal(candidate["normal"][others], before[others])


def test_perturbation_without_renormalisation_leaves_the_others_as_they_were():
    known, judge = drawn(SMALL), AdditiveJudge(worth_of(SMALL, 0))
    SELECTIONS["perturbation"](renormalise=False).select(known, judge, KEY)
    for column, candidate in enumerate(judge.seen[:3], start=1):
        changed = (candidate["normal"] != known.mixing["normal"]).nonzero().tolist()
        assert [place[1] for place in changed] == [column]
        assert float(candidate["normal"][tuple(changed[0])]) == 0.0


def test_renormalisation_decides_where_weights_differ():
    """The heavier operation is the worse one: without it the rest is better, but only once it is brought to its sum."""
    space = SearchSpace("two", ("skip_connect", "avg_pool_3x3"), 1, 1, ("normal",), edges_per_node=1)
    worth, table = {"normal": torch.tensor([[0.5, 0.6]])}, torch.tensor([[0.7, 0.3]])
    known = Searched(space, {"normal": table.log()}, RELAXATIONS["softmax"](), {"normal": table})
    kept = {
        renormalise: SELECTIONS["perturbation"](renormalise=renormalise).select(known, AdditiveJudge(worth), KEY)
        for renormalise in (True, False)
    }
    assert kept[True].genotype.normal == (("avg_pool_3x3", 0),)
    assert kept[False].genotype.normal == (("skip_connect", 0),)


@pytest.mark.parametrize("inputs_by", ["rule", "pairs", "edges"])
def test_decided_edges_stay_decided_and_nodes_come_last(inputs_by):
    space = SearchSpace("space", SMALL.primitives, 3, inputs_by=inputs_by)
    known, judge = drawn(space), AdditiveJudge(worth_of(space, 1))
    SELECTIONS["perturbation"]().select(known, judge, KEY)
    operations = 2 * space.num_edges * 3
    for number, candidate in enumerate(judge.seen):
        decided = sum(int((table != 0).sum(-1).le(1).sum()) for table in candidate.values())
        assert decided >= (number // 3 if number < operations else 2 * space.num_edges)
    for candidate in judge.seen[operations:]:
        assert all(int((table != 0).sum(-1).max()) == 1 for table in candidate.values())


def test_of_equals_perturbation_keeps_what_weighs_most():
    known = drawn(SMALL)
    found = SELECTIONS["perturbation"]().select(known, lambda candidates: [0.5] * len(candidates), KEY)
    best = known.mixing["normal"][:, 1:].argmax(-1) + 1
    for node, source, operation in found.genotype.choices("normal"):
        assert operation == SMALL.primitives[int(best[SMALL.edge_index(node, source)])]


def test_a_sigmoid_edge_is_decided_at_weight_one():
    alphas = {"normal": torch.zeros(SMALL.alpha_shape)}
    known = Searched(SMALL, alphas, RELAXATIONS["sigmoid"](), {"normal": alphas["normal"].sigmoid()})
    judge = AdditiveJudge(worth_of(SMALL, 0))
    SELECTIONS["perturbation"]().select(known, judge, KEY)
    assert float(judge.seen[-1]["normal"].max()) == 1.0


def test_a_threshold_that_all_pass_says_nothing():
    alphas = {"normal": torch.full(SMALL.alpha_shape, 3.0)}
    assert SELECTIONS["threshold"]().select(searched_at(SMALL, alphas), None, KEY).notes == ()


def test_the_best_below_the_threshold_fill_up_and_are_named():
    alphas = {"normal": torch.full(SMALL.alpha_shape, -4.0)}
    alphas["normal"][0, 2], alphas["normal"][4, 1], alphas["normal"][3, 3] = 3.0, 3.0, 1.0
    alphas["normal"][:, 0] = 5.0  # none
    found = SELECTIONS["threshold"]().select(searched_at(SMALL, alphas), None, KEY)
    pairs = (("avg_pool_3x3", 0), ("skip_connect", 1), ("skip_connect", 2), ("max_pool_3x3", 1))
    assert found.genotype.normal == pairs
    assert found.notes == (
        "2 of 4 edges are below 0.85 and only fill up: normal 1 -> 2 skip_connect (0.02), "
        "normal 1 -> 3 max_pool_3x3 (0.73)",
    )


def test_the_threshold_reads_sigmoids_and_not_shares():
    """The softmax of the first edge is nearly even, yet its candidates are the largest."""
    alphas = {"normal": torch.zeros(SMALL.alpha_shape)}
    alphas["normal"][2], alphas["normal"][3, 1], alphas["normal"][4, 1] = 2.0, 1.5, 1.0
    known = searched_at(SMALL, alphas)
    assert [source for _, source in SELECTIONS["threshold"]().select(known, None, KEY).genotype.normal[2:]] == [0, 1]
    assert [source for _, source in SELECTIONS["argmax"]().select(known, None, KEY).genotype.normal[2:]] == [1, 2]


@pytest.mark.parametrize("name", ["sampled", "evolution"])
def test_no_cell_is_judged_twice(name):
    judge = AdditiveJudge(worth_of(SMALL, 0))
    SELECTIONS[name](**SEARCHING[name]).select(uniform(SMALL), judge, KEY)
    assert len({tuple(own["normal"].flatten().tolist()) for own in judge.seen}) == len(judge.seen)
    if name == "sampled":
        assert len(judge.seen) == SMALL.genotype_count() == 243


@pytest.mark.parametrize("name", JUDGED)
def test_another_key_draws_others(name):
    seen = []
    for seed in range(2):
        judge = AdditiveJudge(worth_of(SMALL, 0))
        options = {} if name == "perturbation" else {"sampled": {"cells": 5}, "evolution": {"generations": 1}}[name]
        SELECTIONS[name](**options).select(drawn(SMALL), judge, KEY.child(seed))
        seen.append([own["normal"].tolist() for own in judge.seen])
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", JUDGED)
def test_a_rule_by_accuracy_asks_for_a_judge(name):
    with pytest.raises(ConfigError, match="expected a judge, got None"):
        SELECTIONS[name]().select(uniform(SMALL), None, KEY)


def test_cells_are_drawn_in_proportion_to_their_scores():
    space = SearchSpace("two", ("none", "skip_connect", "avg_pool_3x3"), 1, 3, ("normal",), edges_per_node=1)
    shares = torch.tensor([[0.7, 0.1, 0.2], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0]], dtype=torch.float64)
    known = Searched(space, {"normal": shares.log()}, RELAXATIONS["softmax"](), {"normal": shares})
    counts = Counter(draw_by_scores(known, KEY.child(number)).normal[0] for number in range(4000))
    for source, row in enumerate(shares[:, 1:]):
        for name, share in zip(space.operations, row.tolist(), strict=True):
            assert counts[name, source] == pytest.approx(4000 * share, abs=130), "four standard deviations"
    assert counts["avg_pool_3x3", 2] == 0


@pytest.mark.parametrize("inputs_by", ["pairs", "edges"])
def test_inputs_are_drawn_by_their_own_alphas(inputs_by):
    space = SearchSpace("inputs", SMALL.primitives, 2, cell_types=("normal",), inputs_by=inputs_by)
    alphas = {d.name: torch.zeros(d.shape, dtype=torch.float64) for d in space.decisions}
    alphas["normal.inputs1"][0] = torch.tensor([0.0, -60.0, -60.0] if inputs_by == "pairs" else [0.0, 0.0, -60.0])
    known = searched_at(space, alphas)
    cells = [draw_by_scores(known, KEY.child(number)).canonical() for number in range(50)]
    assert {tuple(source for _, source in cell.normal[2:]) for cell in cells} == {(0, 1)}
    assert len(set(cells)) > 30, "operations are still drawn"


def test_where_there_are_fewer_cells_all_are_found():
    one = random_genotype(SMALL, KEY)
    assert distinct(lambda key: one, 3, KEY) == [one.canonical()]
    assert DRAWS >= 100


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_children_are_cells_of_the_space(space):
    one, other = (random_genotype(space, KEY.child(seed)).canonical() for seed in range(2))
    for number in range(30):
        child = mutated(space, one, KEY.child(number))
        child.validate(space)
        changed = [(a != b).sum() for a, b in zip(tables(child, space), tables(one, space), strict=True)]
        assert sum(map(int, changed)) in ((0, 2) if len(space.operations) == 1 else (2,)), "one edge, here and there"
        mixed = crossed(space, one, other, KEY.child(number))
        mixed.validate(space)
        for kind in space.cell_types:
            assert set(mixed.choices(kind)) <= set(one.choices(kind)) | set(other.choices(kind))


def tables(genotype: Genotype, space: SearchSpace) -> list[torch.Tensor]:
    return list(genotype_weights(genotype, space).values())


def test_mutations_reach_every_neighbour():
    cell = random_genotype(SMALL, KEY).canonical()
    reached = {mutated(SMALL, cell, KEY.child(number)) for number in range(600)}
    # Two other operations on each of four edges; node 1 has one input that it does not read, node 0 has none.
    assert len(reached) == 4 * 2 + 2


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("threshold", {"least": 1.5}, "least: expected a number from 0 to 1, got 1.5"),
        ("sampled", {"cells": 0}, "cells: expected at least 1, got 0"),
        ("sampled", {"by": "score"}, "by 'score' is unknown; did you mean 'scores'"),
        ("evolution", {"population": 0}, "population: expected at least 1, got 0"),
        ("evolution", {"generations": -1}, "generations: expected at least 0, got -1"),
        ("evolution", {"crossover": 2.0}, "crossover: expected 0 to 1, got 2.0"),
    ],
)
def test_options_out_of_range_are_refused(name, options, said):
    with pytest.raises(ConfigError, match=said):
        SELECTIONS[name](**options)
