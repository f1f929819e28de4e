"""Vectors of lanes: what they leave alone in memory, what they do with NaN, and the order in which they add."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="Numba is not installed")

from metadarts.core.rng import Key
from metadarts.ops.vector.lanes import (
    add,
    argument,
    constant,
    divide,
    everywhere,
    fma,
    lanes,
    load,
    load_some,
    multiply,
    number,
    pointer,
    put_number,
    real_argument,
    root,
    shifted,
    store,
    store_some,
    subtract,
    take_a_number,
    total,
    where_equal,
    where_greater,
    where_positive,
)
from metadarts.ops.vector.launch import FIRST, Kernel

LANES = {torch.float32: 16, torch.float64: 8}
EPSILON = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
GUARD = -77.0
NAN = float("nan")

each_precision = pytest.mark.parametrize("dtype", LANES, ids=str)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """These kernels are no use to anybody else."""
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path_factory.getbasetemp() / "lanes"))


def draw(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("lanes", str(shape))).torch()).to(dtype)


def _load_some(block):
    store(pointer(block, FIRST + 1), 0, load_some(pointer(block, FIRST), 0, argument(block, FIRST + 2)))


def _store_some(block):
    value = load(pointer(block, FIRST), 0)
    store_some(pointer(block, FIRST + 1), 1, value, argument(block, FIRST + 2))


def _arithmetic(block):
    """Of two vectors: each of the element-wise functions, one below the other."""
    source, to, width = pointer(block, FIRST), pointer(block, FIRST + 1), lanes(pointer(block, FIRST))
    a, b = load(source, 0), load(source, width)
    store(to, 0, add(a, b))
    store(to, width, subtract(a, b))
    store(to, 2 * width, multiply(a, b))
    store(to, 3 * width, divide(a, b))
    store(to, 4 * width, root(multiply(a, a)))
    store(to, 5 * width, everywhere(source, 3))
    store(to, 6 * width, constant(source, real_argument(block, FIRST + 2)))


def _choices(block):
    """where_positive, where_greater and where_equal of two vectors."""
    source, to, width = pointer(block, FIRST), pointer(block, FIRST + 1), lanes(pointer(block, FIRST))
    a, b = load(source, 0), load(source, width)
    yes, no = constant(source, 1.0), constant(source, 2.0)
    store(to, 0, where_positive(a, a))
    store(to, width, where_positive(a, yes))
    store(to, 2 * width, where_greater(a, b, yes, no))
    store(to, 3 * width, where_equal(a, b, yes, no))


def _total(block):
    put_number(pointer(block, FIRST + 1), 0, total(load(pointer(block, FIRST), 0)))


def _fma(block):
    source, width = pointer(block, FIRST), lanes(pointer(block, FIRST))
    a, b, c = load(source, 0), load(source, width), load(source, 2 * width)
    store(pointer(block, FIRST + 1), 0, fma(a, b, c))


def _count(block):
    """Add 1 to each item's place, and to that of the thread that took it."""
    thread = take_a_number(block, 2)
    items, threads = pointer(block, FIRST), shifted(pointer(block, FIRST), argument(block, 1))
    while True:
        item = take_a_number(block, 0)
        if item >= argument(block, 1):
            break
        put_number(items, item, number(items, item) + 1)
        put_number(threads, thread, number(threads, thread) + 1)


LOAD_SOME, STORE_SOME = Kernel(_load_some, "test.load_some"), Kernel(_store_some, "test.store_some")
ARITHMETIC, CHOICES = Kernel(_arithmetic, "test.arithmetic"), Kernel(_choices, "test.choices")
TOTAL, FMA, COUNT = Kernel(_total, "test.total"), Kernel(_fma, "test.fma"), Kernel(_count, "test.count")


