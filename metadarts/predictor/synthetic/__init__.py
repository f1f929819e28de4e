"""A family of tasks on one edge whose right operation is known: the labels come from a random teacher that uses it."""

from .family import OPERATIONS as OPERATIONS
from .family import Family as Family
from .family import SyntheticTasks as SyntheticTasks
from .family import rebuild as rebuild
from .family import synthetic_tasks as synthetic_tasks
from .records import records_of as records_of
from .records import taught as taught
from .students import Schedule as Schedule
from .students import train_each as train_each
from .warm import warm_start as warm_start
