"""Run folders: what a run leaves on disk.

config.yaml            the resolved configuration
env.json               versions, device, threads
finished.json          steps and seconds, once the search has ended
    metrics.jsonl          one line per record (train, validate)
events.out.tfevents.*  TensorBoard
checkpoints/           NAME.json (step, validation, hash) and the .safetensors file that it names
genotype.json          the derived cell, with genotype.txt, cell.svg and cell.png beside it after `derive`
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metadarts.core.errors import RunError
from metadarts.core.types import Params
from metadarts.meta import MetaState

from .config import Config, dump_config, load_config

RATE_KEY = "log_rate/"
PARAM_KEY = "param/"
FORMAT = "metadarts.checkpoint"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and move it into place, so that no reader ever sees half a file."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another --out"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """One saved state.

    Args:
        params: shared parameters.
        log_rates: logarithms of the learned inner rates; empty when rates are constants.
        facts: step, validation accuracy and so on, from the JSON file.
    """

    params: Params
    log_rates: Params
    facts: dict[str, Any]

    @property
    def rates(self) -> Params | None:
        return {name: tensor.exp() for name, tensor in self.log_rates.items()} or None


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path, config: Config, environment: dict[str, Any]) -> RunFolder:
        """A new folder with config.yaml and env.json. Raises RunError when ``path`` exists or cannot be made."""
        if path.exists():
            raise RunError(f"{path} exists: give --out another name, or remove it first")
        try:
            (path / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot create {path}: {error.strerror or error}") from error
        run = RunFolder(path)
        run.write("config.yaml", dump_config(config))
        run.write_json("env.json", environment)
        return run

    @staticmethod
    def open(path: Path) -> RunFolder:
        """An existing run. Raises RunError when ``path`` is not one."""
        if not (path / "config.yaml").is_file():
            raise RunError(f"{path} is not a run folder (it has no config.yaml): give what search --out named")
        return RunFolder(path)

    def require_finished(self) -> None:
        """Require that the search has ended. Raises RunError: the test classes wait for a fixed checkpoint."""
        if not (self.path / "finished.json").is_file():
            raise RunError(f"{self.path}: its search has not ended, and test classes wait for that; use --split val")

    def config(self) -> Config:
        return load_config(self.path / "config.yaml")

    def write(self, name: str, text: str) -> Path:
        write_atomically(self.path / name, text.encode())
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=2) + "\n")

    def record(self, **facts: Any) -> None:
        """Append one line to metrics.jsonl. Raises RunError when it cannot be written."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}; free some space") from error

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl whose "kind" is ``kind``."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if line["kind"] == kind]

    def save(self, name: str, state: MetaState, **facts: Any) -> None:
        """Write checkpoint ``name``: first the tensors under a name of their own, then the JSON that points to them.

        Until the JSON is in place the checkpoint before it stands, so a save cut short loses nothing.
        """
        tensors = {PARAM_KEY + k: v.detach().cpu().contiguous() for k, v in state.params.items()}
        tensors |= {RATE_KEY + k: v.detach().cpu().contiguous() for k, v in state.log_rates.items()}
        content = save_tensors(tensors)
        digest = hashlib.sha256(content).hexdigest()
        file = f"{name}-{digest[:12]}.safetensors"
        described = {"format": FORMAT, "version": 1, "step": state.step, "tensors": file, "sha256": digest, **facts}
        write_atomically(self.path / "checkpoints" / file, content)
        self.write_json(f"checkpoints/{name}.json", described)
        for older in (self.path / "checkpoints").glob(f"{name}-*.safetensors"):
            if older.name != file:
                older.unlink()

    def load(self, name: str) -> Checkpoint:
        """Read checkpoint ``name``. Raises RunError when it is missing, damaged, or not what its JSON vouches for."""
        folder = self.path / "checkpoints"
        try:
            facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            tensors_file = folder / Path(facts["tensors"]).name
            content = tensors_file.read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path} has no readable checkpoint {name!r}: {error}") from error
        if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
            raise RunError(f"{tensors_file} is damaged: its hash is not the one in {name}.json")
        try:
            tensors = load_tensors(content)
        except SafetensorError as error:
            raise RunError(f"{tensors_file} is not a safetensors file ({error})") from error
        params = {k[len(PARAM_KEY) :]: v for k, v in tensors.items() if k.startswith(PARAM_KEY)}
        rates = {k[len(RATE_KEY) :]: v for k, v in tensors.items() if k.startswith(RATE_KEY)}
        return Checkpoint(params, rates, facts)
