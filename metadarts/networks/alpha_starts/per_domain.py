"""Tasks start from the alphas of their domain, which they are told: an oracle to compare predictors with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Params, TaskBatch
from metadarts.operations import Shapes
from metadarts.spaces import Decision

from ._types import AlphaStartContext


@dataclass(frozen=True)
class PerDomain:
    """The shared alphas plus an offset for each domain.

    Args:
        domains: their names, in the order of `TaskBatch.domain`; none for those of the source.

    Raises:
        ConfigError: for a name twice; when alphas are asked for of tasks without a domain.
    """

    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.domains)) < len(self.domains):
            raise ConfigError(f"alphas.domains: expected different names, got {', '.join(self.domains)}")

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        return {ALPHA_PREFIX + decision.name: (max(len(self.domains), 1), *decision.shape) for decision in decisions}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        return torch.zeros(shape)

    def prepare(self, own: Params, batches: Iterable[TaskBatch]) -> Params:
        return {}

    def alphas(self, seen: AlphaStartContext) -> Params:
        domain = seen.batch.domain
        if domain is None:
            raise ConfigError(
                "alphas per-domain: expected tasks that say their domain, got some that do not; use a source of "
                "several domains, such as mixture:A,B or widths"
            )
        rows = torch.arange(len(domain), device=domain.device)
        return {name: table + seen.own[ALPHA_PREFIX + name][rows, domain] for name, table in seen.shared.items()}


ALPHAS = {"per-domain": PerDomain}
