"""The candidate operations of an edge of a cell. Each is one module, whose ``OPERATION`` defines it.

The name of the module is the name of the operation. `OPERATIONS` is the table of operations.
"""

from metadarts.core.variants import Variants, collect

from ._folding import Folding as Folding
from ._folding import Layers as Layers
from ._folding import Map as Map
from ._folding import Pair as Pair
from ._types import EPS as EPS
from ._types import EdgeContext as EdgeContext
from ._types import Operation as Operation
from ._types import Shapes as Shapes
from ._types import Statistics as Statistics
from ._types import affine as affine
from ._types import batch_norm as batch_norm
from ._types import convolution_init as convolution_init
from ._types import uniform as uniform

OPERATIONS: Variants[Operation] = collect(__name__, "OPERATION", "operation")
