"""`make gpu` on a machine without a GPU or without pytest."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

CHECKOUT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "sees no CUDA device" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "seconds", "status", "reason"),
    [
        ("pass", 600, "passed", ""),
        ("raise SystemExit(3)", 600, "failed", "exit code 3"),
        ("raise SystemExit(5)", 600, "skipped", "nothing to run"),
        ("import time; time.sleep(600)", 1, "failed", "stopped after its limit of 1 s"),
    ],
)
def test_step_says_how_its_command_ended(code, seconds, status, reason):
    step = gpu.run_command("step", ["-c", code], seconds=seconds, empty=5)
    assert (step.status, step.reason) == (status, reason)


def test_a_step_that_is_late_takes_what_it_started_with_it(tmp_path):
    """A benchmark's worker must not go on holding the card."""
    file = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    for seconds in (2, 20, 200):  # a machine that has other work may not have started the child in 2
        assert gpu.run_command("step", ["-c", code], seconds=seconds).status == "failed"
        if file.exists():
            break
    status = Path(f"/proc/{file.read_text()}/status")
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and status.exists() and "zombie" not in status.read_text():
        time.sleep(0.05)
    assert not status.exists() or "zombie" in status.read_text()


def test_what_a_step_prints_is_kept_beside_its_rows(tmp_path, capfd):
    log = tmp_path / "step.txt"
    step = gpu.run_command("step", ["-c", "print('row: skipped, no data'); raise SystemExit(5)"], 600, empty=5, log=log)
    assert (step.status, step.reason) == ("skipped", "row: skipped, no data")
    assert log.read_text() == "row: skipped, no data\n"
    assert "row: skipped, no data" in capfd.readouterr().out


def test_missing_package_skips_its_benchmark_with_the_reason(tmp_path):
    step = gpu.run_benchmark(gpu.Benchmark("gpu", needs=("no_such_package",)), tmp_path)
    assert (step.status, step.reason) == ("skipped", "not there: no_such_package")


def test_every_benchmark_is_a_module_and_stays_below_nine_minutes():
    assert len(set(gpu.NAMES)) == len(gpu.NAMES)
    for benchmark in (gpu.COMPILE, *gpu.BENCHMARKS):
        assert (CHECKOUT / benchmark.path.replace(".", "/")).with_suffix(".py").is_file()
        assert benchmark.seconds <= 540


@pytest.mark.parametrize(("status", "code"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_summary_holds_the_machine_and_every_step(monkeypatch, tmp_path, status, code):
    steps = [gpu.Step("first", "passed", 1.0), gpu.Step("second", status, 2.0, "a reason")]
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: "")
    monkeypatch.setattr(gpu, "describe_machine", lambda rehearse: {"device": "a card"})
    monkeypatch.setattr(gpu, "all_steps", lambda out, only, rehearse: iter(steps))
    assert gpu.main(["--out", str(tmp_path / "out")]) == code
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["machine"] == {"device": "a card"}
    assert [step["status"] for step in summary["steps"]] == ["passed", status]


def test_later_calls_add_to_the_summary(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: "")
    monkeypatch.setattr(gpu, "describe_machine", lambda rehearse: {})
    monkeypatch.setattr(gpu, "run_tests", lambda out, rehearse: iter([gpu.Step("tests", "failed")]))
    monkeypatch.setattr(gpu, "run_benchmark", lambda which, out, *_: gpu.Step(which.name, "passed"))
    arguments = ["--out", str(tmp_path)]
    assert gpu.main([*arguments, "--only", "tests"]) == 1
    assert gpu.main([*arguments, "--only", "roofline", "search"]) == 0
    found = {step["name"]: step["status"] for step in json.loads((tmp_path / "summary.json").read_text())["steps"]}
    assert found == {"tests": "failed", "roofline": "passed", "search": "passed"}


PLAIN = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    names = set(sys.argv[1].split(","))
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from benchmarks import gpu
import importlib
for benchmark in (gpu.COMPILE, *gpu.BENCHMARKS):
    importlib.import_module(benchmark.path)
from benchmarks import meta_step
print("loss", meta_step.ours("second", 0, "cpu", meta_step.REPLAYED, small=True)())
"""
ABSENT = (
    "msgspec,numba,llvmlite,matplotlib,typer,rich,yaml,safetensors,"
    "tensorboard,PIL,filelock,higher,learn2learn,pytest,scipy"
)


def test_checks_and_timings_need_no_more_than_torch_triton_and_numpy():
    command = [sys.executable, "-c", PLAIN, ABSENT]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    assert "loss 0.6" in run.stdout


@pytest.mark.parametrize("red", ["", "conformance"])
def test_tests_run_file_by_file_and_timings_ask_for_conformance_once(monkeypatch, tmp_path, red):
    told = {}

    def run(name, command, seconds, **_):
        told[name] = command
        return gpu.Step(name, "failed" if name == red else "passed")

    monkeypatch.setattr(gpu, "run_command", run)
    list(gpu.all_steps(tmp_path, list(gpu.NAMES)))
    files = [path.stem for path in sorted((CHECKOUT / "tests" / "gpu").glob("test_*.py"))]
    assert [name for name in told if name.startswith("tests/")] == [f"tests/{stem}" for stem in files]
    assert ("--conformed" in told["roofline"]) is (not red)
    assert "--device" in told["meta_step"]


def in_this_process(real):
    """As `gpu.run_command`, but here, where torch is loaded already; what sets Triton's mode keeps its process."""

    def run(name, arguments, seconds, *, empty=0, log=None, more=None):
        _, module, *words = arguments
        if module == "pytest" or (more or {}).get("TRITON_INTERPRET") == "1":
            return real(name, arguments, seconds, empty=empty, log=log, more=more)
        print(f"\n== {name}")
        code, before = 0, sys.argv
        sys.argv = [module, *words]
        try:
            code = importlib.import_module(module).main() or 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            sys.argv = before
        return gpu.Step(name, "failed" if code else "passed", 0.0, f"exit code {code}" if code else "")

    return run


@pytest.mark.slow
@pytest.mark.thorough
def test_a_rehearsal_goes_through_every_step(tmp_path, monkeypatch, capfd):
    """All of `make gpu` but the device: operators by Triton's interpreter, recording by a stand-in, tiny sizes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(gpu, "run_command", in_this_process(gpu.run_command))
    threads = torch.get_num_threads()
    code = gpu.main(["--rehearse"])
    torch.set_num_threads(threads)
    said, errors = capfd.readouterr()
    assert code == 0, said[-4000:] + errors
    ended = [line for line in said.splitlines() if line.startswith("== ") and " in " in line]
    assert [line.split()[1].rstrip(":") for line in ended] == list(gpu.NAMES)
    assert all(": passed in" in line for line in ended), ended
    for words in (
        "no figure of it means anything", "conformance of separable (triton): green", "float64 agreement with",
        "operations would be recorded", "64 tasks take", "distance of the meta-gradient from float64's, bf16 second",
        "ours-replayed", "of the roofline", "stopped after meta-step 0", "search from step 0",
        "the search has ended",
    ):  # fmt: skip
        assert words in said, words
    assert not list(tmp_path.glob("metadarts*")), "a rehearsal leaves nothing"
