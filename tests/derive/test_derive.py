"""The rule of DARTS on alphas worked by hand, and its inverse."""

import math

import pytest
import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import Stage
from metadarts.derive import (
    alpha_entropy,
    alpha_sharpness,
    count_skips,
    derive_genotype,
    genotype_distance,
    genotype_weights,
    sharpness,
    stability,
)
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype

TOY = SearchSpace("toy", ("none", "skip_connect", "avg_pool_3x3"), nodes=2, cell_types=("normal",))


def logs(rows: list[list[float]]) -> dict[str, Tensor]:
    """Alphas whose softmax is proportional to ``rows``."""
    return {"normal": torch.tensor(rows).log()}


def test_a_case_worked_by_hand() -> None:
    alphas = logs(
        [
            [0.1, 0.5, 0.4],  # 0 <- 0: skip at 0.5
            [0.1, 0.2, 0.7],  # 0 <- 1: pool at 0.7, so listed first
            [0.9, 0.06, 0.04],  # 1 <- 0: mostly none, so dropped
            [0.3, 0.3, 0.4],  # 1 <- 1: pool at 0.4
            [0.4, 0.35, 0.25],  # 1 <- 2: skip at 0.35 although none is larger
        ]
    )
    genotype = derive_genotype(alphas, TOY)
    assert genotype.normal == (("avg_pool_3x3", 1), ("skip_connect", 0), ("avg_pool_3x3", 1), ("skip_connect", 2))
    assert genotype.normal_concat == (2, 3)
    assert genotype.reduce == ()


def test_scores_are_weights_and_not_alphas() -> None:
    """The larger alpha of an edge loses when ``none`` takes most of that edge's weight."""
    alphas = {"normal": torch.zeros(5, 3)}
    alphas["normal"][2] = torch.tensor([9.0, 5.0, 0.0])
    assert [source for _, source in derive_genotype(alphas, TOY).normal[2:]] == [1, 2]


def test_ties_go_to_the_first() -> None:
    genotype = derive_genotype({"normal": torch.zeros(5, 3)}, TOY)
    assert genotype.normal == (("skip_connect", 0), ("skip_connect", 1)) * 2


def test_a_shift_of_an_edge_changes_nothing() -> None:
    generator = Key.from_seed(0).torch()
    alphas = {cell: torch.randn(14, 8, generator=generator).double() for cell in ("normal", "reduce")}
    shifted = {cell: alpha + 10 * torch.arange(14.0)[:, None] for cell, alpha in alphas.items()}
    assert derive_genotype(alphas, darts()) == derive_genotype(shifted, darts())


@pytest.mark.parametrize("seed", range(20))
def test_derivation_inverts_genotype_weights(seed: int) -> None:
    space = darts()
    genotype = random_genotype(space, Key.from_seed(seed))
    weights = genotype_weights(genotype, space)
    assert derive_genotype(weights, space).canonical() == genotype.canonical()
    for weight in weights.values():
        assert weight.shape == space.alpha_shape
        assert set(weight.unique().tolist()) == {0.0, 1.0}
        assert weight.sum() == 8


def test_weights_take_a_dtype_and_refuse_strangers() -> None:
    genotype = random_genotype(darts(), Key.from_seed(0))
    assert genotype_weights(genotype, darts(), dtype=torch.float64)["normal"].dtype == torch.float64
    with pytest.raises(GenotypeError, match="not a genotype of space 'toy'"):
        genotype_weights(genotype, TOY)


def test_gradients_are_left_alone() -> None:
    alphas = {cell: torch.zeros(14, 8, requires_grad=True) for cell in ("normal", "reduce")}
    derive_genotype(alphas, darts())
    assert alpha_entropy(alphas)["normal"] == pytest.approx(math.log(8))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_alphas_are_refused(bad: float) -> None:
    alphas = {"normal": torch.zeros(5, 3)}
    alphas["normal"][0, 0] = bad
    with pytest.raises(NumericsError, match="1 of 15 NaN or infinite"):
        derive_genotype(alphas, TOY)
    with pytest.raises(NumericsError):
        alpha_entropy(alphas)


@pytest.mark.parametrize("shape", [(14, 7), (8, 14), (2, 14, 8), (112,)], ids=str)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GenotypeError, match=r"expected shape \(14, 8\)"):
        derive_genotype({"normal": torch.zeros(14, 8), "reduce": torch.zeros(shape)}, darts())


def test_cell_types_must_match() -> None:
    with pytest.raises(GenotypeError, match="missing for decisions"):
        derive_genotype({"normal": torch.zeros(14, 8)}, darts())
    with pytest.raises(GenotypeError, match="did you mean 'reduce'"):
        derive_genotype({"normal": torch.zeros(14, 8), "redcue": torch.zeros(14, 8)}, darts())


