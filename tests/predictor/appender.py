"""Made-up records, and a process that appends them until it is killed.

python appender.py ARCHIVE ACKNOWLEDGED SEED PAUSE: each batch is added in one call; then the batch's number is written
to ACKNOWLEDGED and synced; then it rests for PAUSE seconds.
python appender.py ARCHIVE SEED: adds a batch, and kills itself in the middle of writing the next.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.predictor.archive import Archive
from metadarts.predictor.task_record import ADAPTED, EPISODE, TRAINED, Origin, TaskRecord
from metadarts.spaces import SearchSpace, darts

SPACE = darts(2)
BATCH = 10


def made(seed: int, number: int, space: SearchSpace = SPACE, /, **changes: object) -> TaskRecord:
    """TaskRecord ``number`` of ``seed``: the same whenever it is asked for."""
    draw = Key.from_seed(seed).child("made", number).numpy()
    alphas = {cell: draw.normal(size=space.alpha_shape).astype(np.float32) for cell in space.cell_types}
    rows = draw.permutation(60).reshape(2, 30)
    facts = {
        "source": "made",
        "content_sha256": "0" * 64,
        "split": "train",
        "classes": [seed % 7, 7 + number % 5],
        "support": rows[:, :2].tolist(),
        "query": rows[:, 2:5].tolist(),
    }
    fields = {
        "origin": Origin(EPISODE, facts),
        "space": space,
        "alphas": alphas,
        "genotype": derive_genotype({cell: torch.tensor(table) for cell, table in alphas.items()}, space).canonical(),
        "before": float(draw.uniform(0, 0.5)),
        "after": float(draw.uniform(0.5, 1)),
        "role": ADAPTED,
        "seed": seed,
        "run": "made",
        "settings": {"steps": 5, "rule": "sgd"},
    }
    return TaskRecord(**(fields | changes))


def batch(seed: int, number: int) -> list[TaskRecord]:
    """Records that are quickly made, so that most of the time goes into writing them."""
    first = made(seed, 0, role=TRAINED)
    return [replace(first, settings={"number": number, "place": place}) for place in range(BATCH)]


def append(archive: Path, acknowledged: Path, seed: int, pause: float) -> None:
    with Archive.open(archive, write=True) as opened, acknowledged.open("a") as told:
        for number in count():
            opened.add(batch(seed, number))
            told.write(f"{number}\n")
            told.flush()
            os.fsync(told.fileno())
            time.sleep(pause)


def die_inside(archive: Path, seed: int) -> None:
    with Archive.open(archive, write=True) as opened:
        opened.add(batch(seed, 0))
        begun: list[str] = []

        def watch(statement: str) -> None:
            begun.extend([statement] if statement.startswith("INSERT") else [])
            if len(begun) > BATCH // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        opened._connection.set_trace_callback(watch)
        opened.add(batch(seed, 1))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        die_inside(Path(sys.argv[1]), int(sys.argv[2]))
    append(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
