"""What a search writes down: the contents of its records, as plain numbers for metrics.jsonl and TensorBoard."""

from __future__ import annotations

from typing import Any

from torch import Tensor, isfinite

from metadarts.core.types import Params, alphas_of
from metadarts.derive import alpha_entropy, count_skips, derive_genotype
from metadarts.meta import Evaluation, MetaGradient, MetaState
from metadarts.networks import Network
from metadarts.spaces import Kept

ALPHA_DIGITS = 6


def step_facts(state: MetaState, result: MetaGradient, norms: dict[str, float], network: Network) -> dict[str, Any]:
    """One outer step: figures over its finite tasks, gradient norms before clipping, entropy, skips, learned rates."""
    alphas, finite = alphas_of(state.params), result.finite
    rates = state.rates
    skips = count_skips(derive_genotype(alphas, network.space, network.relaxation)) if alphas else {}
    return {
        "loss": float(result.losses[finite].mean()),
        "accuracy": float(result.accuracies[finite].mean()),
        "finite_tasks": int(finite.sum()),
        **{f"gradient_{name}": norm for name, norm in norms.items()},
        **{f"entropy_{kind}": value for kind, value in alpha_entropy(alphas, network.relaxation).items()},
        **{f"skips_{kind}": count for kind, count in skips.items()},
        "support_losses": means(result.support_losses[:, finite]),
        **({"rates": {name: rate.tolist() for name, rate in rates.items()}} if rates else {}),
    }


def validation_facts(result: Evaluation, bn: str) -> dict[str, Any]:
    """One validation; the curves are over inner steps, on the first tasks only."""
    return {
        "accuracy": result.accuracy,
        "interval95": result.interval95,
        "bn": bn,
        "curve_accuracy": means(result.curve),
        "curve_loss": means(result.loss_curve),
        "curve_tasks": result.curve.shape[-1],
    }


def alpha_facts(params: Params, network: Network) -> dict[str, Any]:
    """The raw alphas by cell kind, and the cell that they stand for."""
    alphas = alphas_of(params)
    tables = {
        kind: [[round(value, ALPHA_DIGITS) for value in row] for row in table.tolist()]
        for kind, table in alphas.items()
    }
    return {**tables, "genotype": str(derive_genotype(alphas, network.space, network.relaxation))}


def commit_facts(network: Network) -> dict[str, Any]:
    """What is left of the network after candidates were dropped for good."""
    if network.genotype is not None:
        return {"genotype": str(network.genotype)}
    return {"candidates": (network.kept or Kept.everything(network.space)).count}


def means(table: Tensor) -> list[float | None]:
    """Mean of every row over its finite values; None where there is none, which is what JSON has for it."""
    rows = [row[isfinite(row)] for row in table]
    return [float(row.mean()) if len(row) else None for row in rows]
