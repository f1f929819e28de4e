"""A start whose alphas a meta-model predicted for the task at hand: the warm start of the inner loop."""

from __future__ import annotations

from dataclasses import replace

import torch

from metadarts.core.errors import ConfigError
from metadarts.core.types import with_alphas
from metadarts.predictor import MetaModel

from .start import Start
from .task import Support


def predicted_start(start: Start, model: MetaModel, support: Support) -> Start:
    """``start`` with the alphas that ``model`` predicts from the support set; weights and rates stay.

    Raises:
        ConfigError: when the model is of another space, sees images of other channels, or was never fitted.
    """
    space = start.network.space
    if model.space != space:
        raise ConfigError(
            f"the meta-model predicts cells of {model.space.name!r} with {model.space.nodes} nodes, the start "
            f"{start.name} has {space.name!r} with {space.nodes}: give one that was trained on such a start's tasks"
        )
    if start.network.kept is not None:
        raise ConfigError(f"the start {start.name} has dropped candidates that may be predicted: give a whole supernet")
    if model.extractor.in_channels != start.form.channels:
        raise ConfigError(
            f"the meta-model sees images of {model.extractor.in_channels} channels, the start {start.name} takes "
            f"{start.form.channels}: give the start that it was trained with"
        )
    everything = replace(support, device="cpu").batch(torch.arange(len(support.labels)))
    alphas = model.predict(everything).alphas
    params = with_alphas(start.params, {kind: table[0].clone() for kind, table in alphas.items()})
    return replace(start, name=f"{start.name}, alphas predicted", params=params)
