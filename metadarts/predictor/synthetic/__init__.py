"""A family of tasks on one edge whose right operation is known: the labels come from a random teacher that uses it."""

from .family import OPERATIONS as OPERATIONS
from .family import Family as Family
from .family import TeacherTasks as TeacherTasks
from .family import rebuild as rebuild
from .family import teacher_tasks as teacher_tasks
from .records import experiences as experiences
from .records import taught as taught
from .students import Schedule as Schedule
from .students import train_each as train_each
from .warm import warm_start as warm_start
