"""Tables of papers, each by one command: the data, the trainings, the baselines, the same frozen test episodes."""

from .recipes import BUDGETS as BUDGETS
from .runner import Job as Job
from .runner import Stopped as Stopped
from .runner import carry_out as carry_out
from .tables import TABLES as TABLES
from .tables import Spec as Spec
from .tables import table_named as table_named
from .tabulate import tabulate as tabulate
