"""From alphas to genotypes and back: pure functions of tensors, no networks."""

from ._derive import derive_genotype as derive_genotype
from ._derive import genotype_weights as genotype_weights
from ._measure import alpha_entropy as alpha_entropy
from ._measure import count_skips as count_skips
from ._measure import genotype_distance as genotype_distance
