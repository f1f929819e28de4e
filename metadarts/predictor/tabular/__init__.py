"""Tabular meta-learning on benchmarks with all architectures measured: select one for a task, rank them for a
device."""

from .learner import Recipe as Recipe
from .picture import draw_result as draw_result
from .report import Report as Report
from .report import Result as Result
from .study import Settings as Settings
from .study import evaluate_table as evaluate_table
from .tables import Bench as Bench
from .tables import read_table as read_table
