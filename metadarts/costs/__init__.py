"""Costs of an architecture, differentiable in its mixing weights. Each is one module, whose ``COST`` creates it.

A cost is created from (height, width, options by name), because the cost of an edge depends on the size of its maps.
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
