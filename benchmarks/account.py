"""What a meta-step asks of a GPU, told without one: ``python -m benchmarks.account``.

The step of workload W1 runs on meta tensors, which have shapes and no numbers. Every launch of our kernels and of
torch's is written down: how often, and the bytes of the tensors it is given, each counted once. Our kernels are then
compiled for the card, as they would be there, and the compiler's own account of each is read: registers, bytes of
stack (where there are any, registers were spilled), shared memory.

The prediction adds up, over the launches, the larger of bytes over the card's bandwidth (datasheet) and a launch's own
least time in a replayed graph (an assumption, stated in the table). It knows nothing of arithmetic, caches or waiting
between programs: it is a lower bound to compare rows with, not a measurement.

Needs Triton; no GPU and no driver. About a minute.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.meta_step import inner_loop, setting
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, said
from metadarts.core.errors import ConfigError
from metadarts.meta import MetaState, OuterLoop, mean_gradient
from metadarts.networks import Learner
from metadarts.ops import implementation
from metadarts.ops.choice import no_triton
from metadarts.ops.gpu.launch import Launch, interpreting, launches, tensors_in
from metadarts.store.files import write_atomically

CARD = "H100 SXM"
CAPABILITY = 90
BANDWIDTH = 3.35e12
"""Bytes per second of an H100 SXM (NVIDIA's datasheet)."""
LAUNCH_SECONDS = 2.0e-6
"""Assumed for one kernel of a replayed graph, however small."""
FREE = ("_unsafe_view", "empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "alias")
"""torch operators that launch nothing, besides views."""


@dataclass(frozen=True)
class TorchLaunch:
    """One of torch's own operators that is not a view."""

    name: str
    bytes: int
    host: bool


class Written(TorchDispatchMode):
    """Writes down torch's operators and passes them on; ``host`` is what takes a tensor that is not on ``device``."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.found: list[TorchLaunch] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if any(True for _ in tensors_in([result])) and not (_is_view(func) or name in FREE):
            given = tensors_in([result, *args, *(kwargs or {}).values()])
            tensors = list({id(t): t for t in given}.values())
            size = sum(t.numel() * t.element_size() for t in tensors)
            self.found.append(TorchLaunch(name, size, any(t.device.type != self.device for t in tensors)))
        return result


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def meta_step_on_paper(
    tasks: int = 4, order: str = "second", precision: str = "fp32"
) -> tuple[list[Launch], list[TorchLaunch]]:
    """Our launches and torch's of one recorded meta-step of W1: gradient and update, as `metadarts.meta.CapturedStep`.

    The update runs on a CPU, where norms of many tensors are taken at once as on a GPU; of meta tensors they are not.
    """
    network, params, _ = setting(device="meta")
    batch = random_batch(Episode(tasks=tasks)).to("meta")
    learner, inner = Learner(network, precision=precision), inner_loop(order, 0)
    with launches() as ours, Written("meta") as gradient, implementation("triton"):
        found = mean_gradient(learner, params, batch, inner)
    state = MetaState.create(setting()[1], [], inner, OuterLoop(), on_device=True)
    with Written("cpu") as update:
        state.update({name: torch.zeros(tensor.shape) for name, tensor in found.gradients.items()}, torch.zeros(()))
    return ours, [*gradient.found, *update.found]


@dataclass(frozen=True)
class Usage:
    """What the compiler says of one kernel at one shape: per thread, except ``shared``, which is bytes per program."""

    registers: int
    stack: int
    shared: int


class _Card:
    """Stands for a driver: it says which card to compile for, and has nothing to run on."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def card(capability: int = CAPABILITY) -> Iterator[None]:
    """Within the block Triton compiles for a card of this capability."""
    from triton.runtime import driver

    before = driver._active if hasattr(driver, "_active") else None
    driver.set_active(_Card(capability))
    try:
        yield
    finally:
        driver._active = before


def compiled(launch: Launch) -> Usage:
    """The kernel of ``launch`` compiled for its arguments, within `card`."""
    kernel = launch.kernel.function.warmup(*launch.arguments, grid=launch.grid, **launch.constants)
    registers, stack = usage(kernel.asm["cubin"])
    return Usage(registers, stack, int(kernel.metadata.shared))


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of the one function in ``cubin``."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", text)}
    return found["REG"], found["STACK"]


