"""Commands killed at random moments: what was there is whole, and the command can be given again and ends as if nothing
had happened.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from metadarts.core.rng import Key
from metadarts.fewshot.folder import load_task
from metadarts.predictor.archive import Archive
from metadarts.predictor.archive_check import check_records

from .stage import Fault, Stage, facts_of, require, snapshot

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
if "reproduce" in sys.argv:
    import pytest
    import metadarts.tasks
    from metadarts.papers.reproduction import TABLES
    from tests.papers.tiny_tables import shrink, source, spec
    patch = pytest.MonkeyPatch()
    shrink(patch)
    metadarts.tasks.open_source = lambda *_, **__: source()
    patch.setitem(TABLES, "glyphs", spec(("headline", "maml")))
from metadarts.cli import main
main()
"""
"""The program, hearing signals also where what started it ignores some; its tables are those of the tests."""


def adapted(out: Path) -> Any:
    """Tensors and classes of a task folder."""
    load_task(out)
    tensors = {name: tensor.tolist() for name, tensor in load_file(out / "task.safetensors").items()}
    return tensors, facts_of(out / "task.json")["classes"], sorted(path.name for path in out.iterdir())


def recorded(out: Path) -> Any:
    """Ids of an archive's records, which are whole."""
    with Archive.open(out) as archive:
        require(check_records(archive).faults == (), "an archive with faults", out)
        return sorted(row.id for row in archive.rows())


def measured(out: Path) -> Any:
    """What an evaluation's file says, without its seconds."""
    return {name: value for name, value in facts_of(out).items() if "second" not in name and name != "environment"}


def tabulated(out: Path) -> Any:
    """What a table says, without its seconds."""
    return [{name: row[name] for name in row if "second" not in name} for row in facts_of(out / "table.json")["rows"]]


@dataclass(frozen=True)
class Trial:
    """A verb that is killed.

    Args:
        words: (stage, destination) -> its words.
        out: its destination's name.
        outcome: what two runs of it must have in common.
        resumes: whether the same words go on where there is a result already; else they refuse it.
        beside: names of files that belong to the result.
        keeps: whether SIGTERM makes it end early, with the best so far: a whole result, but another one.
    """

    words: Callable[[Stage, Path], list[object]]
    out: str
    outcome: Callable[[Path], Any]
    resumes: bool = False
    beside: tuple[str, ...] = ()
    keeps: bool = False


TRIALS = {
    "adapt": Trial(
        lambda stage, out: [
            "adapt", stage.shared / "grey.safetensors", "--images", stage.shared / "zoo-grey", "--out", out, "--steps",
            3, "--finish", "all", "--more-steps", 2, "--threads", 1,
        ],
        "task",
        adapted,
        keeps=True,
    ),
    "archive add": Trial(
        lambda stage, out: [
            "archive", "add", out, "--run", stage.shared / "run", "--tasks", 24, "--device", "cpu", "--threads", 1,
        ],
        "a.sqlite",
        recorded,
        True,
    ),
    "metamodel train": Trial(
        lambda stage, out: [
            "metamodel", "train", stage.shared / "a.sqlite", "--out", out, "--start", stage.shared / "run", "--epochs",
            3, "--data-root", stage.shared / "photos", "--threads", 1,
        ],
        "m.safetensors",
        lambda out: out.read_bytes(),
    ),
    "evaluate": Trial(
        lambda stage, out: [
            "evaluate", stage.shared / "run", "--tasks", 40, "--json", out, "--device", "cpu", "--threads", 1,
        ],
        "e.json",
        measured,
        True,
    ),
    "export": Trial(
        lambda stage, out: ["export", stage.shared / "task-grey", "--out", out],
        "m.py",
        lambda out: (out.read_bytes(), out.with_suffix(".safetensors").read_bytes()),
        beside=("m.safetensors",),
    ),
    "reproduce": Trial(
        lambda stage, out: ["reproduce", "glyphs", "--out", out, "--shots", 1, "--device", "cpu", "--threads", 1],
        "table",
        tabulated,
        True,
    ),
}  # fmt: skip


def _started(stage: Stage, words: list[object]) -> subprocess.Popen[bytes]:
    given = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=given,
        cwd=stage.place,
    )


def _undisturbed(trial: Trial, stage: Stage) -> tuple[Any, float]:
    """What the command comes to, and the seconds that it takes."""
    begun, out = time.monotonic(), stage.place / "undisturbed" / trial.out
    out.parent.mkdir()
    process = _started(stage, trial.words(stage, out))
    said = process.communicate(timeout=600)
    require(process.returncode == 0, "undisturbed", process.returncode, said)
    return trial.outcome(out), time.monotonic() - begun


def trials(name: str, seed: int, stage: Stage, kills: int) -> list[dict[str, Any]]:
    """Kill the verb ``name`` so many times, by SIGKILL and SIGTERM in turn, at any moment of what it takes; a line for
    each. Raises Fault.
    """
    trial, draw = TRIALS[name], Key.from_seed(seed).child("kills", name).numpy()
    expected, seconds = _undisturbed(trial, stage)
    shared = snapshot(stage.shared)
    rows = []
    for number in range(kills):
        sent = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        place = stage.place / f"{number}"
        place.mkdir()
        (place / "mine.txt").write_text("mine")
        out = place / trial.out
        moment = float(draw.uniform(0.0, 1.05 * seconds))
        rows.append({"verb": name, "signal": sent.name, "after_s": round(moment, 2)})
        process = _started(stage, trial.words(stage, out))
        try:
            said = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(sent)
            said = process.communicate(timeout=600)
        rows[-1]["code"] = process.returncode
        facts = (rows[-1], said)
        codes = (0, -signal.SIGKILL) if sent is signal.SIGKILL else (0, 143, -signal.SIGTERM)
        require(process.returncode in codes, "exit code", *facts)
        require(b"Traceback" not in said[1], "traceback", *facts)
        left = sorted(path.name for path in place.iterdir() if path.name != "mine.txt")
        rows[-1]["left"] = left
        if sent is signal.SIGTERM:
            whole = sorted((out.name, *trial.beside))
            require(left == [] or left == whole or (trial.resumes and left == [out.name]), "pieces", *facts)
            require(not list(place.rglob("*.partial")), "drafts after SIGTERM", *facts)
        ended = out.exists() and (trial.resumes or _whole(trial, out))
        if ended and trial.keeps and process.returncode == 128 + signal.SIGTERM:
            require(trial.outcome(out)[1] == expected[1], "half of a result", *facts)
        elif ended and not trial.resumes:
            require(trial.outcome(out) == expected, "half of a result", *facts)
        else:
            again = _started(stage, trial.words(stage, out))
            told = again.communicate(timeout=600)
            require(again.returncode == 0, "not again", *facts, told)
            require(trial.outcome(out) == expected, "another result", *facts)
        require((place / "mine.txt").read_text() == "mine", "a file of others", *facts)
        last = sorted(path.name for path in place.iterdir())
        pieces = [path for path in last if path not in (out.name, *trial.beside, "mine.txt")]
        require(not pieces, "pieces after the second time", *facts, pieces)
        shutil.rmtree(place)
    require(snapshot(stage.shared) == shared, "what was read is changed", name)
    return rows


def _whole(trial: Trial, out: Path) -> bool:
    try:
        trial.outcome(out)
    except Fault:
        raise
    except Exception:  # half of a result may be anything
        return False
    return True
