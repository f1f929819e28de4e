"""How long a run still takes, which knows that its steps get cheaper as it commits."""

from __future__ import annotations

from dataclasses import dataclass, field

from metadarts.core.rng import Key
from metadarts.networks import Network
from metadarts.relaxations import is_sparse
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

    The time of a step is taken to be linear in the number of candidates that run; what is dropped by its weight cannot
    be foreseen. The first step of a network counts until there is a second: it compiles kernels, or is recorded.

    Args:
        commit: what is dropped when.
        network: of the last step.
        seconds: of a step of it, a running mean; 0 before the first step.
        steps: of it so far.
        phases: see `phases`.
    """

    commit: Commitment
    network: Network | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    steps: int = field(default=0, init=False)
    phases: list[tuple[float, float]] = field(default_factory=list, init=False)

    def update(self, network: Network, seconds: float) -> None:
        """Take in a step of ``network``."""
        if network is not self.network:
            self.network, self.steps, self.phases = network, 0, phases(network, self.commit)
        self.steps += 1
        self.seconds = seconds if self.steps < 3 else RECENT * self.seconds + (1.0 - RECENT) * seconds

    def remaining(self, clock: Clock, step: int, validations: int) -> float:
        """Seconds to the end of the run, a validation taking as long as the longest so far.

        Args:
            step: steps taken.
            validations: that are still to come.
        """
        training, parts = clock.training, []
        if training.minutes:
            parts.append(60.0 * training.minutes - clock.seconds)
        if training.meta_steps:
            done, seconds = step / training.meta_steps, validations * clock.reserve
            for end, share in self.phases:
                seconds += max(0.0, end - done) * training.meta_steps * share * self.seconds
                done = max(done, end)
            parts.append(seconds)
        return max(0.0, min(parts))


def phases(network: Network, commit: Commitment) -> list[tuple[float, float]]:
    """(share of the run until when, seconds of a step until then, relative to one of ``network``)."""
    if not network.mixes:
        return [(1.0, 1.0)]
    whole = network.pruned(None).candidates
    edges = sum(len({edge for own in cell.active.values() for edge in own}) for cell in network.cells)
    one = network.discrete(random_genotype(network.space, Key.from_seed(0))).candidates
    running = one if is_sparse(network.relaxation) else network.candidates  # zeros cost next to nothing
    found, now = [], _work(running, whole)
    for end, after in ((min(commit.operations, commit.cell), edges), (commit.cell, one), (1.0, 0)):
        found.append((end, _work(running, whole) / now))
        running = min(running, after)
    return found


def _work(candidates: int, whole: int) -> float:
    return WITHOUT_CANDIDATES + (1.0 - WITHOUT_CANDIDATES) * candidates / whole
