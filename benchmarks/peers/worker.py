"""The child of `benchmarks.peers.process.run_isolated`: python -m benchmarks.peers.worker REQUEST RESPONSE."""

from __future__ import annotations

import importlib
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BYTES_PER_MB = 1e6


def memory_mb(field: str) -> float:
    """``VmHWM`` (peak) or ``VmRSS`` (now) of this process in MB of 10^6 bytes.

    Linux hands a parent's peak down to ``ru_maxrss`` across fork and exec, so a child of a large benchmark process
    would report its parent's memory. /proc/self/status counts this program alone; getrusage serves elsewhere.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / BYTES_PER_MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB


def cuda_peak_mb() -> float | None:
    """The most that torch held on the card, in MB of 10^6 bytes; None where no card was used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated() / BYTES_PER_MB)


def load(function: str) -> Callable[..., Callable[[], Any]]:
    """The workload called ``module:name``."""
    module, _, name = function.partition(":")
    workload: Callable[..., Callable[[], Any]] = getattr(importlib.import_module(module), name)
    return workload


def timed(call: Callable[[], Any], count: int) -> tuple[list[float], list[float], Any]:
    """Wall and processor seconds of each of ``count`` calls, and what the last one returned."""
    seconds, cpu_seconds, result = [], [], None
    for _ in range(count):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = call()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return seconds, cpu_seconds, result


def json_or_none(value: Any) -> Any:
    """``value`` when JSON can hold it, None otherwise."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return None
    return value


def _keep_freed_memory() -> bool:
    """For every workload that uses torch alike: our kernels would do it, a peer's process would not."""
    if "torch" not in sys.modules:
        return False
    from metadarts.ops.vector.launch import keep_freed_memory

    return keep_freed_memory()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the workload of ``request`` and report on it."""
    call = load(request["function"])(**request["kwargs"])
    kept = _keep_freed_memory()
    start_mb = memory_mb("VmRSS")
    warmup_seconds, _, _ = timed(call, request["warmups"])
    seconds, cpu_seconds, result = timed(call, request["repetitions"])
    torch = sys.modules.get("torch")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "warmup_seconds": warmup_seconds,
        "peak_mb": memory_mb("VmHWM"),
        "cuda_peak_mb": cuda_peak_mb(),
        "memory_kept": kept,
        "start_mb": start_mb,
        "result": json_or_none(result),
        "python": platform.python_version(),
        "torch": str(torch.__version__) if torch else None,
        "torch_threads": torch.get_num_threads() if torch else None,
    }


def main() -> None:
    """Answer the request in the first file named on the command line into the second."""
    asked, answered = map(Path, sys.argv[1:])
    answered.write_text(json.dumps(answer(json.loads(asked.read_text()))))


if __name__ == "__main__":
    main()
