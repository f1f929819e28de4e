"""The inner loop. It knows no network: it works on any ``loss(params, batch) -> [T]``."""

from .engines import ENGINES as ENGINES
from .engines import StagedLoss as StagedLoss
from .engines import adapt as adapt
from .engines import unstaged as unstaged
from .types import RATE_FIELDS as RATE_FIELDS
from .types import Adapted as Adapted
from .types import InnerLoop as InnerLoop
from .types import rate_shapes as rate_shapes
from .types import rates_at as rates_at
