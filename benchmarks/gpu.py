"""Checks and timings on this machine's GPU: ``make gpu``, or ``python3 -m benchmarks.gpu`` in the checkout.

It needs a Python with a CUDA build of torch: no network, no install. Tests need pytest too; where that is missing, what
``make carry`` put into build/carried on another machine is used. All cores compile the kernels; then come the tests,
because a fast wrong answer is worth nothing; then each benchmark runs in a process of its own under a time limit of 9
minutes. What needs a package or data that are not there is skipped with the reason. Rows, logs and a summary land in
``--out``.

``--only NAME ...`` runs some steps, and the summary keeps what earlier calls found of the others. ``--rehearse`` goes
through every step on this machine's CPU with tiny sizes and writes to a temporary folder: it proves that the steps
run, and no figure of it means anything.

Exit codes: 0 all passed or skipped, 1 something failed, 2 no GPU to run on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = CHECKOUT / "tests" / "gpu"
CARRIED = CHECKOUT / "build" / "carried"
"""pytest and what it needs, all of it pure Python: `make carry`."""
LIMIT = 540
"""Seconds that any step may take; a piece of a search stops itself well before."""
NOTHING_TO_RUN = 5
"""Exit code of pytest without tests, and of a benchmark whose data are not there."""
PARALLEL = ("test_operators",)
REHEARSAL_FOLDERS = {"gpu_search": "--run", "gpu_reproduce": "--folder"}
"""Module -> its option for the folder that a rehearsal must not share with the real thing."""
VERSIONED = ("numpy", "torch", "triton", "higher", "learn2learn")


@dataclass(frozen=True)
class Benchmark:
    """One module of benchmarks/, run as ``python -m benchmarks.MODULE --device cuda --out OUT/FILE``.

    Args:
        name: of the step.
        arguments: what follows the two options above.
        seconds: the time limit.
        needs: packages without which it is skipped; what only some of its rows need, it skips itself.
        module: where its name is another.
        file: its rows; ``NAME.csv`` unless given.
        rehearsed: what follows instead in a rehearsal.
        interpreted: whether a rehearsal runs Triton's interpreter, some 20 ms a program.
    """

    name: str
    arguments: tuple[str, ...] = ()
    seconds: int = LIMIT
    needs: tuple[str, ...] = ()
    module: str = ""
    file: str = ""
    rehearsed: tuple[str, ...] = ()
    interpreted: bool = False

    @property
    def path(self) -> str:
        """Its module, from the checkout."""
        return f"benchmarks.{self.module or self.name}"


def _meta_step(name: str, *arguments: str, rehearsed: tuple[str, ...]) -> Benchmark:
    few = ("--repetitions", "1", "--threads", "1", *rehearsed)
    return Benchmark(name, ("--seconds", "240", *arguments), module="meta_step", file="meta_step.csv", rehearsed=few)


COMPILE = Benchmark("compile", module="gpu_compile", seconds=240)
"""Comes before the tests, which need its kernels too."""
BENCHMARKS = (
    Benchmark("conformance", rehearsed=("--threads", "1"), interpreted=True),
    _meta_step("meta_step", "--orders", "second", "--repetitions", "2",
               rehearsed=("--orders", "second", "--peers", "functional_call")),
    _meta_step("meta_step_first", "--orders", "first", "--repetitions", "2",
               rehearsed=("--orders", "first", "--peers", "--no-check")),
    _meta_step("meta_step_tasks", "--tasks", "4", "64", "--peers", "--repetitions", "2",
               rehearsed=("--tasks", "4", "64", "--peers", "--orders", "second", "--no-check")),
    _meta_step("meta_step_tf32", "--tf32", "--orders", "second", "--repetitions", "2",
               rehearsed=("--tf32", "--orders", "second", "--peers", "--no-check")),
    Benchmark("mixed_op", ("--turns", "2"), rehearsed=("--turns", "1", "--repetitions", "1", "--threads", "1")),
    Benchmark("roofline", rehearsed=("--repetitions", "1", "--threads", "1")),
    Benchmark("profile", module="gpu_profile", file="profile.txt",
              rehearsed=("--orders", "second", "--threads", "1")),
    Benchmark("search", ("--seconds", "480"), module="gpu_search",
              rehearsed=("--seconds", "0", "--threads", "1")),
    Benchmark("search_again", ("--seconds", "480"), module="gpu_search", file="search.csv",
              rehearsed=("--seconds", "30", "--threads", "1")),
    Benchmark("reproduce", ("--seconds", "480"), module="gpu_reproduce", file="reproduce.jsonl",
              rehearsed=("--seconds", "0", "--threads", "1")),
)  # fmt: skip
NAMES = (COMPILE.name, "tests", *(benchmark.name for benchmark in BENCHMARKS))


@dataclass(frozen=True)
class Step:
    """One line of the summary; ``status`` is passed, failed or skipped."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Run the steps, write the summary after each, and return the exit code."""
    options = _options(arguments)
    if options.rehearse:
        with tempfile.TemporaryDirectory(prefix="metadarts-gpu-") as folder:
            print("a rehearsal on this machine's CPU: no figure of it means anything", flush=True)
            return run(Path(folder), options.only, rehearse=True)
    obstacle = why_no_gpu()
    if obstacle:
        print(f"make gpu: {obstacle}", file=sys.stderr)
        return 2
    return run(options.out.resolve(), options.only)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rehearse", action="store_true", help="every step with tiny sizes, without a GPU")
    return parser.parse_args(arguments)


