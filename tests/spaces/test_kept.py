"""What is left of a space while a search drops candidates."""

from __future__ import annotations

import pytest

from metadarts.spaces import Kept, SearchSpace, decode

KINDS = {
    "rule": SearchSpace("s", ("none", "a", "b"), 3),
    "pairs": SearchSpace("s", ("a", "b", "c"), 3, inputs_by="pairs"),
    "edges": SearchSpace("s", ("none", "a", "b"), 3, inputs_by="edges"),
    "one edge": SearchSpace("s", ("none", "a"), 1, inputs=1, edges_per_node=1, cell_types=("normal",)),
}


def scores_of(space):
    """Distinct numbers; ``none``, where it is, scores best."""
    rows = {}
    for at, decision in enumerate(space.decisions):
        wide = range(len(decision.candidates))
        table = [[((7 * row + 3 * k + at) % 11) / 12 for k in wide] for row in range(decision.rows)]
        if space.none in decision.candidates:
            for row in table:
                row[decision.candidates.index(space.none)] = 0.99
        rows[decision.name] = table
    return rows


@pytest.mark.parametrize("space", KINDS.values(), ids=KINDS)
def test_what_is_best_derives_to_the_same_cell(space):
    scores = scores_of(space)
    best = Kept.everything(space).best(space, scores)
    left = best.named(space)
    masked = {
        name: [
            [score if there else 0.0 for score, there in zip(*row, strict=True)]
            for row in zip(rows, left[name], strict=True)
        ]
        for name, rows in scores.items()
    }
    assert decode(space, masked) == decode(space, scores)


@pytest.mark.parametrize("space", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("least", [0.0, 0.3, 0.999])
def test_dropping_keeps_what_weighs_enough_and_what_derivation_needs(space, least):
    scores, everything = scores_of(space), Kept.everything(space)
    left, best = everything.without(space, scores, least), everything.best(space, scores)
    for name, rows in left.named(space).items():
        for row, needed, weights in zip(rows, best.named(space)[name], scores[name], strict=True):
            assert list(row) == [weight >= least or need for weight, need in zip(weights, needed, strict=True)]
    assert left.without(space, scores, least) == left
    assert left.is_all or least > 0.0


def test_an_edge_that_no_set_of_inputs_has_does_not_run():
    space = KINDS["pairs"]
    everything = Kept.everything(space)
    named = {name: [list(row) for row in rows] for name, rows in everything.named(space).items()}
    named["normal.inputs1"] = [[True, False, False]]  # of 0+1, 0+2, 1+2
    edges = Kept.of(space, named).edges(space, "normal")
    assert (1, 2) not in edges["a"]
    assert {(1, 0), (1, 1), (2, 2)} <= set(edges["a"])
    assert (1, 2) in everything.edges(space, "normal")["a"]


def test_best_operations_leave_the_inputs_alone():
    space = KINDS["pairs"]
    found = Kept.everything(space).best_operations(space, scores_of(space)).named(space)
    assert all(sum(row) == 1 for row in found["normal"])
    assert all(all(found[f"normal.inputs{node}"][0]) for node in range(3))
