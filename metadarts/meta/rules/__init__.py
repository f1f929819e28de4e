"""Outer rules: each is one module, whose ``RULE`` is a frozen dataclass of options."""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._types import MetaRule as MetaRule
from ._types import MetaStep as MetaStep
from ._types import Objective as Objective
from ._types import TaskGradients as TaskGradients
from .maml import MAML as MAML

RULES: Variants[Callable[..., MetaRule]] = collect(__name__, "RULE", "outer rule")
DEFAULT_RULE: MetaRule = MAML()
"""Where nothing else is said; exact as far as the inner loop's order is."""
