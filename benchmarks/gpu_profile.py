"""Which kernels a meta-step of W1 spends its time in on a GPU: ``python -m benchmarks.gpu_profile --device cuda``.

torch's profiler watches a few steps taken kernel by kernel and a few replayed ones; the text file lists the kernels
that take most time, how often they run and what share of the device's busy time is theirs, and how long the device was
busy beside how long the step took without the profiler: the difference is waiting.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks import meta_step, rehearsal
from benchmarks.machine import seconds_of, wait
from benchmarks.rows import RESULTS, percentiles
from metadarts.core.machine import device_name
from metadarts.store.files import write_atomically

STEPS = 3
LINES = 40


def profiled(engine: str, order: str, device: str, small: bool = False) -> Callable[[], dict[str, Any]]:
    """Workload: "seconds" of each step without the profiler, and "kernels", name -> (calls, seconds) of one step."""
    run = meta_step.ours(order, 0, device, engine, small=small)

    def measure() -> dict[str, Any]:
        plain = seconds_of(run, device, STEPS, warmups=1 if small else 4)
        on_card, steps = device == "cuda", 1 if small else STEPS
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]) as recorded:
            for _ in range(steps):
                run()
            wait(device)
        return {"seconds": plain, "kernels": kernels(recorded.events(), on_card, steps)}

    return measure


def kernels(events: Any, on_card: bool, steps: int) -> dict[str, tuple[float, float]]:
    """Name -> (calls, seconds) of one of ``steps``: what ran on the card, or torch's operators by their own time."""
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if on_card and str(event.device_type).endswith("CUDA"):
            found[event.name].append(event.time_range.elapsed_us() / 1e6)
        if not on_card:
            found[event.name].append(event.self_cpu_time_total / 1e6)
    return {name: (len(each) / steps, sum(each) / steps) for name, each in found.items()}


def table(title: str, found: dict[str, Any]) -> str:
    """The kernels that take most time, most first."""
    rows = sorted(found["kernels"].items(), key=lambda item: -item[1][1])
    busy, calls = sum(seconds for _, (_, seconds) in rows), sum(count for _, (count, _) in rows)
    middle = percentiles(found["seconds"])[1]
    lines = [
        f"{title}: {1e3 * middle:.3f} ms a step without the profiler, {1e3 * busy:.3f} ms busy in {calls:.0f} kernels",
        f"{'ms':>10} {'share':>7} {'calls':>8}  kernel",
    ]
    for name, (count, seconds) in rows[:LINES]:
        lines.append(f"{1e3 * seconds:10.4f} {100 * seconds / max(busy, 1e-12):6.1f}% {count:8.1f}  {name[:100]}")
    rest = sum(seconds for _, (_, seconds) in rows[LINES:])
    lines.append(f"{1e3 * rest:10.4f} {100 * rest / max(busy, 1e-12):6.1f}%           {len(rows[LINES:])} others")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Profile both ways and both orders; print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu" / "profile.txt", help="written anew")
    parser.add_argument("--orders", nargs="+", choices=("second", "first"), default=["second", "first"])
    parser.add_argument("--threads", type=int, default=2)
    rehearsal.add_options(parser)
    options = parser.parse_args(arguments)
    rehearsal.check_options(options)
    run, parts = rehearsal.runner(options.rehearse), [f"W1 on {device_name(options.device)}\n"]
    for order in options.orders:
        for engine in (meta_step.OURS, meta_step.REPLAYED):
            kwargs = {"engine": engine, "order": order, "device": options.device, "small": options.rehearse}
            found = run("benchmarks.gpu_profile:profiled", kwargs, warmups=0, threads=options.threads)["result"]
            parts.append(table(f"{engine}, {order} order", found))
            print(parts[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, "\n".join(parts).encode())
    print(f"tables: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
