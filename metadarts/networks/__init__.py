"""Networks: the supernet, the discrete network, and their losses on few-shot tasks."""

from .alpha_starts import ALPHA_STARTS as ALPHA_STARTS
from .alpha_starts import AlphaStart as AlphaStart
from .alpha_starts import AlphaStartContext as AlphaStartContext
from .blocks import IMAGE as IMAGE
from .blocks import Block as Block
from .blocks import BlockFolding as BlockFolding
from .blocks import Mixing as Mixing
from .blocks import Readout as Readout
from .blocks import Stem as Stem
from .cell import CellBlock as CellBlock
from .cell import Cells as Cells
from .learner import POLICIES as POLICIES
from .learner import PRECISIONS as PRECISIONS
from .learner import Learner as Learner
from .macros import MACROS as MACROS
from .network import Network as Network
from .network import cutter as cutter
from .network import discrete_network as discrete_network
from .network import inherit as inherit
from .network import supernet as supernet
from .structure import Image as Image
from .structure import NetworkSpec as NetworkSpec
from .structure import Structure as Structure
from .structure import Style as Style
