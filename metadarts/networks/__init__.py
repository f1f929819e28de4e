"""Networks: the supernet, the discrete network, and their losses on few-shot tasks."""

from .learner import POLICIES as POLICIES
from .learner import PRECISIONS as PRECISIONS
from .learner import Learner as Learner
from .network import Network as Network
from .network import NetworkSpec as NetworkSpec
from .network import discrete_network as discrete_network
from .network import inherit as inherit
from .network import supernet as supernet
from .primitives import PRIMITIVES as PRIMITIVES
from .primitives import Statistics as Statistics
