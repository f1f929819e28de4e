"""One adapted task: its data, its architecture, and the accuracy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.spaces import Genotype, SearchSpace

Alphas = Mapping[str, NDArray[np.float32]]
EPISODE, FOLDER, TEACHER = "episode", "folder", "one-edge teacher"
"""Kinds of an `Origin`: an episode of a source, a person's own images, a task of the synthetic family."""
ADAPTED, TRAINED = "adapted", "trained"
"""Roles of a `TaskRecord`: alphas and weights adapted together, or the weights of one fixed architecture trained."""
RELAXED_BY = "relaxation"
"""The setting that names the relaxation of a record's alphas, where it is not the softmax."""


@dataclass(frozen=True)
class Origin:
    """The information to rebuild a task's support set.

    Args:
        kind: type of ``facts``: `EPISODE`, `FOLDER` or `TEACHER`.
        facts: JSON values. Of an episode: source, content_sha256, split, and the task's classes [N], support [N][K]
            and query [N][Q] image rows of that source. Of a folder: its images with their hashes and labels. Of a
            teacher: seed, number and family.
    """

    kind: str
    facts: Mapping[str, Any]

    def to_json(self) -> str:
        """The same text for the same task, whatever the order of its facts."""
        return json.dumps({"kind": self.kind, "facts": dict(self.facts)}, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Hash of the task: records of one task share it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class TaskRecord:
    """One task with one architecture and its accuracy. A task may have several records; the best one is its target.

    Args:
        origin: the task.
        space: search space of the architecture.
        alphas: by cell type [E, P] float32, as adapted; of a trained architecture, those of which it is the argmax.
        genotype: the discrete architecture, in canonical form.
        before: query accuracy before the first inner step, 0 to 1.
        after: query accuracy after the last one.
        role: `ADAPTED` or `TRAINED`.
        seed: of the adaptation or training.
        run: the adapted network: the SHA-256 of the checkpoint, or a name if there is none.
        settings: JSON values: steps, rates, batch-norm policy.
    """

    origin: Origin
    space: SearchSpace
    alphas: Alphas
    genotype: Genotype
    before: float
    after: float
    role: str
    seed: int
    run: str
    settings: Mapping[str, Any]
