"""The meta-model: from a task to its architecture, learnt from an archive of adapted tasks."""

from .experience import Experience as Experience
from .experience import Origin as Origin
