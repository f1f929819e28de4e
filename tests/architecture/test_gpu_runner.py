"""`make gpu` on a machine without a GPU or without pytest: the small runner of benchmarks/ says what pytest would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

CHECKOUT = Path(__file__).resolve().parents[2]

CONFTEST = """
import pytest

@pytest.fixture
def number():
    return 2

@pytest.fixture(autouse=True)
def order(tmp_path):
    yield
    (tmp_path / "end").write_text("reached")
"""

TESTS = """
import pytest

@pytest.mark.parametrize("left", [1, 2])
@pytest.mark.parametrize(("right", "total"), [(1, 2), pytest.param(0, 1, id="zero")])
def test_cases(left, right, total, number):
    assert left + right <= total + 1
    assert number == 2

def test_fails(number):
    assert number == 3, "two is not three"

def test_skips():
    pytest.importorskip("no_such_package")

@pytest.mark.gpu
@pytest.mark.skipif(True, reason="never here")
def test_skipif():
    raise RuntimeError

def test_raises_and_approx(tmp_path):
    with pytest.raises(ZeroDivisionError, match="zero"):
        1 / 0
    assert [0.1 + 0.2, 1.0] == pytest.approx([0.3, 1.0])
    assert 1.0 != pytest.approx(1.1)

def test_asks_for_more(monkeypatch):
    raise RuntimeError

class TestClass:
    def test_method(self):
        raise RuntimeError
"""

EXPECTED = """
passed test_sample.py::test_cases[0]
passed test_sample.py::test_cases[1]
passed test_sample.py::test_cases[2]
passed test_sample.py::test_cases[3]
failed test_sample.py::test_fails
skipped test_sample.py::test_skips
skipped test_sample.py::test_skipif
passed test_sample.py::test_raises_and_approx
skipped test_sample.py::test_asks_for_more
skipped test_sample.py::TestClass
"""

RUN = """
import sys
from pathlib import Path
from benchmarks._runner import run_folder
for outcome in run_folder(Path(sys.argv[1]), Path(sys.argv[1])):
    print(outcome.status, outcome.test)
    print(outcome.reason, file=sys.stderr)
"""


def test_runner_says_what_became_of_each_test(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sample.py").write_text(TESTS)
    # In a process of its own: the runner puts its stand-in where `import pytest` finds it.
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.stdout.split("\n") == [*EXPECTED.strip().split("\n"), ""], run.stderr
    assert "two is not three" in run.stderr
    assert "the fixture 'monkeypatch' needs pytest" in run.stderr


def test_without_a_gpu_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "sees no CUDA device" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("pass", "passed", ""),
        ("raise SystemExit(3)", "failed", "exit code 3"),
        ("raise SystemExit(5)", "skipped", "nothing to run"),
        ("import time; time.sleep(60)", "failed", "stopped after its limit of 2 s"),
    ],
)
def test_step_says_how_its_command_ended(code, status, reason):
    step = gpu.run_command("step", ["-c", code], seconds=2, empty=5)
    assert (step.status, step.reason) == (status, reason)


def test_missing_package_skips_its_benchmark_with_the_reason(tmp_path):
    step = gpu.run_benchmark(gpu.Benchmark("gpu", needs=("no_such_package",)), tmp_path)
    assert (step.status, step.reason) == ("skipped", "not there: no_such_package")


@pytest.mark.parametrize(("status", "code"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_summary_holds_the_machine_and_every_step(monkeypatch, tmp_path, status, code):
    steps = [gpu.Step("first", "passed", 1.0), gpu.Step("second", status, 2.0, "a reason")]
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: "")
    monkeypatch.setattr(gpu, "describe_machine", lambda: {"device": "a card"})
    monkeypatch.setattr(gpu, "all_steps", lambda out: iter(steps))
    assert gpu.main(["--out", str(tmp_path / "out")]) == code
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["machine"] == {"device": "a card"}
    assert [step["status"] for step in summary["steps"]] == ["passed", status]
