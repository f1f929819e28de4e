"""Every relaxation of the table conforms; the suite sees one that does not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from metadarts.core.types import Stage
from metadarts.relaxations import RELAXATIONS, Softmax
from metadarts.relaxations.annealed import Annealed
from metadarts.relaxations.entmax import Entmax
from metadarts.relaxations.gumbel import Gumbel
from metadarts.relaxations.hard import Hard
from metadarts.relaxations.paths import Paths
from metadarts.relaxations.sparsemax import Sparsemax
from metadarts.testing import check_relaxation

HARD = ("gdas", "hard", "paths")


@pytest.mark.parametrize("name", RELAXATIONS)
def test_it_conforms(name):
    check_relaxation(RELAXATIONS[name](), smooth=name not in HARD, learns=name != "paths")


@pytest.mark.parametrize(
    "relaxation",
    [Softmax(0.2), Annealed(2.0, 0.1, 0.0, 1.0, inner_end=0.2), Gumbel(1.0, 0.3), Sparsemax(0.4), Entmax(0.3)],
    ids=repr,
)
def test_it_conforms_with_other_options(relaxation):
    check_relaxation(relaxation)


def test_hard_forms_conform():
    check_relaxation(Gumbel(hard=True), smooth=False)
    check_relaxation(Hard(0.5, passes="query"), smooth=False)
    check_relaxation(Paths(by_alphas=True), smooth=False, learns=False)


@dataclass(frozen=True)
class Detached(Softmax):
    """Without a gradient."""

    def weights(self, alpha, at, noise=None):
        return alpha.detach().softmax(-1) + 0.0 * alpha


@dataclass(frozen=True)
class Random(Softmax):
    """Draws by itself."""

    def noise(self, shape, key):
        return torch.rand(shape)


@dataclass(frozen=True)
class Numbered(Softmax):
    """Makes a number of progress."""

    def weights(self, alpha, at, noise=None):
        return (alpha * (2.0 if isinstance(at.progress, float) else 1.0)).softmax(-1)


@dataclass(frozen=True)
class Stirred(Softmax):
    """Draws where it weighs."""

    def weights(self, alpha, at, noise=None):
        return (alpha + 1e-9 * torch.rand(alpha.shape)).softmax(-1)


@dataclass(frozen=True)
class Reversed(Softmax):
    """Ranks the other way."""

    def scores(self, alpha):
        return (-alpha.double()).softmax(-1)


@dataclass(frozen=True)
class Remembering(Softmax):
    """Is as sharp as at the latest step that it has seen."""

    seen: list[int] = field(default_factory=list)

    def weights(self, alpha, at, noise=None):
        self.seen.append(at.step)
        return (alpha * (1.0 + max(self.seen))).softmax(-1)


@dataclass(frozen=True)
class Perturbed(Softmax):
    """Draws for every task and step."""

    def noise(self, shape, key):
        return torch.randn(shape, dtype=torch.float64, generator=key.torch())

    def weights(self, alpha, at, noise=None):
        return (alpha if noise is None else alpha + noise).softmax(-1)


@dataclass(frozen=True)
class Needing(Perturbed):
    """Has no weights without a draw."""

    def weights(self, alpha, at, noise=None):
        return (alpha + torch.randn(alpha.shape).mul(0.0) if noise is None else alpha + noise).softmax(-1)


@dataclass(frozen=True)
class Looking(Softmax):
    """Branches on progress, which a recording would keep for good."""

    def weights(self, alpha, at, noise=None):
        return (alpha * (2.0 if float(at.progress) > 0.2 else 1.0)).softmax(-1)


@dataclass(frozen=True)
class Wide(Softmax):
    """Always in double precision."""

    def weights(self, alpha, at, noise=None):
        return alpha.double().softmax(-1)


@dataclass(frozen=True)
class Constant(Softmax):
    """A straight-through estimator whose way back is missing."""

    def weights(self, alpha, at: Stage, noise=None):
        return torch.nn.functional.one_hot(alpha.argmax(-1), alpha.shape[-1]).to(alpha)


@dataclass(frozen=True)
class Promising(Softmax):
    """Says that weights of 0 have no derivative, and takes it from elsewhere."""

    def weights(self, alpha, at, noise=None):
        p = alpha.softmax(-1)
        far = (p == 0).to(p)
        return p + far * 1e-3 * (alpha - alpha.detach())


def test_one_that_draws_conforms():
    check_relaxation(Perturbed())


def test_what_is_not_smooth_is_held_to_the_rest():
    with pytest.raises(AssertionError, match="a graph back"):
        check_relaxation(Constant(), smooth=False)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Detached(), "Jacobian"),
        (Random(), "noise"),
        (Numbered(), "progress is a tensor"),
        (Stirred(), "computed again"),
        (Reversed(), "smaller alpha"),
        (Remembering(), "computed again"),
        (Needing(), "alphas' device"),
        (Looking(), "made a number"),
        (Wide(), "type of the alphas"),
        (Promising(), "exactly 0 have a derivative"),
    ],
)
def test_what_does_not_conform_is_found(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_relaxation(broken)
