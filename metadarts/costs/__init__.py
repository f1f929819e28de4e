"""Costs of an architecture, differentiable in its mixing weights. One module each, whose ``COST`` makes it.

A cost is made by (height, width, options by name), since what an edge takes depends on the size of its maps.
"""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._types import Cost as Cost
from ._types import CostedNetwork as CostedNetwork
from ._types import EdgeUse as EdgeUse
from ._types import Penalty as Penalty
from ._types import Weights as Weights
from ._types import over_edges as over_edges

COSTS: Variants[Callable[..., Cost]] = collect(__name__, "COST", "cost")
