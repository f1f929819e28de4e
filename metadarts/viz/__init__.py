"""Pictures as files (.svg or .png). Importing this room does not import matplotlib; drawing does."""

from ._alphas import draw_alphas as draw_alphas
from ._cell import draw_genotype as draw_genotype
from ._curve import draw_curve as draw_curve
