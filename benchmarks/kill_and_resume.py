"""Kill a search at random moments and go on with it: does it end as the search that nobody killed?

    python -m benchmarks.kill_and_resume --kills 20

One short search runs undisturbed. Then, for every kill, the same search is started anew in a process of its own, killed
(SIGKILL) at a random moment of its life, start-up and saving included, and resumed to its end. All tensors of both
checkpoints, the validation records and the step must equal the undisturbed run's to the last bit. With ``--chain`` all
kills hit one run, each process going on where the one before died.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metadarts.core.rng import Key
from metadarts.training import RunFolder

STEPS = 60
SETTINGS = {
    "macro.channels": 4,
    "space.nodes": 2,
    "macro.stem": "[4, 6]",
    "inner.steps": 1,
    "inner.learn_rates": "true",
    "outer.clip": 0.05,
    "training.tasks": 2,
    "training.meta_steps": STEPS,
    "training.minutes": 0,
    "training.validations": 6,
    "training.validation_tasks": 20,
    "training.save_seconds": 0.2,
    "tasks.queries": 2,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
}
"""A network of a few thousand weights, saved so often that many kills fall into the saving; every update is clipped."""


@dataclass(frozen=True)
class Searcher:
    """Starts searches as a user does: the command line, in a process of its own, on one thread."""

    data: str

    def words(self, out: Path) -> list[str]:
        """A new search, or the way on where there is a run already."""
        program = [sys.executable, "-c", "from metadarts.cli import main; main()", "search"]
        if out.exists():
            return [*program, "--resume", str(out)]
        sets = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        return [*program, "--data", self.data, "--ways", "3", "--threads", "1", "--out", str(out), *sets]

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(self.words(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=threads)

    def finish(self, out: Path) -> float:
        """Run to the end; the seconds it took. Raises RuntimeError when the search fails."""
        began = time.monotonic()
        process = self.start(out)
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"search in {out} ended with {process.returncode}: {errors.decode()}")
        return time.monotonic() - began

    def kill_after(self, out: Path, seconds: float) -> bool:
        """Start or go on, and kill after so many seconds; whether it was still alive then."""
        process = self.start(out)
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        if process.returncode:
            raise RuntimeError(f"search in {out} failed by itself with {process.returncode}")
        return False


def outcome(run: RunFolder) -> dict[str, Any]:
    """All that must not depend on kills: names and bytes of every tensor, validation records, the last step."""
    found: dict[str, Any] = {}
    for name in ("best", "last"):
        checkpoint = run.load(name)
        for group in ("params", "log_rates", "memory"):
            for key, tensor in getattr(checkpoint, group).items():
                found[f"{name}/{group}/{key}"] = (str(tensor.dtype), tensor.numpy().tobytes())
        found[f"{name}/step"] = checkpoint.facts["step"]
    looks = run.records("validate")
    return found | {"looks": [{k: v for k, v in look.items() if k != "seconds"} for look in looks]}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names under which the two outcomes differ."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def where(run: Path) -> str:
    """What a killed process left."""
    if not run.exists():
        return "before the run folder"
    folder = RunFolder(run)
    if folder.is_finished:
        return "after the end"
    return f"after saving step {folder.load('last').facts['step']}" if folder.has("last") else "before the first save"


def trials(data: str, kills: int, seed: int, folder: Path, chain: bool = False) -> list[dict[str, Any]]:
    """One row per kill: the moment, what stood on disk, and which tensors or records differ in the end (none should).

    Args:
        data: as the command line's ``--data``.
        kills: how many.
        seed: of the moments.
        folder: where the runs go.
        chain: all kills in one run, compared once at its end.
    """
    searcher, draw = Searcher(data), Key.from_seed(seed).child("kill moments").numpy()
    lifetime = searcher.finish(folder / "whole")
    expected = outcome(RunFolder.open(folder / "whole"))
    rows: list[dict[str, Any]] = []
    for number in range(kills):
        run = folder / ("chained" if chain else f"killed-{number}")
        moment = float(draw.uniform(0.0, lifetime))
        while not searcher.kill_after(run, moment):  # it had ended already: a moment past its life is no trial
            if not chain:
                shutil.rmtree(run)
            moment = float(draw.uniform(0.0, moment))
        rows.append({"kill": number, "seconds": round(moment, 3), "left": where(run)})
        if not chain or number == kills - 1:
            searcher.finish(run)
            rows[-1]["differences"] = differences(outcome(RunFolder.open(run)), expected)
    return rows


def verdict(row: dict[str, Any]) -> str:
    """How the run of ``row`` ended, in words."""
    if "differences" not in row:
        return "goes on"
    return f"DIFFERS in {row['differences']}" if row["differences"] else "bit-equal in the end"


def main(arguments: list[str] | None = None) -> int:
    """Print one line per kill; exit code 1 when any run ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_and_resume", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--data", default="glyphs", help="as for metadarts search")
    parser.add_argument("--chain", action="store_true", help="all kills hit one run")
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = trials(options.data, options.kills, options.seed, Path(folder), options.chain)
    for row in rows:
        print(f"kill {row['kill']:3d} at {row['seconds']:6.2f} s, {row['left']}: {verdict(row)}")
    wrong = [row for row in rows if row.get("differences")]
    print(f"{len(rows)} kills, {len(wrong)} differ")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
