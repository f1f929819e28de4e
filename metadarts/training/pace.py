"""How long a run still takes, which knows that its steps get cheaper as it commits."""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.core.rng import Key
from metadarts.networks import Network
from metadarts.spaces import random_genotype

from .clock import Clock
from .commitment import Commitment

WITHOUT_CANDIDATES = 0.2
"""Of the seconds of a supernet's step, what a step without candidates would take (measured: 0.19 and 0.27)."""
RECENT = 0.9
"""How much of the running mean of a step's seconds the next step keeps."""


@dataclass
class Pace:
    """Seconds of a step, as the last steps took them and as later ones will.

    The time of a step is taken to be linear in the number of candidates that run. What is dropped by its weight before
    each edge keeps one operation cannot be foreseen.

    Args:
        commit: what is dropped when.
        network: of the last step.
        seconds: of a step of it, a running mean; 0 before the first step.
    """

    commit: Commitment
    network: Network
    seconds: float = 0.0

    def update(self, network: Network, seconds: float) -> None:
        """Take in a step of ``network``."""
        if self.seconds and network is self.network:
            self.seconds = RECENT * self.seconds + (1.0 - RECENT) * seconds
        else:
            self.network, self.seconds = network, seconds

    def remaining(self, clock: Clock, step: int) -> float:
        """Seconds to the end of the run after ``step`` steps, a validation taking as long as the longest so far."""
        training, parts = clock.training, []
        if training.minutes:
            parts.append(60.0 * training.minutes - clock.seconds)
        if training.meta_steps:
            done = step / training.meta_steps
            seconds = (1.0 - done) * training.validations * clock.reserve
            for end, share in self._phases():
                seconds += max(0.0, end - done) * training.meta_steps * share * self.seconds
                done = max(done, end)
            parts.append(seconds)
        return max(0.0, min(parts))

    def _phases(self) -> list[tuple[float, float]]:
        """(share of the run until when, seconds of a step until then, relative to one of today)."""
        network, commit = self.network, self.commit
        if not network.mixes:
            return [(1.0, 1.0)]
        whole = network.pruned(None).candidates
        edges = sum(len({edge for own in cell.active.values() for edge in own}) for cell in network.cells)
        cell = network.discrete(random_genotype(network.space, Key.from_seed(0)))
        found, running = [], network.candidates
        for end, after in ((commit.operations, edges), (commit.cell, cell.candidates), (1.0, 0)):
            found.append((end, _work(running, whole) / _work(network.candidates, whole)))
            running = min(running, after)
        return found


def _work(candidates: int, whole: int) -> float:
    return WITHOUT_CANDIDATES + (1.0 - WITHOUT_CANDIDATES) * candidates / whole
