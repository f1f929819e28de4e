"""Relaxations: from alphas to mixing weights. Each is one module, whose ``RELAXATION`` is a dataclass of its
options."""

from collections.abc import Callable, Mapping

from torch import Tensor

from metadarts.core.variants import Variants, collect

from ._types import CLOSED as CLOSED
from ._types import Relaxation as Relaxation
from .softmax import Softmax as Softmax

RELAXATIONS: Variants[Callable[..., Relaxation]] = collect(__name__, "RELAXATION", "relaxation")
DEFAULT_RELAXATION: Relaxation = Softmax()
"""Where nothing else is said."""


def zeros_learn(relaxation: Relaxation) -> bool:
    """Whether a weight of exactly 0 has a derivative in the alphas, as with a straight-through estimator.

    True for a relaxation without the attribute ``zeros_learn``; nothing is skipped then.
    """
    return bool(getattr(relaxation, "zeros_learn", True))


def is_sparse(relaxation: Relaxation) -> bool:
    """Whether weights of exactly 0 without a derivative are the rule, as with sampled paths."""
    return bool(getattr(relaxation, "sparse", False)) and not zeros_learn(relaxation)


def scores_of(alphas: Mapping[str, Tensor], relaxation: Relaxation = DEFAULT_RELAXATION) -> dict[str, Tensor]:
    """decision -> scores of its candidates, in double precision and without a graph; see `Relaxation.scores`."""
    return {name: relaxation.scores(table.detach()) for name, table in alphas.items()}
