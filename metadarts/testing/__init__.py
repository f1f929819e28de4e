"""Conformance suites: a new part provides its reference and inherits the tests.

There are suites for fused operators, update rules, operations of an edge, relaxations, starts of the alphas, search
spaces, outer rules, costs, sources and selection rules; `ENGINES` has reference inner loops for the batched one. They
do not need pytest: a check raises AssertionError and says what differs, where, and by how much.

>>> check_op(my_fast_op, my_plain_torch_op, [OpCase("odd sizes", {"x": (3, 5, 7, 2)})])
"""

from ._close import check_close as check_close
from ._close import check_params_close as check_params_close
from .alphastarts import check_alpha_start as check_alpha_start
from .costs import check_cost as check_cost
from .differences import Difference as Difference
from .differences import clean_difference as clean_difference
from .differences import error_along as error_along
from .differences import kink_pattern as kink_pattern
from .engines import ENGINES as ENGINES
from .metarules import check_meta_rule as check_meta_rule
from .operations import check_operation as check_operation
from .operators import OpCase as OpCase
from .operators import check_derivatives as check_derivatives
from .operators import check_op as check_op
from .relaxations import check_relaxation as check_relaxation
from .rules import check_rule as check_rule
from .searchspaces import check_space as check_space
from .selections import AdditiveJudge as AdditiveJudge
from .selections import check_selection as check_selection
from .selections import searched_at as searched_at
from .sources import check_source as check_source
from .tiny import generic_params as generic_params
from .tiny import random_tasks as random_tasks
from .tiny import tiny_learner as tiny_learner
