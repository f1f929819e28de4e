"""The outer loop: meta-gradients of every order, the outer update, evaluation on held-out tasks."""

from .capture import CapturedStep as CapturedStep
from .capture import CudaGraphs as CudaGraphs
from .capture import Recorder as Recorder
from .evaluate import Evaluation as Evaluation
from .evaluate import evaluate as evaluate
from .gradient import MetaGradient as MetaGradient
from .gradient import mean_gradient as mean_gradient
from .gradient import meta_gradient as meta_gradient
from .rules import DEFAULT_RULE as DEFAULT_RULE
from .rules import MAML as MAML
from .rules import RULES as RULES
from .rules import MetaRule as MetaRule
from .rules import MetaStep as MetaStep
from .rules import Objective as Objective
from .rules import TaskGradients as TaskGradients
from .state import MetaState as MetaState
from .state import OuterLoop as OuterLoop
from .state import meta_step as meta_step
