"""Search spaces and genotypes as plain symbols. Nothing here imports torch, so spaces can be listed in milliseconds.

A space of its own is one module of this package whose ``SPACE`` makes it; `SPACES` is the table of them.
"""

from collections.abc import Callable

from metadarts.core.variants import Variants, collect

from ._decision import Decision as Decision
from ._decode import decode as decode
from ._genotype import Genotype as Genotype
from ._kept import Kept as Kept
from ._random import random_genotype as random_genotype
from ._space import SearchSpace as SearchSpace
from .darts import darts as darts

SPACES: Variants[Callable[..., SearchSpace]] = collect(__name__, "SPACE", "space")
"""Name -> function of a space's options that makes the space."""
