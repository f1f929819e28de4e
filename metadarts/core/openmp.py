"""How OpenMP's threads wait for each other: set in the environment before torch loads the runtime."""

from __future__ import annotations

import os
import sys

SPINS = 1_000
"""How often a thread that waits looks before it sleeps.

libgomp's default of 300,000 is some milliseconds in which a core is taken from whoever has work to do: beside other
processes two threads are then slower than one. With 1,000 they are 1.7 times as fast as by default beside two busy
loops, and level on a quiet machine (`benchmarks.threads`).
"""
SAID_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def let_threads_sleep() -> None:
    """Set GOMP_SPINCOUNT, unless the user said how threads wait or torch is loaded already, when it is too late."""
    if "torch" not in sys.modules and not any(name in os.environ for name in SAID_BY):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
