"""Memory that runs out: real failures of a real allocator, smaller parts with the same mean, advice otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from metadarts.core.errors import ResourceError
from metadarts.training import RunFolder, search
from metadarts.training.memory import fitted, is_out_of_memory

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."
)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(CPU_WORDS), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error, memory):
    assert is_out_of_memory(error) == memory


def hungry(limit, seen):
    """Work that fits up to ``limit`` tasks at once."""

    def work(size):
        seen.append(size)
        if size > limit:
            raise RuntimeError(CPU_WORDS)
        return f"done by {size}"

    return work


def test_it_halves_until_it_fits():
    seen = []
    assert fitted(hungry(3, seen), 10, True, "advice") == ("done by 3", 3)
    assert seen == [10, 5, 3]


@pytest.mark.parametrize(("may_shrink", "tried"), [(False, [4]), (True, [4, 2, 1])])
def test_it_says_what_to_lower(may_shrink, tried):
    seen = []
    with pytest.raises(ResourceError, match=rf"memory ran out with {tried[-1]} tasks at once .*; lower this"):
        fitted(hungry(0, seen), 4, may_shrink, "lower this")
    assert seen == tried


def test_other_errors_pass():
    def broken(size):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fitted(broken, 4, True, "advice")


LIMITED = """
import resource, torch
torch.set_num_threads(1)
from metadarts.inner import InnerLoop
from metadarts.core.rng import Key
from metadarts.training.memory import fitted
from metadarts.meta import meta_gradient
from metadarts.testing import generic_params, random_tasks, tiny_learner

learner, inner = tiny_learner(), InnerLoop(steps=2, weight_rate=0.05, alpha_rate=1.0)
params = generic_params(learner, Key.from_seed(0))
batch = random_tasks(Key.from_seed(0), tasks=16, ways=5, shots=5, queries=5, size=24)
expected = meta_gradient(learner, params, batch, inner, micro_batch=1).gradients
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)
sizes = []

def work(size):
    sizes.append(size)
    return meta_gradient(learner, params, batch, inner, micro_batch=size).gradients

found, size = fitted(work, 16, True, "advice")
worst = max(float((found[name] - expected[name]).abs().max()) for name in expected)
print(size, len(sizes), worst)
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's address space as Linux does")
def test_a_real_allocator_that_refuses(tmp_path):
    """Under a limit on address space the whole batch fails inside torch; half-batches give the same meta-gradient."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("MEGABYTES", "200")],
        capture_output=True,
        text=True,
        # Large blocks are given back when they are freed: pieces left by one attempt do not fail the next.
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, attempts, worst = done.stdout.split()
    assert 1 <= int(size) < 16
    assert int(attempts) > 1
    assert float(worst) < 1e-12


@pytest.fixture
def starved(monkeypatch):
    """(largest micro-batch that fits) -> the search's meta-gradient fails beyond it."""
    import importlib

    module = importlib.import_module("metadarts.training.search")
    whole = module.meta_gradient

    def limit(most):
        def gradient(*args, micro_batch, **options):
            if micro_batch > most:
                raise RuntimeError(CPU_WORDS)
            return whole(*args, micro_batch=micro_batch, **options)

        monkeypatch.setattr(module, "meta_gradient", gradient)

    return limit


def folder(experiment, tmp_path, name="run"):
    return RunFolder.create(tmp_path / name, experiment.config, {})


def test_a_search_without_memory_stops_with_advice_and_its_checkpoint(make, tmp_path, starved):
    starved(1)
    experiment = make()
    run = folder(experiment, tmp_path)
    with pytest.raises(ResourceError, match=r"^meta-step 1: memory ran out with 2 tasks at once .*--fit-memory"):
        search(experiment, run)
    assert run.load("last").facts["step"] == 0


def test_a_search_that_may_shrink_goes_on_and_remembers(make, tmp_path, starved):
    starved(1)
    experiment = make({"training.fit_memory": True})
    run = folder(experiment, tmp_path)
    state = search(experiment, run)
    assert [(line["step"], line["micro_batch"]) for line in run.records("memory")] == [(1, 1)], "it asks once"
    assert run.load("last").facts["micro_batch"] == 1
    small = make({"training.micro_batch": 1})
    same = search(small, folder(small, tmp_path, "small"))
    assert all(torch.equal(state.params[name], same.params[name]) for name in same.params)
