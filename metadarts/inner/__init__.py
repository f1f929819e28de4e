"""The inner loop. It does not depend on a network: it works on any ``loss(params, batch, stage) -> [T]``."""

from . import two_fold as two_fold
from .adaptation import Engine as Engine
from .adaptation import StagedLoss as StagedLoss
from .adaptation import adapt as adapt
from .adaptation import inner_gradients as inner_gradients
from .adaptation import stacked as stacked
from .adaptation import staged as staged
from .adaptation import unstaged as unstaged
from .types import RATE_FIELDS as RATE_FIELDS
from .types import Adapted as Adapted
from .types import InnerLoop as InnerLoop
from .types import independent as independent
from .types import rate_shapes as rate_shapes
from .types import rates_at as rates_at
