"""Kernels compiled ahead: every one in one share, failures told."""

from __future__ import annotations

import pytest

from benchmarks import gpu_compile

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """What was compiled, without compiling it."""
    names: list[str] = []
    monkeypatch.setattr(gpu_compile, "compiled", lambda launch: names.append(launch.kernel.name))
    return names


def test_shares_are_all_the_kernels_once(compiled):
    every, _ = gpu_compile.traced(small=True)
    assert {key[0] for key in every} == {"mix.forward", "mix.gradient", "mix.second"}
    counts = [gpu_compile.share(number, 3, 90, small=True) for number in range(3)]
    assert sum(count for count, _ in counts) == len(every) == len(compiled)
    assert sorted(compiled) == sorted(key[0] for key in every)
    assert not any(failed for _, failed in counts)


def test_a_kernel_that_does_not_compile_is_named_and_the_others_are_done(monkeypatch, capsys):
    def fail(launch):
        if launch.kernel.name == "mix.second":
            raise RuntimeError("no registers left")

    monkeypatch.setattr(gpu_compile, "compiled", fail)
    assert gpu_compile.main(["--rehearse"]) == 1
    told = capsys.readouterr().out
    assert "mix.second" in told
    assert "RuntimeError: no registers left" in told
    assert f"{len(gpu_compile.traced(small=True)[0])} kernels, " in told


def test_a_workload_that_cannot_be_traced_is_named_and_the_others_are_kept(monkeypatch, capsys, compiled):
    def broken(small):
        yield "one", lambda: 1 / 0
        yield from found(small)

    found = gpu_compile.workloads
    monkeypatch.setattr(gpu_compile, "workloads", broken)
    assert gpu_compile.main(["--rehearse"]) == 1
    told = capsys.readouterr().out
    assert "one: not traced (ZeroDivisionError" in told
    assert compiled, "the others are compiled all the same"


def test_both_orders_and_every_precision_are_asked_for():
    names = [name for name, _ in gpu_compile.workloads()]
    assert len(set(names)) > 20
    assert {"W1, second, bf16", "W1, first, fp64", "a validation of the search"} <= set(names)


def test_without_triton_it_is_skipped(monkeypatch, capsys):
    monkeypatch.setattr(gpu_compile, "no_triton", lambda: "Triton is not usable here")
    assert gpu_compile.main([]) == gpu_compile.NOTHING_TO_RUN
    assert "skipped, Triton is not usable here" in capsys.readouterr().out
