"""Checks and timings on this machine's GPU: ``make gpu``, or ``python3 -m benchmarks.gpu`` in the checkout.

It needs a Python with a CUDA build of torch and nothing else: no network, no install. Tests come first, because a fast
wrong answer is worth nothing; then each benchmark runs in a process of its own under a time limit. What needs a package
that is not there is skipped with the reason. The rows and a summary land in ``--out``.

Exit codes: 0 all passed or skipped, 1 something failed, 2 no GPU to run on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = CHECKOUT / "tests" / "gpu"
TEST_SECONDS = 900
NO_TESTS_COLLECTED = 5
VERSIONED = ("numpy", "torch", "triton", "higher", "learn2learn")


@dataclass(frozen=True)
class Benchmark:
    """One module of benchmarks/, run as ``python -m benchmarks.NAME --device cuda --out OUT/NAME.csv``.

    Args:
        name: the module.
        arguments: what follows the two options above.
        seconds: the time limit.
        needs: packages without which it is skipped; what only some of its rows need, it skips itself.
    """

    name: str
    arguments: tuple[str, ...] = ()
    seconds: int = 900
    needs: tuple[str, ...] = ()


BENCHMARKS = (Benchmark("meta_step"),)


@dataclass(frozen=True)
class Step:
    """One line of the summary; ``status`` is passed, failed or skipped."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Run every step, write the summary, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description="GPU tests, then GPU timings.")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "benchmarks" / "results" / "gpu")
    out: Path = parser.parse_args(arguments).out.resolve()
    obstacle = why_no_gpu()
    if obstacle:
        print(f"make gpu: {obstacle}", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    steps = []
    for step in all_steps(out):
        print(f"== {step.name}: {step.status} in {step.seconds:.0f} s {step.reason}".rstrip(), flush=True)
        steps.append(step)
    summary = {"machine": machine, "steps": [asdict(step) for step in steps]}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"summary: {out / 'summary.json'}")
    return 1 if any(step.status == "failed" for step in steps) else 0


def why_no_gpu() -> str:
    """One line that says why no GPU can be used; empty when one can."""
    if importlib.util.find_spec("torch") is None:
        return f"torch is not installed for {sys.executable}; name another Python: make gpu PYTHON=/path/to/python"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} sees no CUDA device (torch.cuda.is_available() is False)"
    return ""


def describe_machine() -> dict[str, str]:
    """What a row must carry to be compared with another."""
    import torch

    versions = {name: metadata.version(name) for name in VERSIONED if importlib.util.find_spec(name)}
    return {
        "device": torch.cuda.get_device_name(),
        "capability": ".".join(str(part) for part in torch.cuda.get_device_capability()),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        **versions,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def commit() -> str:
    """The commit of the checkout, with ``+changes`` where files differ from it; ``unknown`` without git."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=CHECKOUT, text=True, stderr=subprocess.DEVNULL).strip()


def all_steps(out: Path) -> Iterator[Step]:
    """Tests, then benchmarks; each step is yielded when it is done."""
    yield run_tests()
    for benchmark in BENCHMARKS:
        yield run_benchmark(benchmark, out)


def run_tests() -> Step:
    """tests/gpu under pytest, or under the small runner where pytest is missing."""
    name = "tests/gpu"
    if not list(TESTS.glob("test_*.py")):
        return Step(name, "skipped", reason="no tests there")
    if importlib.util.find_spec("pytest") is None:
        return run_command(f"{name} (no pytest)", ["-m", "benchmarks.gpu_tests"], TEST_SECONDS)
    # Another torch than the one developed with may warn: here a warning is shown and is no error.
    command = ["-m", "pytest", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", str(TESTS)]
    return run_command(name, command, TEST_SECONDS, empty=NO_TESTS_COLLECTED)


def run_benchmark(benchmark: Benchmark, out: Path) -> Step:
    """One benchmark, or the reason why it is skipped."""
    module = f"benchmarks.{benchmark.name}"
    missing = [name for name in (module, *benchmark.needs) if importlib.util.find_spec(name) is None]
    if missing:
        return Step(module, "skipped", reason=f"not there: {', '.join(missing)}")
    rows = out / f"{benchmark.name}.csv"
    command = ["-m", module, "--device", "cuda", "--out", str(rows), *benchmark.arguments]
    return run_command(module, command, benchmark.seconds)


def run_command(name: str, arguments: list[str], seconds: float, *, empty: int = 0) -> Step:
    """Run this Python with ``arguments`` in the checkout; exit code ``empty`` means that there was nothing to do."""
    print(f"\n== {name}", flush=True)
    start = time.monotonic()
    try:
        code = subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return Step(name, "failed", time.monotonic() - start, f"stopped after its limit of {seconds:.0f} s")
    spent = round(time.monotonic() - start, 1)
    if code == 0:
        return Step(name, "passed", spent)
    if code == empty:
        return Step(name, "skipped", spent, "nothing to run")
    return Step(name, "failed", spent, f"exit code {code}")


if __name__ == "__main__":
    sys.exit(main())
