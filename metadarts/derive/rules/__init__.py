"""Selection rules: from a finished search to a cell. Each is one module, whose ``SELECTION`` is a dataclass of
options."""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._types import Judge as Judge
from ._types import Searched as Searched
from ._types import Selection as Selection
from ._types import SelectionRule as SelectionRule
from ._types import required as required

SELECTIONS: Variants[Callable[..., SelectionRule]] = collect(__name__, "SELECTION", "selection rule")
