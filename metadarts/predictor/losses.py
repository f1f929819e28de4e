"""What the meta-model minimises: the formula's cross-entropy, the distance of alphas, the order of architectures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .head import Prediction, Tables, choice_count
from .meta_dataset import MetaDataset


def architecture_loss(prediction: Prediction, dataset: MetaDataset) -> Tensor:
    """[B] cross-entropy to each task's best architecture, in nats for one choice of a cell (edges and operations)."""
    return -prediction.log_likelihood(dataset.best) / choice_count(prediction.space)


def alphas_loss(prediction: Tables, target: Tables) -> Tensor:
    """[B] mean squared distance of alphas by cell type [B, E, P], both in standardised units: 1 for saying nothing."""
    distances = [F.mse_loss(prediction[cell], table, reduction="none").mean((1, 2)) for cell, table in target.items()]
    return torch.stack(distances).mean(0)


def ranking_loss(prediction: Prediction, dataset: MetaDataset) -> Tensor | None:
    """Mean over pairs of one task of log(1 + exp(worse - better)), scores the log-likelihoods (RankNet: Burges et al.,
    2005, equation 3, with certain targets); None where no two architectures of a task were worth differently.
    """
    better, worse = dataset.pairs()
    if not len(better):
        return None
    scores = prediction.log_likelihood(dataset.tried)
    return F.softplus(scores[worse] - scores[better]).mean()
