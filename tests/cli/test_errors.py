"""What a user does wrong ends with exit code 2 and one line that helps; what is wrong inside is not hidden."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from metadarts.cli.common import console
from metadarts.core.errors import RunError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_the_installed_program_refuses_in_one_line(installed, run, search_words):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    answer = installed(*search_words(run))
    assert (answer.code, answer.err) == (
        2,
        f"metadarts: {run} exists: give --out another name, go on with --resume {run}, or remove it first\n",
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--data", "glyps"), "--data 'glyps': no such file, and not the name of a source; did you mean 'glyphs'?"),
        (("--data", "/nowhere/omniglot.npz"), "--data '/nowhere/omniglot.npz': no such file"),
        (("--preset", "quik"), "unknown preset 'quik': did you mean 'quick'?"),
        (("--set", "inner.stps=3"), "unknown setting 'inner.stps': did you mean 'steps'?"),
        (("--set", "inner.steps=many"), "inner.steps: expected int, got 'many'"),
        (("--set", "inner.steps"), "--set 'inner.steps': expected group.field=value"),
        (("--set", "tasks.source=mnist"), "unknown source 'mnist'"),
        (("--order", "third"), "order 'third' is unknown; "),
        (("--engine", "lop"), "training.engine 'lop' is unknown; did you mean 'loop'?"),
        (("--precision", "fp23"), "model.precision 'fp23' is unknown; did you mean 'fp32'?"),
        (("--device", "tpu"), "unknown device 'tpu': valid names: auto, cpu, cuda"),
        pytest.param(("--device", "cuda"), "sees no CUDA device; use --device cpu or auto", marks=NO_CUDA),
        (("--ways", "9"), "9-way tasks need as many classes, it has 8; lower ways"),
        (("--shots", "18"), "18 shots and 3 queries need 21; lower shots or queries"),
        (("--set", "evaluate.queries=30"), "(asked for by tasks.ways=3, tasks.shots=1 and evaluate.queries=30; "),
        (("--set", "tasks.queries=30"), "tasks.shots=1 and tasks.queries=30; change them with --set)"),
        (("--set", "training.validations=0", "--set", "evaluate.batch=0"), "evaluate.batch: expected at least 1"),
        (("--set", "macro.channels=5"), "macro.channels: expected an even number from 2 on, got 5"),
    ],
)
def test_search_refuses(refused, search_words, tmp_path, more, words):
    assert words in refused(*search_words(tmp_path / "run", *more))
    assert not (tmp_path / "run").exists(), "the next try may use the same name"


def test_a_data_file_of_something_else(refused, search_words, tmp_path):
    (tmp_path / "mine.npz").write_text("text")
    line = refused(*search_words(tmp_path / "run", "--data", str(tmp_path)))
    assert line.startswith(f"{tmp_path}, class folders with images: expected at least 3 classes")
    assert "cannot read" in refused(*search_words(tmp_path / "run", "--data", str(tmp_path / "mine.npz")))


def test_a_rate_that_explodes_names_the_step_and_what_to_do(refused, search_words, tmp_path):
    line = refused(*search_words(tmp_path / "run", "--set", "inner.weight_rate=1e38"))
    assert line.startswith("meta-step 1: no task of this batch stayed finite")
    assert "lower inner.weight_rate" in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--split", "tset"), "--split 'tset': expected val or test"),
        (("--split", "train"), "--split 'train': expected val or test"),
        (("--bn", "suport"), "model.bn 'suport' is unknown; did you mean 'support'?"),
        (("--precision", "half"), "model.precision 'half' is unknown"),
        (("--data", "glyps"), "did you mean 'glyphs'?"),
        (("--device", "gpu"), "unknown device 'gpu'"),
        pytest.param(("--device", "cuda"), "sees no CUDA device", marks=NO_CUDA),
    ],
)
def test_evaluate_refuses(refused, run, more, words):
    assert words in refused("evaluate", run, "--tasks", 2, *more)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--rule", "sample"), "unknown selection rule 'sample': did you mean 'sampled'?"),
        (("--rule", "sampled", "--set", "cels=3"), "unknown setting 'sampled.cels' of selection rule 'sampled'"),
        (("--rule", "sampled", "--set", "cells"), "--set 'cells': expected option=value"),
        (("--checkpoint", "first"), "--checkpoint 'first': expected best, last, supernet"),
    ],
)
def test_derive_refuses(refused, run, more, words):
    assert words in refused("derive", run, *more)


@pytest.mark.parametrize("verb", ["evaluate", "derive"])
@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty folder"])
def test_what_is_no_run(refused, tmp_path, verb, there):
    folder = tmp_path if there else tmp_path / "gone"
    assert refused(verb, folder).startswith(f"{folder} is not a run folder (it has no config.yaml)")


@pytest.mark.parametrize("verb", ["evaluate", "derive"])
@pytest.mark.parametrize("fault", ["damaged", "missing", "configuration"])
def test_a_run_that_was_spoilt(refused, run, tmp_path, verb, fault):
    shutil.copytree(run, tmp_path / "copy")
    (tensors,) = (tmp_path / "copy" / "checkpoints").glob("best-*.safetensors")
    words = {"damaged": "is damaged", "missing": "no readable checkpoint 'best'", "configuration": "unknown setting"}
    if fault == "damaged":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    elif fault == "missing":
        tensors.unlink()
    else:
        (tmp_path / "copy" / "config.yaml").write_text("inner: {stps: 3}")
    assert words[fault] in refused(verb, tmp_path / "copy")


@pytest.mark.parametrize("verb", ["evaluate", "derive"])
def test_a_checkpoint_of_another_network(refused, run, tmp_path, verb):
    shutil.copytree(run, tmp_path / "copy")
    table = yaml.safe_load((tmp_path / "copy" / "config.yaml").read_text())
    table["space"]["nodes"] = 3
    (tmp_path / "copy" / "config.yaml").write_text(yaml.safe_dump(table))
    line = refused(verb, tmp_path / "copy")
    assert verb == "derive" or line.startswith("checkpoint of another space or network: ")


def test_a_result_that_cannot_be_written(refused, run, tmp_path):
    line = refused("evaluate", run, "--tasks", 2, "--json", tmp_path / "gone" / "a.json", "--steps", 0)
    assert f"cannot write {tmp_path / 'gone' / 'a.json'}: its folder is missing or not writable" in line


@pytest.mark.parametrize(
    "words", [("serch",), ("search",), ("info", "--devise", "cpu"), ("evaluate", "x", "--tasks", "1")]
)
def test_wrong_words_are_typers_to_explain(metadarts, words):
    answer = metadarts(*words)
    assert answer.code == 2
    assert answer.err
    assert "Traceback" not in answer.err


def test_a_verb_that_fails_inside_is_not_dressed_up_as_the_users_fault(metadarts, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("metadarts.core.machine.describe_installation", broken)
    with pytest.raises(ValueError, match="a bug"):
        metadarts("info")


def test_an_interrupt_ends_with_its_own_code(metadarts, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("metadarts.core.machine.describe_installation", interrupted)
    answer = metadarts("info")
    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_sigterm_within_an_import_ends_with_its_code_whatever_breaks_later(metadarts, monkeypatch):
    """Imports turn what a handler raises into errors of their own, or leave a package half-loaded."""

    def broken(*_):
        with contextlib.suppress(SystemExit):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(1)
        raise RecursionError("half a package")

    monkeypatch.setattr("metadarts.core.machine.describe_installation", broken)
    answer = metadarts("info")
    assert (answer.code, answer.err) == (143, "")


def test_an_error_of_several_lines_is_still_one(refused, monkeypatch):
    def torn(*_):
        raise RunError("one\ntwo")

    monkeypatch.setattr("metadarts.core.machine.describe_installation", torn)
    assert refused("info") == "one two"


def test_the_test_split_waits_for_the_end_of_the_search(refused, run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "finished.json").unlink()
    assert "its search has not ended" in refused("evaluate", tmp_path / "copy")


NO_TORCH = """
import importlib.abc, json, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torch."):  # what its package imports first; where it lies may be asked
            raise AssertionError("torch is loaded")

