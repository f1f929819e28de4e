"""Intervals, bootstrap and tables. Needs only numpy."""

from .bootstrap import estimate as estimate
from .bootstrap import over_seeds as over_seeds
from .bootstrap import paired as paired
from .intervals import Estimate as Estimate
from .intervals import Values as Values
from .intervals import interval95 as interval95
from .intervals import wilson as wilson
from .markdown import Table as Table
from .markdown import bullets as bullets
from .markdown import escaped as escaped
from .markdown import inline as inline
from .markdown import listed as listed