def run(out: Path, only: list[str], rehearse: bool = False) -> int:
    """Run the steps named in ``only``."""
    out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(rehearse)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    summary = out / "summary.json"
    steps = {step["name"]: Step(**step) for step in _before(summary)}
    done = []
    for step in all_steps(out, only, rehearse):
        print(f"== {step.name}: {step.status} in {step.seconds:.0f} s {step.reason}".rstrip(), flush=True)
        done.append(step)
        steps[step.name] = step
        found = {"machine": machine, "steps": [asdict(each) for each in steps.values()]}
        summary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"summary: {summary}")
    return 1 if any(step.status == "failed" for step in done) else 0


def _before(summary: Path) -> list[dict[str, Any]]:
    """Steps of earlier calls; none where the file is missing or damaged."""
    try:
        found: list[dict[str, Any]] = json.loads(summary.read_text(encoding="utf-8"))["steps"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return []


def why_no_gpu() -> str:
    """One line that says why no GPU can be used; empty when one can."""
    if importlib.util.find_spec("torch") is None:
        return f"torch is not installed for {sys.executable}; name another Python: make gpu PYTHON=/path/to/python"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} sees no CUDA device (torch.cuda.is_available() is False)"
    return ""


def describe_machine(rehearse: bool = False) -> dict[str, str]:
    """What a row must carry to be compared with another."""
    import torch

    from metadarts.core.machine import commit, device_name

    card = {"device": f"{device_name('cpu')} (rehearsal)"}
    if not rehearse:
        card = {
            "device": device_name("cuda"),
            "capability": ".".join(str(part) for part in torch.cuda.get_device_capability()),
            "multiprocessors": str(torch.cuda.get_device_properties(0).multi_processor_count),
            "memory_gb": f"{torch.cuda.get_device_properties(0).total_memory / 1e9:.1f}",
            "cuda": str(torch.version.cuda),
        }
    versions = {name: metadata.version(name) for name in VERSIONED if importlib.util.find_spec(name)}
    return {
        **card,
        "python": platform.python_version(),
        **versions,
        "commit": commit() or "unknown",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def all_steps(out: Path, only: list[str], rehearse: bool = False) -> Iterator[Step]:
    """Kernels compiled, tests, then benchmarks; each step is yielded when it is done."""
    if COMPILE.name in only:
        yield run_benchmark(COMPILE, out, rehearse)
    if "tests" in only:
        yield from run_tests(out, rehearse)
    conformed = False
    for benchmark in BENCHMARKS:
        if benchmark.name in only:
            step = run_benchmark(benchmark, out, rehearse, conformed)
            conformed = conformed or (step.name == "conformance" and step.status == "passed")
            yield step


def run_tests(out: Path, rehearse: bool = False) -> Iterator[Step]:
    """tests/gpu file by file.

    Compiling the kernels takes longest: where pytest-xdist is there, 8 processes share `PARALLEL`. A rehearsal only
    collects.
    """
    own, xdist = (importlib.util.find_spec(name) is not None for name in ("pytest", "xdist"))
    if not own and not CARRIED.is_dir():
        reason = f"not there: pytest; run `make carry` where there is a network, and bring {CARRIED} along"
        yield Step("tests", "failed", reason=reason)
        return
    more = {} if own else {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(CARRIED))))}
    # Another torch than the one developed with may warn: here a warning is shown and is no error.
    words = ["-m", "pytest", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    if rehearse:
        collect = [*words, "--collect-only", "-q", str(TESTS)]
        yield run_command("tests", collect, LIMIT, log=out / "tests.txt", more=more)
        return
    for file in sorted(TESTS.glob("test_*.py")):
        name, log = f"tests/{file.stem}", out / f"{file.stem}.txt"
        command = [*words, "--durations=5", str(file)]
        command += ["-n", "8"] if xdist and file.stem in PARALLEL else []
        yield run_command(name, command, LIMIT, empty=NOTHING_TO_RUN, log=log, more=more)


def run_benchmark(benchmark: Benchmark, out: Path, rehearse: bool = False, conformed: bool = False) -> Step:
    """One benchmark, or the reason why it is skipped."""
    missing = [name for name in (benchmark.path, *benchmark.needs) if importlib.util.find_spec(name) is None]
    if missing:
        return Step(benchmark.name, "skipped", reason=f"not there: {', '.join(missing)}")
    rows = out / (benchmark.file or f"{benchmark.name}.csv")
    command = ["-m", benchmark.path, "--out", str(rows)]
    command += ["--rehearse", *benchmark.rehearsed] if rehearse else ["--device", "cuda", *benchmark.arguments]
    command += ["--conformed"] if conformed else []
    if rehearse and benchmark.module in REHEARSAL_FOLDERS:
        command += [REHEARSAL_FOLDERS[benchmark.module], str(out / benchmark.module)]
    how = {"TRITON_INTERPRET": "1" if benchmark.interpreted else "0", "OMP_NUM_THREADS": "1"} if rehearse else {}
    log = out / f"{benchmark.name}.txt" if rows.suffix != ".txt" else None
    return run_command(benchmark.name, command, benchmark.seconds, empty=NOTHING_TO_RUN, log=log, more=how)


def run_command(
    name: str,
    arguments: list[str],
    seconds: float,
    *,
    empty: int = 0,
    log: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> Step:
    """Run this Python with ``arguments`` in the checkout, in a process group of its own, so that a process that it
    started does not outlive it on the card.

    Args:
        empty: the exit code that means that there was nothing to do.
        log: where what it prints is kept, besides being printed.
        more: environment variables.
    """
    print(f"\n== {name}", flush=True)
    start = time.monotonic()
    lines, late = [], threading.Event()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **(more or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line)
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:  # interrupted from outside
                os.killpg(process.pid, signal.SIGKILL)
    if log is not None:
        log.write_text("".join(lines), encoding="utf-8")
    spent = round(time.monotonic() - start, 1)
    if late.is_set():
        return Step(name, "failed", spent, f"stopped after its limit of {seconds:.0f} s")
    if code == 0:
        return Step(name, "passed", spent)
    if code == empty:
        said = lines[-1].strip() if lines else ""
        return Step(name, "skipped", spent, said if "skipped" in said else "nothing to run")
    return Step(name, "failed", spent, f"exit code {code}")


if __name__ == "__main__":
    sys.exit(main())
