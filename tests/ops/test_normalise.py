"""Batch normalisation under weighted statistics against its definition; a third derivative is refused, never wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.rng import Key
from metadarts.ops import normalise
from metadarts.ops.normalise.reference import normalise as reference
from metadarts.testing import OpCase, check_close, check_op


def shares(*rows: list[float]) -> torch.Tensor:
    """[channels, N] counts -> [N, channels] shares that sum to 1 over n."""
    counts = torch.tensor(rows, dtype=torch.float64).T
    return counts / counts.sum(0)


def case(what: str, image: tuple[int, ...], rows: torch.Tensor | None = None, **options: float) -> OpCase:
    return OpCase(what, {"x": image}, {} if rows is None else {"rows": rows}, options)


CASES = [
    case("uniform, odd sizes", (3, 5, 3, 2)),
    case("uniform, one channel", (2, 3, 4, 1)),
    case("uniform, one image", (1, 3, 4, 3)),
    case("uniform, one pixel per image", (5, 1, 1, 3)),
    case("two values per channel, the fewest", (2, 1, 1, 2)),
    case("a large eps that shows in the result", (2, 3, 2, 2), eps=0.7),
    case("weights: equal, as when uniform", (2, 3, 2, 2), shares([1, 1], [1, 1])),
    case("weights: unequal, own ones per channel", (3, 2, 3, 2), shares([1, 2, 3], [5, 1, 1])),
    case(
        "weights: zero rows, as padding and queries are", (4, 2, 2, 3), shares([1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1])
    ),
    case("weights: a single image counts", (3, 2, 3, 2), shares([1, 0, 0], [0, 0, 1])),
    case("weights and a large eps", (2, 2, 3, 2), shares([2, 1], [1, 0]), eps=0.7),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_normalise_equals_its_reference_to_second_order(case):
    check_op(normalise, reference, [case])


def test_reference_is_torchs_batch_norm():
    x = draw(3, 4, 5, 2)
    expected = F.batch_norm(x.permute(0, 3, 1, 2), None, None, training=True).permute(0, 2, 3, 1)
    check_close("y", reference(x), expected, 1e-13)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("normalise", str(shape))).torch())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_width_inputs_keep_float32_statistics(dtype):
    """Of numbers around 100 with spread 1, statistics in half width would not leave one right digit."""
    x = (100.0 + draw(8, 6, 6, 2)).to(dtype)
    rows = torch.full((8, 2), 1 / 8)
    y = normalise(x, rows)
    assert y.dtype == dtype
    check_close("y", y, reference(x.double(), rows.double()), 2e-2)


def test_rows_of_weight_zero_are_normalised_but_do_not_count():
    x = draw(4, 3, 2, 2)
    rows = shares([1, 1, 0, 0], [1, 1, 0, 0])
    both = normalise(x, rows)
    check_close("counted rows", both[:2], normalise(x[:2]), 1e-13)
    changed = torch.cat([x[:3], 1e3 * x[3:]])
    assert torch.equal(normalise(changed, rows)[:3], both[:3])
    check_close(
        "the changed row",
        normalise(changed, rows)[3] - both[3],
        999 * x[3] / (x[:2].var((0, 1, 2), correction=0) + 1e-5).sqrt(),
        1e-12,
    )


@pytest.mark.parametrize("along", [None, "constant", "variable"])
@pytest.mark.parametrize("rows", [None, shares([1, 2], [1, 0])], ids=["uniform", "weighted"])
def test_a_third_derivative_raises(rows, along):
    """Whatever the second derivative is taken along: torch's own guard, once_differentiable, does not see it."""
    x = draw(2, 3, 2, 2).requires_grad_()
    direction = {None: torch.ones_like(x), "constant": draw(2, 3, 2, 2), "variable": x}[along]
    (first,) = torch.autograd.grad((normalise(x, rows) ** 3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        third_derivative(first, direction, x)


def third_derivative(first, direction, leaf):
    (second,) = torch.autograd.grad((first * direction).sum(), leaf, create_graph=True)
    torch.autograd.grad(second.square().sum(), leaf)
