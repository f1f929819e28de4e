"""Global generators, seeded for code that uses only them, and restored afterwards."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from metadarts.core.rng import Key

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def seeded_globals(key: Key) -> Iterator[None]:
    """Within the block, the global generators of ``random``, numpy and torch (CPU) are functions of ``key``.

    Afterwards, also after an error, all three go on exactly where they were. Of several threads, one is in such a block
    at a time; a thread that draws from the global generators outside of one is not kept from it.
    """
    with _ONE_AT_A_TIME:
        yield from _seeded(key)


def _seeded(key: Key) -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - to put it back
    seed = int.from_bytes(key.digest()[:7], "little")
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - another library draws from it
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset every GPU's generator too
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
