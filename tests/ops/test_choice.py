"""The choice of an implementation: asked for, surrounding, or the fastest that can; and what it says when it cannot."""

from __future__ import annotations

import builtins

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.ops import choice, implementation, implementations, watched
from metadarts.ops.choice import available, choose, why_not

OFFERED = ("cpu", "folded", "reference")
NUMBERS = torch.zeros(2)


@pytest.fixture
def compiler(monkeypatch):
    """As if Numba were there, whether or not it is."""
    monkeypatch.setattr(choice, "no_compiler", lambda: None)


@pytest.fixture
def no_numba(monkeypatch):
    """As if Numba could not be imported."""
    real = builtins.__import__

    def without_numba(name, *rest):
        if name == "numba":
            raise ImportError("Numba needs NumPy 1.0 or less")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_numba)
    monkeypatch.setattr(choice, "no_compiler", choice.no_compiler.__wrapped__)


@pytest.mark.usefixtures("compiler")
def test_auto_is_the_first_that_can_run():
    assert choose("op", "auto", OFFERED, NUMBERS) == "cpu"
    assert choose("op", "auto", OFFERED[1:], NUMBERS) == "folded"
    assert choose("op", "auto", OFFERED, NUMBERS.bfloat16()) == "folded"
    assert choose("op", "auto", OFFERED, NUMBERS, NUMBERS.double()) == "folded"
    assert choose("op", "auto", OFFERED, NUMBERS.to("meta")) == "folded"


@pytest.mark.usefixtures("compiler")
def test_the_callers_word_comes_before_the_blocks_and_the_blocks_before_auto():
    with implementation("reference"):
        assert choose("op", "auto", OFFERED, NUMBERS) == "reference"
        assert choose("op", "folded", OFFERED, NUMBERS) == "folded"
        with implementation("folded"):
            assert choose("op", "auto", OFFERED, NUMBERS) == "folded"
        with implementation("auto"):
            assert choose("op", "auto", OFFERED, NUMBERS) == "cpu"
        assert choose("op", "auto", OFFERED, NUMBERS) == "reference"
    assert choose("op", "auto", OFFERED, NUMBERS) == "cpu"


def test_a_block_that_fails_still_ends():
    with pytest.raises(KeyError), implementation("reference"):
        raise KeyError
    with watched() as choices:
        choose("op", "auto", ("folded", "reference"), NUMBERS)
    assert choices == [("op", "folded")]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("name", "tensors", "reason"),
    [
        ("triton", [NUMBERS], "op has cpu, folded, reference"),
        ("cpu", [NUMBERS, NUMBERS.to("meta")], "expected tensors on the CPU, got cpu, meta"),
        ("cpu", [NUMBERS.half()], "expected float32 or float64, got torch.float16"),
        ("cpu", [NUMBERS.double(), NUMBERS], "expected tensors of one type, got torch.float32, torch.float64"),
        ("cpu", [NUMBERS, NUMBERS], None),
        ("folded", [NUMBERS.half(), NUMBERS], None),
    ],
)
def test_why_not(name, tensors, reason):
    assert why_not("op", name, OFFERED, tuple(tensors)) == reason


@pytest.mark.usefixtures("compiler")
def test_what_a_block_asks_for_in_vain_is_an_error_as_well():
    with (
        implementation("cpu"),
        pytest.raises(ConfigError, match="op: implementation 'cpu' cannot run: expected float32"),
    ):
        choose("op", "auto", OFFERED, NUMBERS.half())


@pytest.mark.parametrize("name", ["gpu", "CPU", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    known = "auto, cpu, folded, reference, triton"
    with pytest.raises(ConfigError, match=f"unknown implementation '{name}'.*{known}"):
        choose("op", name, OFFERED, NUMBERS)
    with pytest.raises(ConfigError, match=f"unknown implementation '{name}'.*{known}"), implementation(name):
        pass


def test_watched_writes_down_only_what_is_chosen_within_it():
    with watched() as outer:
        choose("a", "folded", OFFERED, NUMBERS)
        with watched() as inner:
            choose("b", "reference", OFFERED, NUMBERS)
    choose("c", "folded", OFFERED, NUMBERS)
    assert outer == [("a", "folded")]
    assert inner == [("b", "reference")]


@pytest.mark.usefixtures("no_numba")
def test_without_numba_the_rest_still_run_and_cpu_says_what_to_install():
    assert choose("op", "auto", OFFERED, NUMBERS) == "folded"
    assert available(OFFERED) == ("folded", "reference")
    assert implementations() == dict.fromkeys(("conv_block", "mix", "pool", "separable"), ("folded", "reference"))
    with pytest.raises(ConfigError, match=r"Numba is not usable here \(Numba needs NumPy.*\); pip install numba"):
        choose("op", "cpu", OFFERED, NUMBERS)
