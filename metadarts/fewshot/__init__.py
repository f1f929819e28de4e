"""A new task in a few steps: the estimator, the starts that it adapts, and what becomes of a task."""

from .adapter import Adapter as Adapter
from .classifier import FewShotClassifier as FewShotClassifier
from .learn import AdaptSettings as AdaptSettings
from .start import BUNDLED as BUNDLED
from .start import Start as Start
from .start import open_start as open_start
from .task import FINISHES as FINISHES
from .task import Task as Task
