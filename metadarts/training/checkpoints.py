"""Checkpoints: tensors in a .safetensors file, everything else in JSON. Nothing is ever unpickled.

A checkpoint is two files: NAME-HASH.safetensors, and NAME.json that names it and vouches for its hash. The tensors are
written first; until the JSON is in place the checkpoint before it stands, so a save cut short loses nothing.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metadarts.core.errors import RunError
from metadarts.core.types import Params
from metadarts.meta import MetaState
from metadarts.store.fields import Count, Digest, Fraction
from metadarts.store.files import write_atomically
from metadarts.store.schema import Schema, content
from metadarts.store.tensors import MOST_BYTES

FORMAT, VERSION = "metadarts.checkpoint", 1
ATTEMPTS = 3
"""A search that runs meanwhile may replace the tensors between the reading of the JSON and theirs."""
GROUPS = {"params": "param/", "log_rates": "log_rate/", "memory": "memory/"}
"""Field of `Checkpoint` -> what the names of its tensors begin with in the file."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state.

    Args:
        params: shared parameters.
        log_rates: logarithms of the learned inner rates; empty when rates are constants.
        facts: step, validation accuracy and so on, from the JSON file.
        memory: the outer optimiser's, see `MetaState.memory`; empty in a checkpoint that is only to be measured.
    """

    params: Params
    log_rates: Params
    facts: dict[str, Any]
    memory: Params = field(default_factory=dict)

    @property
    def rates(self) -> Params | None:
        return {name: tensor.exp() for name, tensor in self.log_rates.items()} or None


@dataclass(frozen=True)
class CheckpointFacts:
    """NAME.json: the step, the file of tensors with its hash, and the rest of `Checkpoint.facts`.

    Args:
        progress: how far the run was at its last step; version 0.1 wrote none.
        genotype: the cell that is left where the run has committed to one.
    """

    step: Count
    tensors: str
    sha256: Digest
    more: dict[str, Any]
    progress: Fraction = 1.0
    genotype: str | None = None


CHECKPOINT = Schema(CheckpointFacts, RunError, form=(FORMAT, VERSION), finite=False)


def save_checkpoint(folder: Path, name: str, state: MetaState, facts: dict[str, Any], resumable: bool = False) -> None:
    """Write checkpoint ``name`` into ``folder``; with ``resumable`` also the optimiser's memory. Raises RunError."""
    groups = {"params": state.params, "log_rates": state.log_rates, "memory": state.memory() if resumable else {}}
    content = save_tensors(
        {
            GROUPS[group] + key: tensor.detach().cpu().contiguous()
            for group, tensors in groups.items()
            for key, tensor in tensors.items()
        }
    )
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.safetensors"
    described = {
        "format": FORMAT,
        "version": VERSION,
        "step": state.step,
        "progress": float(state.progress),
        "tensors": file,
        "sha256": digest,
        **facts,
    }
    with suppress(OSError):  # whatever is wrong with the folder, the writing says
        folder.mkdir(exist_ok=True)
    write_atomically(folder / file, content)
    write_atomically(folder / f"{name}.json", (json.dumps(described, indent=2) + "\n").encode())
    for other in folder.glob(f"{name}-*"):  # the checkpoint before, and what a killed save left behind
        if other.name != file:
            other.unlink(missing_ok=True)


def load_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Read checkpoint ``name``. Raises RunError when it is missing, damaged, or not what its JSON vouches for."""
    with CHECKPOINT.refusing(f"{folder.parent} has no readable checkpoint {name!r}"):
        facts, told, stored = _stored(folder, name)
    path = folder / Path(told.tensors).name
    if hashlib.sha256(stored).hexdigest() != told.sha256:
        raise RunError(f"{path} is damaged: its hash is not the one in {name}.json")
    try:
        tensors = load_tensors(stored)
    except SafetensorError as error:
        raise RunError(f"{path} is not a safetensors file ({error})") from error
    parts = {
        group: {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        for group, prefix in GROUPS.items()
    }
    return Checkpoint(**parts, facts=facts)


def _stored(folder: Path, name: str, attempts: int = ATTEMPTS) -> tuple[dict[str, Any], CheckpointFacts, bytes]:
    """The JSON, plain and read, and the content of the file that it names. Raises OSError, ValueError, RunError."""
    try:
        facts = CHECKPOINT.loads(content(folder / f"{name}.json"))
        told = CHECKPOINT.convert(facts)
        return facts, told, content(folder / Path(told.tensors).name, MOST_BYTES)
    except FileNotFoundError:
        if attempts == 1:
            raise
    return _stored(folder, name, attempts - 1)