@each_precision
def test_load_some_reads_no_further_than_told(dtype):
    width = LANES[dtype]
    for count in range(width + 1):
        source = draw(dtype, width)
        source[count:] = NAN
        out = torch.full((width + 1,), GUARD, dtype=dtype)
        LOAD_SOME(dtype, 1, [source, out, count])
        assert torch.equal(out[:count], source[:count])
        assert torch.equal(out[count:width], torch.zeros(width - count, dtype=dtype))
        assert out[width] == GUARD


@each_precision
def test_store_some_writes_no_further_than_told(dtype):
    width, source = LANES[dtype], draw(dtype, LANES[dtype])
    for count in range(width + 1):
        out = torch.full((width + 2,), GUARD, dtype=dtype)
        STORE_SOME(dtype, 1, [source, out, count])
        assert torch.equal(out[1 : 1 + count], source[:count])
        assert out[0] == GUARD
        assert bool((out[1 + count :] == GUARD).all())


def padded(dtype: torch.dtype, values: list[float]) -> torch.Tensor:
    """One vector that begins with ``values``."""
    return torch.tensor(values + [0.0] * (LANES[dtype] - len(values)), dtype=dtype)


@each_precision
def test_comparisons_let_nan_through_and_zero_is_not_positive(dtype):
    a = padded(dtype, [1.0, -1.0, 0.0, -0.0, NAN, 2.0, 2.0, NAN])
    b = padded(dtype, [0.5, 0.5, 0.0, 0.0, 1.0, NAN, 2.0, NAN])
    out = torch.full((4, LANES[dtype]), GUARD, dtype=dtype)
    CHOICES(dtype, 1, [torch.stack([a, b]), out])
    relu, passed, greater, equal = (row[:8].tolist() for row in out)
    assert relu[:4] == [1.0, 0.0, 0.0, 0.0]
    assert relu[4] != relu[4]
    assert passed == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert greater[:4] + greater[6:7] == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert greater[4] == 1.0  # a NaN is greater than any number, so that a maximum keeps it
    assert equal == [2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0]


@each_precision
def test_arithmetic_is_that_of_single_numbers(dtype):
    a, b = draw(dtype, 2, LANES[dtype])
    out = torch.full((7, LANES[dtype]), GUARD, dtype=dtype)
    ARITHMETIC(dtype, 1, [torch.stack([a, b]), out, 0.1])
    constants = [torch.full_like(a, float(a[3])), torch.full_like(a, 0.1)]
    assert torch.equal(out, torch.stack([a + b, a - b, a * b, a / b, (a * a).sqrt(), *constants]))


@each_precision
def test_total_adds_in_halves(dtype):
    values = draw(dtype, LANES[dtype]) * 10.0 ** (torch.arange(LANES[dtype]) % 3)
    out, halves = torch.full((1,), GUARD, dtype=dtype), values.numpy()
    TOTAL(dtype, 1, [values, out])
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    in_turn = values.numpy()[0]
    for value in values.numpy()[1:]:
        in_turn = in_turn + value
    assert out.numpy()[0] == halves[0]
    assert halves[0] != in_turn, "these numbers cannot tell the orders apart: draw others"


@each_precision
def test_fma_rounds_once(dtype):
    """(1 + e)^2 - (1 + 2 e) = e^2, which a rounded product no longer has."""
    e, width = EPSILON[dtype], LANES[dtype]
    a, c = torch.full((width,), 1.0 + e, dtype=dtype), torch.full((width,), -(1.0 + 2.0 * e), dtype=dtype)
    out = torch.full((width,), GUARD, dtype=dtype)
    FMA(dtype, 1, [torch.stack([a, a, c]), out])
    assert out.tolist() == [e * e] * width


@pytest.mark.parametrize("threads", [1, 2])
def test_each_item_is_taken_once_and_each_thread_has_a_number_of_its_own(threads):
    items, before = 20_000, torch.get_num_threads()
    counts = torch.zeros(items + 2, dtype=torch.float64)
    torch.set_num_threads(threads)
    try:
        COUNT(torch.float64, items, [counts])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(counts[:items], np.ones(items))
    assert counts[items:].sum() == items
