"""The gate before every timing: green as it is, red with any fault planted in an operator."""

from __future__ import annotations

import pytest
import torch

from benchmarks import conformance
from metadarts import ops
from metadarts.ops.mix import cpu as mix_cpu
from metadarts.ops.pool import cpu as pool_cpu


@pytest.fixture
def only(monkeypatch):
    """(operator) -> nothing; leaves only its first case to be checked."""

    def leave(name):
        monkeypatch.setattr(conformance, "CASES", {name: conformance.CASES[name][:1]})

    return leave


def faults():
    return conformance.conformance()()["faults"]


def test_every_operator_of_the_network_is_checked():
    assert set(conformance.CASES) == set(ops.implementations())


def test_cases_check_the_implementation_that_will_be_timed(only):
    only("pool")
    found = conformance.conformance()()
    assert found["faults"] == {"pool": ""}
    assert found["chosen"] == {"pool": [ops.implementations()["pool"][0]]}


def test_an_interpreter_has_smaller_cases_of_every_operator():
    assert set(conformance.SMALL) == set(conformance.CASES)
    found = conformance.conformance(small=True)()
    assert not any(found["faults"].values())
    assert all(chosen == [ops.implementations()[name][0]] for name, chosen in found["chosen"].items())


@pytest.mark.parametrize("function, label", [("forward", "y"), ("gradient", "d x"), ("second", "d x d")])
def test_a_fault_in_any_derivative_of_a_pool_is_seen(only, monkeypatch, function, label):
    right = getattr(pool_cpu, function)

    def wrong(*arguments):
        result = right(*arguments)
        return (1.0001 * result[0], *result[1:]) if isinstance(result, tuple) else 1.0001 * result

    monkeypatch.setattr(pool_cpu, function, wrong)
    only("pool")
    (fault,) = faults().values()
    assert fault.startswith("AssertionError: [max of stride 1; float64]")
    assert label in fault


def test_an_operator_that_raises_is_red(only, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("the kernel cannot be compiled")

    monkeypatch.setattr(mix_cpu, "forward", broken)
    only("mix")
    assert faults() == {"mix": "RuntimeError: the kernel cannot be compiled"}


@pytest.mark.parametrize("fault, green", [("", True), ("AssertionError: y", False)])
def test_the_gate_is_open_only_when_all_are_green(monkeypatch, capsys, fault, green):
    answer = {"result": {"faults": {"pool": "", "mix": fault}, "compile_seconds": 0.0}}
    monkeypatch.setattr(conformance, "run_isolated", lambda *_, **__: answer)
    assert conformance.conforms("cpu", 1) is green
    assert ("mix disagrees" in capsys.readouterr().err) is not green


def test_rows_of_the_cases_are_shares():
    torch.testing.assert_close(conformance._rows(2, 3).sum(1), torch.ones(2, dtype=torch.float64))
