"""The reference of the mixed sum: the weighted sum of the candidates of every edge."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def mix(candidates: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """See `op.mix`."""
    terms = [weights[k, :, :, None, None, None, None] * candidate for k, candidate in enumerate(candidates)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total.unbind(1)
