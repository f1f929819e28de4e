"""On the GPU: the prefetcher brings the CPU's batches, bit for bit, without a wait, also in a recording."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from metadarts.core.rng import Key
from metadarts.tasks import ClassEntry, EpisodeSampler, Source, finish
from metadarts.training.prefetch import Prefetcher

pytestmark = pytest.mark.gpu

KEY = Key.from_seed(5)


def maker(shots):
    """Turned and normalised episodes of noise, [4, 5 * shots, 3, 32, 32]."""
    images = KEY.numpy().integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    classes = tuple(ClassEntry(str(n), np.arange(20 * n, 20 * n + 20), n % 4) for n in range(10))
    scale = {"mean": (0.4, 0.5, 0.6), "std": (0.3, 0.2, 0.1)}
    sampler = EpisodeSampler(
        Source("noise", images, classes, {"train": tuple(range(10))}, **scale), "train", 5, shots, 7
    )
    return lambda step: sampler.raw(KEY.child(step), 4)


def same(batch, raw):
    expected = finish(raw)
    pairs = zip(batch.tensors(), expected.tensors(), strict=True)
    return batch.ragged == expected.ragged and all(torch.equal(one.cpu(), other) for one, other in pairs)


@pytest.mark.parametrize("shots", [5, (1, 5)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5, 6, 7), (3, 4, 9, 10, 2, 2, 50, 51)])
def test_batches_are_those_of_the_cpu(device, shots, order):
    make = maker(shots)
    with Prefetcher(make, device) as prefetcher:
        batches = [prefetcher.batch(step) for step in order]
        for step, batch in zip(order, batches, strict=True):
            assert batch.support_images.device.type == device
            assert same(batch, make(step))


def test_buffers_outlast_a_device_that_is_behind(device):
    make = maker(5)
    heavy = torch.randn(4096, 4096, device=device)
    with Prefetcher(make, device) as prefetcher:
        batches = []
        for step in range(12):
            batches.append(prefetcher.batch(step))
            for _ in range(5):
                heavy = (heavy @ heavy).tanh()  # the host runs ahead
        for step, batch in enumerate(batches):
            assert same(batch, make(step))


def test_finishing_does_not_wait_for_the_device(device):
    raw = maker((1, 5))(0)
    there = raw.to(device)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = finish(there)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert same(batch, raw)


def test_graph_is_recorded_while_batches_are_made(device):
    make = maker(5)

    def slow(step):
        time.sleep(0.05)
        return make(step)

    with Prefetcher(slow, device) as prefetcher:
        prefetcher.batch(0)
        held, result = torch.ones(8, device=device), torch.zeros(8, device=device)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result.copy_(held * 2)
            time.sleep(0.3)  # the thread makes steps 1 and 2 meanwhile
        graph.replay()
        assert float(result.sum()) == 16
        for step in (1, 2, 3):
            assert same(prefetcher.batch(step), make(step))
