"""Symbolic search spaces and genotypes. Nothing here imports torch, so spaces can be listed in milliseconds.

Each space is one module of this package whose ``SPACE`` creates it; `SPACES` is the table of spaces.
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