sys.meta_path.insert(0, NoTorch())
from metadarts.cli import main

codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["metadarts", *words]
    try:
        main()
    except SystemExit as ended:
        codes.append(ended.code)
print(json.dumps(codes))
"""
GONE = "/gone/far"
WRONG_PATHS = [
    ["predict", GONE, "x.jpg"],
    ["predict", __file__, GONE],
    *(["evaluate", GONE], ["derive", GONE], ["report", GONE], ["diagnose", GONE], ["results", GONE]),
    *(["archive", "ls", GONE], ["archive", "verify", GONE], ["archive", "merge", "x", GONE]),
    ["archive", "add", "x", "--run", GONE, "--tasks", "3"],
    *(["search", option, GONE, "--out", "x"] for option in ("--data", "--config", "--resume")),
    ["adapt", GONE, "--images", ".", "--out", "x"],
    ["adapt", "auto", "--images", GONE, "--out", "x"],
    ["export", GONE, "--out", "x.onnx"],
    ["export", "--verify", GONE],
    ["metamodel", "train", GONE, "--out", "x"],
    ["metamodel", "predict", GONE, "--images", "."],
    ["metamodel", "evaluate", GONE],
    ["reproduce", "tnas-fc100", "--data-root", GONE, "--out", "x"],
]


def test_a_wrong_path_help_and_info_are_answered_before_torch_is_loaded():
    """Loading it takes seconds."""
    cases = [*WRONG_PATHS, ["--help"], ["search", "--help"], ["--version"], ["info"]]
    command = [sys.executable, "-c", NO_TORCH, json.dumps(cases)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [2] * len(WRONG_PATHS) + [0] * 4
    said = [line for line in run.stderr.splitlines() if line.startswith("metadarts: ")]
    assert len(said) == len(WRONG_PATHS)
    assert all(GONE in line for line in said)


@pytest.mark.parametrize("what", ["below a file", "a link that leads nowhere"])
def test_a_place_that_takes_no_result_is_found_before_torch_is_loaded(tmp_path, what):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("gone")
    out, there = str(tmp_path / "file" / "below" if what == "below a file" else tmp_path / "link"), str(tmp_path)
    cases = [
        ["adapt", "auto", "--images", there, "--out", out],
        ["archive", "add", out, "--run", there, "--tasks", "3"],
        ["archive", "merge", out, there],
        ["demo", "--out", out],
        ["diagnose", there, "--out", out],
        ["evaluate", there, "--json", out],
        ["export", there, "--out", out],
        ["metamodel", "train", there, "--out", out],
        ["metamodel", "predict", there, "--images", there, "--json", out],
        ["metamodel", "evaluate", "--json", out],
        ["report", there, "--out", out],
        ["reproduce", "tnas-fc100", "--out", out],
        ["results", there, "--out", out],
        ["search", "--out", out],
    ]
    command = [sys.executable, "-c", NO_TORCH, json.dumps(cases)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [2] * len(cases)
    said = [line for line in run.stderr.splitlines() if line.startswith("metadarts: ")]
    assert len(said) == len(cases)
    assert all(line.startswith(f"metadarts: cannot write {out}: ") for line in said), said
    assert (tmp_path / "file").read_text() == "mine"
    assert os.readlink(tmp_path / "link") == "gone"


@pytest.mark.parametrize("content", ["mine", "{}", "[1]"])
def test_evaluate_replaces_no_file_of_others(refused, run, tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    line = refused("evaluate", run, "--tasks", 2, "--json", tmp_path / "mine.json")
    assert "exists, and evaluate did not write it" in line
    assert (tmp_path / "mine.json").read_text() == content


def test_names_in_messages_obey_no_terminal(metadarts, capsys):
    answer = metadarts("evaluate", "gone\x1b[2J\nmetadarts: all is well")
    assert answer.code == 2
    assert answer.err.startswith(r"metadarts: gone\x1b[2J metadarts: all is well is not a run folder")


def test_what_is_printed_is_one_line_and_can_be_printed_anywhere(capsys):
    console.print("class \x1b]0;owned\x07\nforged: 99 %\udce9", soft_wrap=True)
    console.page("two\nlines\x1b[31m")
    assert capsys.readouterr().out == "class \\x1b]0;owned\\x07\\nforged: 99 %\\udce9\ntwo\nlines\\x1b[31m\n"


def test_a_terminal_of_ascii_is_told_all_the_same():
    command = [sys.executable, "-c", "from metadarts.cli import main; main()", "evaluate", "gön"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith(r"metadarts: g\xf6n is not a run folder")
