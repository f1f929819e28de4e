"""How a run commits to one cell: the candidates that it drops permanently, and when.

Candidates with almost no weight are dropped first (MetaNAS, Elsken et al., CVPR 2020, section 3.3). Then each edge
keeps one operation, and then each node keeps its inputs. The remaining cell is meta-trained to the end of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, Stage, alphas_of
from metadarts.derive import derive_genotype
from metadarts.networks import Network
from metadarts.relaxations import scores_of
from metadarts.spaces import Kept


@dataclass(frozen=True)
class Commitment:
    """When a run drops candidates, as fractions of the run; 1 is never.

    Args:
        drop_below: candidates whose mixing weight is below this are dropped, from ``drop_from`` on; 0 for none. An edge
            keeps its best operation, a node its best inputs.
        drop_from: fraction of the run from which candidates are dropped.
        operations: when every edge keeps only its best operation.
        cell: when the cell is extracted. From then on the run trains a discrete network.
        every: fraction of the run between two checks of what may be dropped.

    Raises:
        ConfigError: for fractions out of order or out of range.
    """

    drop_below: float = 0.0
    drop_from: float = 0.0
    operations: float = 1.0
    cell: float = 1.0
    every: float = 0.02

    def __post_init__(self) -> None:
        if not (0.0 <= self.drop_below < 1.0 and 0.0 <= self.drop_from <= 1.0 and 0.0 < self.every <= 1.0):
            raise ConfigError(
                "commit: expected drop_below from 0 to below 1, drop_from from 0 to 1, every above 0 and at most 1, "
                f"got {self.drop_below}, {self.drop_from} and {self.every}"
            )
        if not 0.0 < self.operations <= 1.0 or not 0.0 < self.cell <= 1.0:
            raise ConfigError(
                f"commit: expected operations and cell above 0 and at most 1, got {self.operations} and {self.cell}"
            )

    @property
    def ends_in_a_cell(self) -> bool:
        """Whether the run ends with a discrete network."""
        return self.cell < 1.0

    def is_due(self, network: Network, before: float, now: float) -> bool:
        """Whether to look at what ``network`` may drop.

        Args:
            before, now: shares of the run at the last step and at this one.
        """
        if not network.mixes:
            return False
        undecided = network.kept is None or not network.kept.has_one_operation_each(network.space)
        cuts, chooses = (share < 1.0 and now >= share for share in (self.cell, self.operations))
        drops = self.drop_below > 0.0 and self._turns(now) > self._turns(before)
        return cuts or (chooses and undecided) or drops

    def _turns(self, share: float) -> int:
        """Looks that are due by then; a state keeps its share in single precision."""
        return int(round(share / self.every, 4))

    def network(self, network: Network, params: Params, progress: float) -> Network:
        """What is left of ``network`` when ``progress`` of the run is done: itself where nothing is dropped.

        Args:
            params: shared parameters, whose alphas say what is best and what weighs too little.
        """
        if not network.mixes:
            return network
        alphas, space = alphas_of(params), network.space
        if self.ends_in_a_cell and progress >= self.cell:
            return network.discrete(derive_genotype(alphas, space, network.relaxation))
        kept = network.kept or Kept.everything(space)
        if self.drop_below > 0.0 and progress >= self.drop_from:
            kept = kept.without(space, _rows(mixing_weights(network, alphas, progress)), self.drop_below)
        if self.operations < 1.0 and progress >= self.operations:
            kept = kept.best_operations(space, _rows(scores_of(alphas, network.relaxation)))
        return network.pruned(kept)


def mixing_weights(network: Network, alphas: Params, progress: float) -> Params:
    """decision -> what its candidates weigh at the end of a task, without noise (MetaNAS prunes by these)."""
    relaxation, at = network.relaxation, Stage(progress=progress)
    return {name: relaxation.weights(table.detach(), at) for name, table in alphas.items()}


def _rows(tables: Params) -> dict[str, list[list[float]]]:
    return {name: table.tolist() for name, table in tables.items()}