def test_distance() -> None:
    one = Genotype((("skip_connect", 0), ("max_pool_3x3", 1)), (2,), (), ())
    swapped = Genotype((("max_pool_3x3", 1), ("skip_connect", 0)), (2,), (), ())
    other = Genotype((("skip_connect", 0), ("sep_conv_3x3", 1)), (2,), (), ())
    assert genotype_distance(one, swapped) == 0
    assert genotype_distance(one, other) == genotype_distance(other, one) == 1
    pair = [random_genotype(darts(), Key.from_seed(seed)) for seed in (1, 2)]
    assert 0 < genotype_distance(*pair) == genotype_distance(*reversed(pair)) <= 16
    with pytest.raises(GenotypeError, match="cannot compare"):
        genotype_distance(one, pair[0])


def test_entropy_and_skips() -> None:
    alphas = {"normal": torch.zeros(3, 14, 8), "reduce": torch.zeros(14, 8)}
    alphas["reduce"][:, 2] = 1e4
    assert alpha_entropy(alphas) == pytest.approx({"normal": math.log(8), "reduce": 0.0})
    genotype = Genotype(
        (("skip_connect", 0), ("max_pool_3x3", 1)), (2,), (("skip_connect", 0), ("skip_connect", 1)), (2,)
    )
    assert count_skips(genotype) == {"normal": 1, "reduce": 2}


def test_sharpness_worked_by_hand() -> None:
    """Rows that need not sum to 1; the second candidate counts for the margin, not the mean of the others."""
    found = sharpness(torch.tensor([[0.2, 1.0, 0.8], [0.0, 0.0, 3.0]], dtype=torch.float64))
    entropy = -(0.1 * math.log(0.1) + 0.5 * math.log(0.5) + 0.4 * math.log(0.4)) / 2
    assert found == pytest.approx((entropy, (0.5 + 1.0) / 2, (0.1 + 1.0) / 2))


def test_even_rows_rows_of_zeros_and_single_candidates() -> None:
    assert sharpness(torch.ones(2, 5, 4)) == pytest.approx((math.log(4), 0.25, 0.0))
    assert sharpness(torch.zeros(2, 4)) == pytest.approx((math.log(4), 0.25, 0.0))
    assert sharpness(torch.full((2, 1), 0.3)) == pytest.approx((0.0, 1.0, 1.0))


def test_an_annealed_run_shows_its_entropy_fall_to_that_of_its_scores() -> None:
    relaxation = RELAXATIONS["annealed"](end=0.05, begin=0.25, finish=0.75)
    alphas = {"normal": torch.randn(14, 8, generator=Key.from_seed(0).torch())}
    in_use = [alpha_sharpness(alphas, relaxation, Stage(2, 2, at))["normal"] for at in (0.0, 0.25, 0.4, 0.6, 0.75, 1.0)]
    entropies, shares, margins = zip(*in_use, strict=True)
    assert entropies[0] == entropies[1] == pytest.approx(alpha_entropy(alphas)["normal"])
    assert entropies[1] > entropies[2] > entropies[3] > entropies[4] == entropies[5]
    assert shares[1] < shares[2] < shares[3] < shares[4]
    assert margins[1] < margins[2] < margins[3] < margins[4]
    assert in_use[-1] == pytest.approx(alpha_sharpness(alphas, relaxation)["normal"])


def test_stability_is_the_share_of_choices_that_stayed() -> None:
    one = Genotype((("skip_connect", 0), ("max_pool_3x3", 1)), (2,), (("skip_connect", 0), ("skip_connect", 1)), (2,))
    other = Genotype((("max_pool_3x3", 1), ("sep_conv_3x3", 0)), (2,), (("skip_connect", 0), ("skip_connect", 1)), (2,))
    assert stability(one, one) == 1.0
    assert stability(one, other) == stability(other, one) == 0.75


def test_one_edge_per_node_keeps_the_best_edge() -> None:
    space = SearchSpace("chain", ("none", "skip_connect", "avg_pool_3x3"), 2, 1, ("normal",), edges_per_node=1)
    alphas = logs([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.1, 0.05, 0.85]])
    genotype = derive_genotype(alphas, space)
    genotype.validate(space)
    assert genotype.normal == (("avg_pool_3x3", 0), ("avg_pool_3x3", 1))
    weights = genotype_weights(genotype, space)["normal"]
    assert weights.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert derive_genotype({"normal": weights}, space) == genotype
