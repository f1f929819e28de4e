"""Search spaces and genotypes as plain symbols. Nothing here imports torch, so spaces can be listed in milliseconds."""

from ._genotype import Genotype as Genotype
from ._random import random_genotype as random_genotype
from ._space import SearchSpace as SearchSpace
from ._space import darts as darts
