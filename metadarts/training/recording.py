"""The contents of a search's records, as plain numbers for metrics.jsonl and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, isfinite

from metadarts.core.errors import GenotypeError
from metadarts.core.types import Params, Stage, alphas_of
from metadarts.derive import alpha_sharpness, count_skips, derive_genotype, stability
from metadarts.meta import Evaluation, MetaGradient, MetaState
from metadarts.networks import Network
from metadarts.relaxations import Relaxation
from metadarts.spaces import Genotype, Kept

ALPHA_DIGITS = 6
IN_USE = "mixing_"
"""Begins the fields that measure the mixing weights in use; those without it measure the final scores."""


def step_facts(state: MetaState, result: MetaGradient, norms: dict[str, float], network: Network) -> dict[str, Any]:
    """One outer step: figures over its finite tasks, norms before clipping, sharpness, skips, learned rates."""
    alphas, finite = alphas_of(state.params), result.finite
    rates = state.rates
    skips = count_skips(derive_genotype(alphas, network.space, network.relaxation)) if alphas else {}
    return {
        "loss": float(result.losses[finite].mean()),
        "accuracy": float(result.accuracies[finite].mean()),
        "finite_tasks": int(finite.sum()),
        **{f"gradient_{name}": norm for name, norm in norms.items()},
        **sharpness_facts(alphas, network.relaxation, last_stage(result.support_losses.shape[0], state.progress)),
        **{f"skips_{kind}": count for kind, count in skips.items()},
        "support_losses": means(result.support_losses[:, finite]),
        **({"rates": {name: rate.tolist() for name, rate in rates.items()}} if rates else {}),
    }


def last_stage(steps: int, progress: Tensor | float) -> Stage:
    """That of the query pass of a task of K ``steps``: where mixing weights are measured."""
    return Stage(steps, steps, progress)


def sharpness_facts(alphas: Params, relaxation: Relaxation, at: Stage) -> dict[str, float]:
    """Entropy, largest share and margin by decision: of the final scores, and of the mixing weights in use ``at``."""
    return {
        f"{start}{measure}_{name}": value
        for start, stage in (("", None), (IN_USE, at))
        for name, found in alpha_sharpness(alphas, relaxation, stage).items()
        for measure, value in found._asdict().items()
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


def alpha_facts(params: Params, network: Network, at: Stage, before: Genotype | None) -> dict[str, Any]:
    """The raw alphas by decision, how far they have chosen, and the cell that they stand for.

    Args:
        at: the stage of the mixing weights in use.
        before: the cell of the last such record; None if there is none to compare with.
    """
    alphas = alphas_of(params)
    tables = {
        kind: [[round(value, ALPHA_DIGITS) for value in row] for row in table.tolist()]
        for kind, table in alphas.items()
    }
    genotype = derive_genotype(alphas, network.space, network.relaxation)
    kept = {} if before is None else {"stability": stability(genotype, before)}
    facts = {"progress": float(at.progress), **sharpness_facts(alphas, network.relaxation, at), **kept}
    return {**tables, **facts, "genotype": str(genotype)}


def recorded_cell(record: Mapping[str, Any]) -> Genotype | None:
    """The cell of an "alphas" record; None where it has none that can be read."""
    text = record.get("genotype")
    try:
        return Genotype.parse(text) if isinstance(text, str) else None
    except GenotypeError:
        return None


def commit_facts(network: Network) -> dict[str, Any]:
    """What is left of the network after candidates were permanently dropped."""
    if network.genotype is not None:
        return {"genotype": str(network.genotype)}
    return {"candidates": (network.kept or Kept.everything(network.space)).count}


def means(table: Tensor) -> list[float | None]:
    """Mean of every row over its finite values; None if there is none, which is what JSON has for it."""
    rows = [row[isfinite(row)] for row in table]
    return [float(row.mean()) if len(row) else None for row in rows]
