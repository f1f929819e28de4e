"""Run folders: the files of a run.

config.yaml            the resolved configuration
env.json               versions, device, threads, the hash of the data
finished.json          steps and seconds, once the search has ended
metrics.jsonl          one line per record: train, validate, alphas, commit, resume, memory
events.out.tfevents.*  TensorBoard
checkpoints/           best and last: NAME.json (step, validation, hash) and the .safetensors file that it names
genotype.json          the derived cell, with genotype.txt, cell.svg and cell.png beside it after `derive`
report.html            after `report`
.lock                  held while a search runs here
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metadarts.core.errors import MetadartsError, RunError
from metadarts.meta import MetaState
from metadarts.store.drafts import drafted
from metadarts.store.files import append_line, cannot_write, require_place, sync, write_atomically
from metadarts.store.locks import locked
from metadarts.store.schema import Schema, content, fitting_file

from .checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from .config import Config, dump_config, load_config

METRICS = "metrics.jsonl"
MOST_METRICS = 2**32
"""Bytes of `METRICS`."""


@dataclass(frozen=True)
class Record:
    """A line of `METRICS`: its kind, and whatever a record of that kind holds, NaN among it."""

    kind: str
    more: dict[str, Any]


RECORD = Schema(Record, RunError, "expected one JSON record per line", finite=False)


class RunFolder:
    """One run on disk.

    Args:
        plugins: modules or files with the user's entries that its configuration names, see `load_config`.
    """

    def __init__(self, path: Path, plugins: Sequence[str] = ()) -> None:
        self.path, self.plugins = path, tuple(plugins)

    @staticmethod
    def require_new(path: Path) -> None:
        """Require that nothing is at ``path``. Raises RunError."""
        try:
            there = path.exists() or path.is_symlink()
        except OSError as error:  # a name too long, a folder that may not be looked into
            raise RunError(f"cannot create {path}: {error.strerror or error}") from error
        if there:
            hint = f", go on with --resume {path}" if (path / "config.yaml").is_file() else ""
            raise RunError(f"{path} exists: give --out another name{hint}, or remove it first")
        require_place(path)

    @staticmethod
    def create(path: Path, config: Config, environment: dict[str, Any], plugins: Sequence[str] = ()) -> RunFolder:
        """A new folder with config.yaml and env.json, created atomically.

        Args:
            plugins: modules or files with the user's entries that ``config`` names.

        Raises:
            RunError: when ``path`` exists or cannot be created.
        """
        RunFolder.require_new(path)
        try:
            with drafted(path) as draft:
                made = RunFolder(draft)
                (draft / "checkpoints").mkdir(parents=True)
                made.write("config.yaml", dump_config(config))
                made.write_json("env.json", environment)
                draft.rename(path)
        except OSError as error:
            raise RunError(f"cannot create {path}: {error.strerror or error}") from error
        except MetadartsError as error:
            raise RunError(str(error).replace(str(draft), str(path))) from error
        return RunFolder(path, plugins)

    @staticmethod
    def open(path: Path, plugins: Sequence[str] = ()) -> RunFolder:
        """An existing run. Raises RunError when ``path`` is not one."""
        try:
            there = (path / "config.yaml").is_file()
        except OSError as error:
            raise RunError(f"cannot open {path}: {error.strerror or error}") from error
        if not there:
            raise RunError(f"{path} is not a run folder (it has no config.yaml): give what search --out named")
        return RunFolder(path, plugins)

    @property
    def is_finished(self) -> bool:
        """Whether the search has ended."""
        return (self.path / "finished.json").is_file()

    def require_finished(self) -> None:
        """Require that the search has ended. Raises RunError: evaluation on test classes requires a fixed
        checkpoint."""
        if not self.is_finished:
            raise RunError(f"{self.path}: its search has not ended, and test classes wait for that; use --split val")

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder during a search; the system releases the lock when the process ends. Raises RunError if
        locked."""
        busy = f"{self.path}: another search is running in it; wait for it, or stop it first"
        return locked(self.path / ".lock", busy)

    def config(self) -> Config:
        return load_config(self.path / "config.yaml", self.plugins)

    def environment(self) -> dict[str, Any]:
        """Facts about the machine and the data from env.json; empty if it cannot be read."""
        return fitting_file(self.path / "env.json", dict) or {}

    def write(self, name: str, text: str) -> Path:
        write_atomically(self.path / name, text.encode())
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=2) + "\n")

    def record(self, **facts: Any) -> None:
        """Append one line to metrics.jsonl. Raises RunError when it cannot be written."""
        append_line(self.path / METRICS, json.dumps(facts))

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl whose "kind" is ``kind``; a last line that a kill truncated is ignored.

        Raises RunError when another line is not a record.
        """
        path = self.path / METRICS
        if not path.exists():
            return []
        with RECORD.refusing(f"{path} is damaged"):
            lines = content(path, MOST_METRICS).splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        found = [RECORD.read(line, f"{path} is damaged: line {place}") for place, line in enumerate(lines, 1)]
        return [{"kind": kind} | record.more for record in found if record.kind == kind]

    def settled_metrics(self) -> int:
        """Current size of metrics.jsonl in bytes, all of them on disk. Raises RunError."""
        path = self.path / METRICS
        sync(path)
        return path.stat().st_size if path.exists() else 0

    def cut_metrics(self, size: int) -> None:
        """Drop records after the first ``size`` bytes, and an incomplete last line. Raises RunError."""
        path = self.path / METRICS
        try:
            if path.exists():
                kept = path.read_bytes()[:size]
                os.truncate(path, kept.rfind(b"\n") + 1)
        except OSError as error:
            raise cannot_write(path, error) from error

    def has(self, name: str) -> bool:
        """Whether checkpoint ``name`` was ever written."""
        return (self.path / "checkpoints" / f"{name}.json").exists()

    def save(self, name: str, state: MetaState, *, resumable: bool = False, **facts: Any) -> None:
        """Write checkpoint ``name``, see `save_checkpoint`."""
        save_checkpoint(self.path / "checkpoints", name, state, facts, resumable)

    def load(self, name: str) -> Checkpoint:
        """Read checkpoint ``name``, see `load_checkpoint`."""
        return load_checkpoint(self.path / "checkpoints", name)
