"""A run's checkpoint as one discrete cell, with inherited weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from metadarts.core.errors import GenotypeError
from metadarts.networks import inherit
from metadarts.spaces import Genotype

from .build import Experiment
from .checkpoints import Checkpoint

LONGEST = 100_000
"""Characters of a genotype file that are read at most; a real one has a few hundred."""


def read_genotype(path: Path) -> Genotype:
    """Read a file from `derive`: DARTS's text, or JSON. The text is parsed, never evaluated. Raises GenotypeError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"cannot read a genotype from {path}: {error}") from error
    try:
        return Genotype.from_json(text) if text.startswith("{") else Genotype.parse(text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from error


def discretised(experiment: Experiment, checkpoint: Checkpoint, genotype: Genotype) -> tuple[Experiment, Checkpoint]:
    """The experiment with the discrete network of ``genotype``, and the checkpoint with the inherited weights.

    Raises GenotypeError when ``genotype`` is not a point of the experiment's space.
    """
    network = experiment.network.discrete(genotype)
    params = inherit(network, checkpoint.params, experiment.network)
    learner = replace(experiment.learner, network=network)
    return replace(experiment, learner=learner), replace(checkpoint, params=params)
