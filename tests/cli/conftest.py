"""What the verbs' tests share: one thread, a small data file, a finished run, and a way to call the entry point."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from metadarts.cli import main
from metadarts.core.rng import Key

SETTINGS = {
    "macro.channels": 4,
    "space.nodes": 2,
    "model.stem": "[4, 6]",
    "inner.steps": 1,
    "training.tasks": 2,
    "training.validations": 2,
    "training.validation_tasks": 4,
    "tasks.queries": 2,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
}
CHARACTERS, DRAWINGS, SIZE = 6, 20, 28


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def fonts() -> None:
    """matplotlib's list of fonts, which it makes once per machine and not without a word: no test may be the first."""
    importlib.import_module("matplotlib.font_manager")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Omniglot's documented .npz with two characters a split: a pattern of the character under noise."""
    draw = Key(("tests", "cli")).numpy()
    patterns = draw.integers(0, 160, (CHARACTERS, 1, SIZE, SIZE))
    images = patterns + draw.integers(0, 96, (CHARACTERS, DRAWINGS, SIZE, SIZE))
    path = tmp_path_factory.mktemp("data") / "patterns.npz"
    np.savez(
        path,
        images=images.reshape(-1, SIZE, SIZE).astype(np.uint8),
        character=np.repeat(np.arange(CHARACTERS), DRAWINGS),
        drawer=np.tile(np.arange(DRAWINGS), CHARACTERS),
        character_vinyals=np.arange(CHARACTERS) // 2,
    )
    return path


@pytest.fixture(scope="session")
def search_words(data) -> Callable[..., list[str]]:
    """(run folder, further words) -> the words of a search that takes a second."""

    def words(out: Path, *more: str) -> list[str]:
        sets = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        fixed = [
            "--data",
            str(data),
            "--ways",
            "3",
            "--preset",
            "quick-supernet",
            "--meta-steps",
            "2",
            "--order",
            "first",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        return ["search", "--out", str(out), *fixed, *sets, *more]

    return words


@pytest.fixture(scope="session")
def installed() -> Callable[..., Answer]:
    """(words) -> what the installed program answers in a process of its own."""
    script = Path(sys.executable).parent / "metadarts"
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from metadarts.cli import main; main()"]

    def call(*words: object) -> Answer:
        given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            [*command, *map(str, words)], capture_output=True, text=True, env=given, timeout=600, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def metadarts(monkeypatch, capsys) -> Callable[..., Answer]:
    """(words) -> what the entry point answers, in this process: seconds less per call than a new one."""

    def call(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["metadarts", *map(str, words)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(ended.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def refused(metadarts) -> Callable[..., str]:
    """(words) -> the one line that the program ends with, and exit code 2."""

    def call(*words: object) -> str:
        answer = metadarts(*words)
        assert answer.code == 2, answer
        assert answer.err.count("\n") == 1, answer.err
        assert answer.err.startswith("metadarts: ")
        assert "Traceback" not in answer.out + answer.err
        return answer.err.removeprefix("metadarts: ").rstrip("\n")

    return call


@pytest.fixture(scope="session")
def searched(installed, search_words, tmp_path_factory) -> tuple[Path, Answer]:
    """A run that the installed program made, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    return out, installed(*search_words(out))


@pytest.fixture(scope="session")
def run(searched) -> Path:
    out, answer = searched
    assert answer.code == 0, answer.err
    return out
