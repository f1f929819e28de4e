"""Tables of papers, each by one command: the data, the trainings, the baselines, the same frozen test episodes."""

from .job import Job as Job
from .job import Stopped as Stopped
from .joining import joined as joined
from .plans import rows_of as rows_of
from .recipes import LENGTHS_IN_WORDS as LENGTHS_IN_WORDS
from .runner import carry_out as carry_out
from .tables import TABLES as TABLES
from .tables import TableSpec as TableSpec
from .tables import table_named as table_named
from .tabulate import tabulate as tabulate
