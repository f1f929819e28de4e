"""The folder of a table: whose it is, that one process at a time works in it, and its frozen episodes.

OUT/plan.json                  which table this is, and the hashes of its episodes
OUT/episodes-SHOTSshot.jsonl   the frozen test episodes
OUT/runs/NAME-*                run folders of the trainings
OUT/measured/SETTING/*.json    accuracies by task, of one row and seed; *.part.jsonl of a row stopped half-way
OUT/table.json, table.md, table.png, table-comparisons.png   (table-so-far.* of an unfinished one)
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.store import locks
from metadarts.store.fields import Digest
from metadarts.store.files import cannot_write, write_atomically
from metadarts.store.schema import Schema
from metadarts.tasks import EpisodeSampler
from metadarts.tasks.frozen import FrozenEpisodes, freeze, thaw

from .job import Job
from .tables import QUERIES, WAYS

PLAN, LOCK = "plan.json", ".lock"
TEST_TASKS = Key.from_seed(0).child("held out", "test")
"""As `metadarts.training.build.held_out` has them: the tasks that `metadarts evaluate` measures on."""


@dataclass(frozen=True)
class Plan:
    """plan.json: which table a folder is of, and the hashes of its episodes by shots."""

    table: str
    budget: str
    split: str
    episodes: dict[str, Digest]


PLAN_FILE = Schema(Plan, RunError, "give another --out")


def locked(out: Path) -> AbstractContextManager[None]:
    """Hold the folder, making it where it is not there. Raises RunError when another process holds it."""
    return locks.locked(out / LOCK, f"{out}: another process is at work in it; wait for it, or stop it first")


def require_own(job: Job) -> None:
    """Require a folder that is new, empty, or this table's; nothing is written. Raises RunError."""
    try:
        _require_own(job.out)
    except OSError as error:
        raise cannot_write(job.out, error) from error
    _known(job.out / PLAN, _plan_of(job))


def _require_own(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out} is a file; give the name of a folder")
    # A process may have died between the episodes and the plan, or a run been put in its place beforehand.
    ours = (LOCK, "runs", "episodes-", PLAN)
    others = {entry.name for entry in out.iterdir() if not entry.name.startswith(ours)} if out.is_dir() else set()
    if others and not (out / PLAN).is_file():
        raise RunError(f"--out {out} holds something else ({sorted(others)[0]}); give a new or an empty folder")


def frozen_episodes(job: Job, shots: set[int]) -> dict[int, FrozenEpisodes]:
    """The test episodes of ``shots``, drawn where the folder has none yet; the folder is then this table's.

    Raises:
        RunError: when the folder is another table's, or its episodes are not those it was begun with.
        DataError: when an episode file was changed.
    """
    plan = _plan_of(job)
    known = _known(job.out / PLAN, plan)
    found = {number: _frozen(job, number) for number in sorted(shots)}
    hashes = {str(number): episodes.sha256 for number, episodes in found.items()}
    for number, digest in hashes.items():
        if known.get(number, digest) != digest:
            raise RunError(
                f"{job.out}: the {number}-shot test episodes are not those this table was begun with "
                f"({known[number][:12]}…, now {digest[:12]}…); restore the file, or give another --out"
            )
    if not job.so_far and hashes.items() - known.items():
        write_atomically(job.out / PLAN, (json.dumps(plan | {"episodes": known | hashes}, indent=2) + "\n").encode())
    return found


def _plan_of(job: Job) -> dict[str, str]:
    return {"table": job.spec.name, "budget": job.budget, "split": job.split}


def _known(path: Path, plan: dict[str, str]) -> dict[str, str]:
    """The hashes in a folder's plan; none where there is no plan yet."""
    if not path.exists():
        return {}
    before = PLAN_FILE.read(path)
    if odd := [name for name, value in plan.items() if getattr(before, name) != value]:
        raise RunError(
            f"{path.parent} holds another table: its {odd[0]} is {str(getattr(before, odd[0]))[:60]!r}, asked for is "
            f"{plan[odd[0]]!r}; give another --out"
        )
    return before.episodes


def _frozen(job: Job, shots: int) -> FrozenEpisodes:
    sampler = EpisodeSampler(job.source, "test", WAYS, shots, QUERIES)
    path, tasks = job.out / f"episodes-{shots}shot.jsonl", job.spec.tasks(job.budget)
    return thaw(path, sampler, tasks) if job.so_far else freeze(path, sampler, TEST_TASKS, tasks)
