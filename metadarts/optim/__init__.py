"""Update rules as pure pairs of functions, differentiable through every step.

A `Rule` knows nothing of networks: it maps (gradients, state, params, rates) to (params, state). When one
differentiates *through* an update, every operation in it must have a finite derivative; the docstrings say where care
was taken.
"""

from .rules import Rates as Rates
from .rules import Rule as Rule
from .rules import State as State
from .rules import adam as adam
from .rules import clip_by_norm as clip_by_norm
from .rules import momentum as momentum
from .rules import rule_by_name as rule_by_name
from .rules import sgd as sgd
