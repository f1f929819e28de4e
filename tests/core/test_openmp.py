"""How threads wait is said before torch is loaded, and the user has the last word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from metadarts.core.openmp import SAID_BY, SPINS

PRINT = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"


def said(code: str, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in SAID_BY}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment | more, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("code", "more", "found"),
    [
        ("import metadarts", {}, f"{SPINS} None"),
        ("import metadarts", {"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
        ("import metadarts", {"GOMP_SPINCOUNT": "7"}, "7 None"),
        ("import torch, metadarts", {}, "None None"),
        ("import metadarts, metadarts.training", {}, f"{SPINS} None"),
    ],
    ids=["alone", "policy of the user", "count of the user", "torch is loaded", "with torch"],
)
def test_threads_are_told_to_sleep(code, more, found):
    assert said(f"{code}; {PRINT}", **more) == found