def signature(launch: Launch) -> tuple[Any, ...]:
    """What tells two compilations of a kernel apart, roughly: types and constants; numbers that 16 divides, and 1."""
    kinds = tuple(
        (
            str(a.dtype)
            if isinstance(a, Tensor)
            else ("int", a == 1, a % 16 == 0)
            if isinstance(a, int)
            else str(type(a))
        )
        for a in _flat(launch.arguments)
    )
    return launch.kernel.name, kinds, tuple(sorted((k, str(v)) for k, v in launch.constants.items()))


def _flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, tuple | list):
            yield from _flat(item)
        else:
            yield item


def usages(ours: list[Launch]) -> dict[str, list[Usage]]:
    """kernel -> what each of its compilations uses."""
    distinct = {signature(launch): launch for launch in ours}
    found: dict[str, list[Usage]] = defaultdict(list)
    with card():
        for launch in distinct.values():
            found[launch.kernel.name].append(compiled(launch))
    return dict(found)


def seconds(sizes: list[int]) -> float:
    """The predicted time of launches that move ``sizes`` bytes."""
    return sum(max(size / BANDWIDTH, LAUNCH_SECONDS) for size in sizes)


def table(ours: list[Launch], theirs: list[TorchLaunch], used: dict[str, list[Usage]]) -> list[dict[str, Any]]:
    """A line per kernel of ours and per operator of torch's, then the totals."""
    lines = []
    groups: dict[str, list[int]] = defaultdict(list)
    for launch in ours:
        groups[launch.kernel.name].append(launch.bytes)
    for torch_launch in theirs:
        groups[f"torch {torch_launch.name}"].append(torch_launch.bytes)
    for name, sizes in sorted(groups.items(), key=lambda item: -seconds(item[1])):
        lines.append(_line(name, sizes, used.get(name, [])))
    everything = [size for sizes in groups.values() for size in sizes]
    own = [launch.bytes for launch in ours]
    return [*lines, _line("all of ours", own, [u for us in used.values() for u in us]), _line("all", everything, [])]


def _line(name: str, sizes: list[int], used: list[Usage]) -> dict[str, Any]:
    return {
        "kernel": name,
        "launches": len(sizes),
        "mb": round(sum(sizes) / 1e6, 2),
        "predicted_us": round(1e6 * seconds(sizes), 1),
        "bandwidth_us": round(1e6 * sum(sizes) / BANDWIDTH, 1),
        "compilations": len(used),
        "registers": max((u.registers for u in used), default=0),
        "stack": max((u.stack for u in used), default=0),
        "shared": max((u.shared for u in used), default=0),
    }


def main(arguments: list[str] | None = None) -> int:
    """Account, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.account", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "account_sm90.csv", help="written anew")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--order", choices=("second", "first"), default="second")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args(arguments)
    if (reason := no_triton()) or interpreting():
        print(f"account: {reason or 'TRITON_INTERPRET is set, so nothing would be compiled'}", file=sys.stderr)
        return 2
    ours, theirs = meta_step_on_paper(options.tasks, options.order, options.precision)
    if host := Counter(launch.name for launch in theirs if launch.host):
        raise ConfigError(f"account: the step takes numbers from the host, so it cannot be recorded: {dict(host)}")
    lines = table(ours, theirs, usages(ours))
    print(f"one meta-step on a {CARD} (sm_{CAPABILITY}): " + said(**vars(options) | {"out": options.out.name}))
    print(f"{BANDWIDTH / 1e12:.2f} TB/s (datasheet), {1e6 * LAUNCH_SECONDS:.1f} us a launch (assumed)")
    header = list(lines[0])
    print("  ".join(f"{name:>12}" if i else f"{name:32}" for i, name in enumerate(header)))
    for line in lines:
        print("  ".join(f"{value:>12}" if i else f"{value:32}" for i, value in enumerate(line.values())))
    text = ",".join(header) + "\n" + "".join(",".join(str(v) for v in line.values()) + "\n" for line in lines)
    write_atomically(options.out, text.encode())
    print(f"rows: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
