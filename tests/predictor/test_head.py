"""The head is a distribution over the architectures of a space, counted one by one."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch

from metadarts.core.errors import GenotypeError
from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.predictor.head import ArchitectureHead, Choices, Prediction, choices_of, edge_sets, of_alphas
from metadarts.relaxations import Softmax
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype

SMALL = SearchSpace("small", ("none", "skip_connect", "max_pool_3x3"), nodes=2, cell_types=("normal",))
BOTH = SearchSpace("both", ("skip_connect", "none", "max_pool_3x3"), nodes=1)


def every(space: SearchSpace) -> list[Genotype]:
    """All genotypes of a small space."""
    cells = []
    for sets in product(*(combinations(range(space.inputs + node), 2) for node in range(space.nodes))):
        sources = [source for chosen in sets for source in chosen]
        for operations in product(space.operations, repeat=len(sources)):
            cells.append(tuple(zip(operations, sources, strict=True)))
    others = cells if "reduce" in space.cell_types else [()]
    concat = space.concat if "reduce" in space.cell_types else ()
    return [Genotype(a, space.concat, b, concat) for a in cells for b in others]


def drawn(space: SearchSpace, tasks: int, seed: int = 0) -> Prediction:
    draw = Key.from_seed(seed).torch()
    edges, primitives = space.alpha_shape

    def tables(*shape: int) -> dict[str, torch.Tensor]:
        return {cell: torch.randn(tasks, *shape, generator=draw, dtype=torch.float64) for cell in space.cell_types}

    return Prediction(space, tables(edges, primitives), tables(edges, primitives), tables(edges))


@pytest.mark.parametrize("space", [SMALL, BOTH], ids=lambda space: space.name)
def test_probabilities_of_all_architectures_add_up_to_one(space):
    prediction, cells = drawn(space, 3), every(space)
    assert len(cells) == space.genotype_count()
    for task in range(3):
        logs = prediction.log_likelihood(choices_of(cells, space, [task] * len(cells)))
        assert float(logs.exp().sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("space", [SMALL, BOTH], ids=lambda space: space.name)
def test_the_most_probable_architecture_is_the_likeliest_of_all(space):
    prediction, cells = drawn(space, 4, seed=1), every(space)
    for task, named in enumerate(prediction.genotypes()):
        logs = prediction.log_likelihood(choices_of(cells, space, [task] * len(cells)))
        assert cells[int(logs.argmax())].canonical() == named


def test_the_order_of_a_nodes_pairs_does_not_matter():
    prediction, space = drawn(SMALL, 1), SMALL
    one = Genotype([("skip_connect", 0), ("max_pool_3x3", 1)] * 2, space.concat, [], [])
    other = Genotype([("max_pool_3x3", 1), ("skip_connect", 0)] * 2, space.concat, [], [])
    assert torch.equal(*(prediction.log_likelihood(choices_of([cell], space)) for cell in (one, other)))


def test_alphas_as_a_distribution_have_the_cell_that_darts_derives():
    space, draw = darts(3), Key.from_seed(3).torch()
    alphas = {cell: torch.randn(20, *space.alpha_shape, generator=draw) for cell in space.cell_types}
    derived = [
        derive_genotype({cell: table[task] for cell, table in alphas.items()}, space).canonical() for task in range(20)
    ]
    assert of_alphas(alphas, space).genotypes() == derived


def test_alphas_under_another_relaxation_have_the_cell_that_it_derives():
    class Sigmoid(Softmax):
        def scores(self, alpha):
            return alpha.double().sigmoid()

    space, draw = darts(3), Key.from_seed(3).torch()
    alphas = {cell: torch.randn(20, *space.alpha_shape, generator=draw) for cell in space.cell_types}
    alphas["normal"][0, 0] = -2000.0  # scores of 0
    tasks = [{cell: table[task] for cell, table in alphas.items()} for task in range(20)]
    derived = [derive_genotype(own, space, Sigmoid()).canonical() for own in tasks]
    assert derived != [derive_genotype(own, space).canonical() for own in tasks]
    said = of_alphas(alphas, space, Sigmoid())
    assert said.genotypes() == derived
    assert bool(torch.isfinite(said.log_likelihood(choices_of(derived, space))).all())


def test_the_gradient_of_a_likelihood_is_true():
    space, cells = BOTH, every(BOTH)[:5]
    chosen = choices_of(cells, space, [0, 1, 0, 1, 1])
    chosen = Choices(chosen.rows, {c: t.double() for c, t in chosen.kept.items()}, chosen.operations, chosen.sets)
    start = drawn(space, 2)
    tensors = [start.operations["normal"], start.edges["normal"], start.operations["reduce"], start.edges["reduce"]]

    def likelihood(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        said = Prediction(space, start.alphas, {"normal": a, "reduce": c}, {"normal": b, "reduce": d})
        return said.log_likelihood(chosen)

    assert torch.autograd.gradcheck(likelihood, [tensor.requires_grad_() for tensor in tensors])


def test_before_learning_every_task_is_told_what_was_seen_of_all():
    space, key = darts(2), Key.from_seed(0)
    cells = [random_genotype(space, key.child(number)) for number in range(50)]
    head = ArchitectureHead(space, 4)
    alphas = {cell: torch.randn(50, *space.alpha_shape, generator=key.torch()) for cell in space.cell_types}
    head.centre(alphas, [choices_of(cells[:20], space), choices_of(cells[20:], space)])
    said = head(torch.randn(2, 4, generator=key.torch()))
    for cell in space.cell_types:
        torch.testing.assert_close(said.alphas[cell][1], alphas[cell].mean(0))
        # The last node has 3 edges and keeps 2, so that scores can have any probabilities of its 3 sets: those seen.
        seen = torch.bincount(choices_of(cells, space).sets[cell][:, 1], minlength=3) + 1.0
        torch.testing.assert_close(said.log_sets(cell, 1)[0].exp(), seen / seen.sum(), atol=1e-4, rtol=1e-3)
    overall = head.overall(2)
    assert torch.equal(
        said.log_likelihood(choices_of(cells[:2], space)), overall.log_likelihood(choices_of(cells[:2], space))
    )
    spread = torch.cat([table.flatten() for table in head.standardised(alphas).values()])
    assert float(spread.square().mean()) == pytest.approx(1.0, rel=1e-4)


def test_a_genotype_of_another_space_is_refused():
    with pytest.raises(GenotypeError, match="sep_conv_3x3"):
        choices_of([Genotype([("sep_conv_3x3", 0), ("skip_connect", 1)] * 2, [2, 3], [], [])], SMALL)
    with pytest.raises(GenotypeError, match="at least one genotype"):
        choices_of([], SMALL)


def test_sets_of_edges_are_all_pairs_of_a_nodes_inputs():
    first, sets = edge_sets(darts(4), 3)
    assert (first, tuple(sets.shape)) == (9, (10, 5))
    assert sets.sum(1).tolist() == [2.0] * 10
    assert len({tuple(row) for row in sets.tolist()}) == 10
