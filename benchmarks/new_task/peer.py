"""AutoKeras on the draws that our own fit has done, each for a multiple of the seconds that ours took.

    python -m benchmarks.new_task.peer --python AK/bin/python --draws FOLDER --seconds-from ROWS.jsonl --out PEER.jsonl

AK is the environment that `autokeras_peer` describes, FOLDER what `draws` has written. A line of ROWS.jsonl has at
least `draw` ("cifar100-5-0"), `seconds`, and `threads`, of which AutoKeras gets as many; where a draw is in several
lines, the last one counts. A draw that is in PEER.jsonl is not done again, so this can be stopped at any time and
started anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.new_task.draws import DOMAINS
from metadarts.core.errors import DataError, RunError

SCRIPT = Path(__file__).with_name("autokeras_peer.py")


@dataclass(frozen=True)
class Job:
    """One draw and how long AutoKeras may take for it."""

    draw: str
    seconds: float

    @property
    def order(self) -> tuple[int, int, int]:
        """Its number first, then domain and ways: what is done when it is stopped early is spread over all of them."""
        domain, ways, number = self.draw.rsplit("-", 2)
        return int(number), DOMAINS.index(domain), int(ways)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none where there is no file. Raises DataError for a line that is not JSON."""
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{file}: line {number} is not JSON ({error}); mend or remove that line") from None
    return rows


def jobs(ours: Iterable[dict[str, Any]], done: Iterable[dict[str, Any]], times: float, only: int | None) -> list[Job]:
    """What is left to do, in order: draws of ``ours`` that are not in ``done``, numbers 0 to ``only`` - 1."""
    finished = {row["draw"] for row in done}
    seconds = {row["draw"]: times * row["seconds"] for row in ours}
    left = [Job(draw, allowed) for draw, allowed in seconds.items() if draw not in finished]
    return sorted((job for job in left if only is None or job.order[0] < only), key=lambda job: job.order)


def run(job: Job, python: Path, draws: Path, threads: int, out: Path) -> None:
    """Fit AutoKeras to one draw, in its own environment; it adds its row to ``out``.

    Raises RunError when the script fails; it has then added nothing.
    """
    command = [str(python), str(SCRIPT), str(draws / f"{job.draw}.npz"), "--seconds", f"{job.seconds:.3f}"]
    ended = subprocess.run([*command, "--threads", str(threads), "--out", str(out)], check=False)
    if ended.returncode:
        raise RunError(f"{SCRIPT.name} ended with status {ended.returncode} on {job.draw}; see above")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run what is left to do."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.new_task.peer", description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="the interpreter of AutoKeras's environment")
    parser.add_argument("--draws", type=Path, required=True, help="folder of the draws")
    parser.add_argument("--seconds-from", type=Path, required=True, help="rows of our own fit")
    parser.add_argument("--times", type=float, default=60.0, help="so many times our seconds")
    parser.add_argument("--out", type=Path, required=True, help="file of rows to add to")
    parser.add_argument("--only", type=int, help="draws 0 to ONLY - 1 of every domain and ways")
    options = parser.parse_args(arguments)
    ours = read_rows(options.seconds_from)
    threads = {row["threads"] for row in ours}
    if len(threads) != 1:
        raise DataError(f"{options.seconds_from}: expected rows on one number of threads, got {sorted(threads)}")
    left = jobs(ours, read_rows(options.out), options.times, options.only)
    print(f"{len(left)} draws to do, {sum(job.seconds for job in left) / 60:.0f} minutes", flush=True)
    for job in left:
        run(job, options.python, options.draws, max(threads), options.out)


if __name__ == "__main__":
    main()
