"""From alphas to genotypes and back: pure functions of tensors, no networks."""

from ._derive import check_alphas as check_alphas
from ._derive import derive_genotype as derive_genotype
from ._derive import genotype_weights as genotype_weights
from ._measure import Sharpness as Sharpness
from ._measure import alpha_entropy as alpha_entropy
from ._measure import alpha_sharpness as alpha_sharpness
from ._measure import count_skips as count_skips
from ._measure import genotype_distance as genotype_distance
from ._measure import sharpness as sharpness
from ._measure import stability as stability
from .rules import SELECTIONS as SELECTIONS
from .rules import Judge as Judge
from .rules import Searched as Searched
from .rules import Selection as Selection
from .rules import SelectionRule as SelectionRule
