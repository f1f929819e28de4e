"""Update rules as pairs of pure functions, for the inner and the outer loop; differentiable through every step.

A `Rule` does not depend on networks: it maps (gradients, state, params, rates, step) to (params, state). To
differentiate *through* an update, every operation in it must have a finite derivative; the docstrings state where this
needs care.
"""

from ._types import Rates as Rates
from ._types import Rule as Rule
from ._types import State as State
from ._types import Step as Step
from ._types import Transform as Transform
from ._types import Update as Update
from .chaining import chain as chain
from .clipping import clip as clip
from .clipping import clip_by_norm as clip_by_norm
from .clipping import clip_by_total_norm as clip_by_total_norm
from .decay import decoupled_decay as decoupled_decay
from .decay import l2_decay as l2_decay
from .rules import RULES as RULES
from .rules import require_for_weights as require_for_weights
from .rules import rule_by_name as rule_by_name
from .rules.adam import adam as adam
from .rules.adamw import adamw as adamw
from .rules.exponentiated import exponentiated as exponentiated
from .rules.momentum import momentum as momentum
from .rules.sgd import sgd as sgd
from .schedules import SCHEDULES as SCHEDULES
from .schedules import Schedule as Schedule
from .schedules import after as after
from .schedules import constant as constant
from .schedules import cosine as cosine
from .schedules import product as product
from .schedules import scheduled as scheduled
from .schedules import warmup as warmup
from .splitting import split as split
