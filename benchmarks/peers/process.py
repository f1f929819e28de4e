"""Run a workload in a fresh process, so that peak memory and warm caches of one engine do not colour the next.

A workload is a module-level function named ``module:name``. It is called once with JSON keyword arguments, prepares
what it needs, and returns a function of no arguments; each call of that function is one timed repetition.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_isolated(
    function: str,
    kwargs: Mapping[str, Any],
    *,
    repetitions: int = 1,
    warmups: int = 1,
    threads: int = 2,
    timeout: float | None = None,
    root: Path = ROOT,
) -> dict[str, Any]:
    """Run ``function`` (``module:name``, importable from the repository root) in a new Python process.

    Args:
        function: the workload, e.g. ``"benchmarks.peers.workloads:peer_meta_step"``.
        kwargs: its keyword arguments, JSON values.
        repetitions: timed calls.
        warmups: calls before them, timed apart.
        threads: threads of torch, BLAS and Numba.
        timeout: seconds after which the process is killed and `subprocess.TimeoutExpired` raised.
        root: the checkout whose ``benchmarks`` and ``metadarts`` are imported.

    Returns:
        ``seconds`` and ``warmup_seconds`` (one per call), ``cpu_seconds`` (of all threads, one per timed call: about
        seconds * threads on an idle machine, less where other processes took the cores), ``peak_mb`` (of the process),
        ``cuda_peak_mb`` (allocated by torch on the card, None without one),
        ``start_mb`` (resident when the workload is prepared, before its first call), ``result`` (what the last call
        returned, None unless it is a JSON value), ``threads`` (asked for), ``python`` (version), and ``torch``
        (version) and ``torch_threads`` (in use), both None when the workload did not import torch, and
        ``memory_kept`` (whether glibc was told to keep freed memory).
    """
    request = {"function": function, "kwargs": dict(kwargs), "repetitions": repetitions, "warmups": warmups}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "response.json")
        asked.write_text(json.dumps(request))
        command = [sys.executable, "-m", "benchmarks.peers.worker", str(asked), str(answered)]
        done = subprocess.run(
            command, cwd=root, env=environment(threads), capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode or not answered.exists():
            tail = done.stderr.strip()[-4000:]
            raise RuntimeError(f"workload {function} ended with exit code {done.returncode}:\n{tail}")
        answer: dict[str, Any] = json.loads(answered.read_text())
    return {**answer, "threads": threads}


def environment(threads: int) -> dict[str, str]:
    """This process's environment with the thread counts set; they must be there before torch is imported."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
