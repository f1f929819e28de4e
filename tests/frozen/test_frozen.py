"""No result changes when code moves: what version 0.1 computed is computed again.

    python -m benchmarks.frozen --only small --out tests/frozen/small-v0.1.json

made the frozen file, with version 0.1. Bits are those of a machine and of its packages; a loose check holds on all.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.frozen import Found, add_task, differences, other_machine, read, run_part

FROZEN = Path(__file__).with_name("small-v0.1.json")
RTOL = {"loss": 1e-5, "support_losses": 1e-5, "gradient_weights": 1e-2, "gradient_alphas": 1e-2}
"""Of the first meta-step's figures, on any machine, in single precision. The exact gradient magnifies rounding: version
0.1 itself gives 52.76 and 0.6082 on a machine with AVX-512, 52.82 and 0.6087 on one with AVX2, from equal losses."""

EXPLAINED = (
    r"/entropy_\w+: .* largest difference is \d(\.\d+)?e-1[5-9]$",  # taken from the shares, not from their logarithms
)
"""Differences that a named change makes."""


@pytest.fixture(scope="module")
def now(tmp_path_factory) -> Found:
    return run_part("small", tmp_path_factory.mktemp("no data is needed"))


@pytest.mark.slow
def test_every_bit_is_as_it_was(now):
    told, parts = read(FROZEN)
    if others := other_machine(told):
        pytest.skip(f"bits were frozen on another machine ({'; '.join(others)})")
    found = [line for line in differences(parts["small"], now) if not any(re.search(p, line) for p in EXPLAINED)]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RTOL)
def test_the_first_meta_step_is_as_it_was_on_any_machine(now, name):
    _, parts = read(FROZEN)
    fact = f"search/first step/{name}"
    assert now.facts[fact] == pytest.approx(parts["small"].facts[fact], rel=RTOL[name])


def found(**tensors: torch.Tensor) -> Found:
    made = Found({"loss": 1.5})
    made.add_tensors("run", tensors, kept=".")
    return made


def test_equal_results_have_no_difference():
    assert list(differences(found(a=torch.ones(3)), found(a=torch.ones(3)))) == []


def test_a_difference_of_bits_is_given_its_size():
    (line,) = differences(found(a=torch.ones(3)), found(a=torch.tensor([1.0, 1.25, 1.0])))
    assert line == "run/a: bits differ, the largest difference is 0.25"


@pytest.mark.parametrize("names", [("soft", "scratch"), ("supernet", "retrained")])
def test_finishes_are_compared_under_either_name(tmp_path, names):
    """A value and a tensor of the adapted supernet are told apart, whatever the supernet is called."""

    def task(loss: float, weight: float, names: tuple[str, str] = ("soft", "scratch")) -> Found:
        history = [{"step": 0, "loss": loss, "accuracy": None}]
        solutions = {name: {"genotype": None, "kept": 0, "history": history} for name in names}
        (tmp_path / "task.json").write_text(
            json.dumps({"start": {}, "solutions": solutions, "measured": dict.fromkeys(names, loss)})
        )
        tensors = {f"{name}/a.b": torch.tensor([weight]) for name in names} | {"support/labels": torch.arange(2)}
        save_file(tensors, tmp_path / "task.safetensors")
        found = Found()
        add_task(found, "adapt auto", tmp_path)
        return found

    frozen = task(1.5, 2.0)
    assert list(differences(frozen, task(1.5, 2.0, names))) == []
    found = [line.partition(":")[0] for line in differences(frozen, task(1.25, 2.5, names))]
    assert found == [
        *(f"adapt auto/{name}/{fact}" for name in ("scratch", "soft") for fact in ("loss", "measured")),
        "adapt auto/tensors/digest",
    ]


def test_a_sign_of_zero_is_a_difference():
    assert len(list(differences(found(a=torch.zeros(1)), found(a=-torch.zeros(1))))) == 1


def test_a_renamed_tensor_is_told_from_a_lost_one():
    renamed, lost = found(b=torch.ones(3)), found(b=torch.zeros(3))
    assert list(differences(found(a=torch.ones(3)), renamed)) == ["run/a: renamed to run/b, the same bits"]
    assert list(differences(found(a=torch.ones(3)), lost)) == [
        "run/a: no longer there",
        "run/b: not there when frozen",
    ]


def test_a_number_that_differs_is_given_its_size():
    other = found()
    other.facts["loss"] = 1.75
    (line,) = differences(found(), other)
    assert line.endswith("the largest difference is 0.25")
