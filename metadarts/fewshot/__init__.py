"""A new task in a few steps: the estimator, the starts that it adapts, and the solutions of a task.

The estimator and scikit-learn are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .adapter import Adapter as Adapter
from .learn import AdaptSettings as AdaptSettings
from .start import BUNDLED as BUNDLED
from .start import Start as Start
from .start import open_start as open_start
from .task import FINISHES as FINISHES
from .task import Task as Task

if TYPE_CHECKING:
    from .classifier import FewShotClassifier as FewShotClassifier


def __getattr__(name: str) -> object:
    if name != "FewShotClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("metadarts.fewshot.classifier").FewShotClassifier
