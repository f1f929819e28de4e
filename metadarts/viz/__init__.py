"""Pictures as files or bytes (.svg or .png). Importing this package does not import matplotlib; drawing does."""

from ._alphas import draw_alphas as draw_alphas
from ._beside import draw_genotypes as draw_genotypes
from ._canvas import Picture as Picture
from ._canvas import plain as plain
from ._cell import draw_genotype as draw_genotype
from ._choices import draw_choices as draw_choices
from ._curve import Dash as Dash
from ._curve import draw_curve as draw_curve
from ._fading import CellMoment as CellMoment
from ._fading import draw_fading_cells as draw_fading_cells
from ._forest import Branch as Branch
from ._forest import draw_forest as draw_forest
from ._history import Panel as Panel
from ._history import Series as Series
from ._history import draw_history as draw_history
from ._intervals import draw_intervals as draw_intervals
from ._page import Page as Page
from ._page import Plate as Plate
from ._ranges import Ranges as Ranges
from ._ranges import draw_ranges as draw_ranges
from ._sheet import draw_predictions as draw_predictions
from ._traces import draw_alpha_history as draw_alpha_history
from ._validations import draw_validations as draw_validations
from ._validations import ramp as ramp
