"""Numeric operators: tensors in, tensors out. One folder per operator; only its ``op.py`` is imported from outside.

Layout everywhere: folded images ``[N, H, W, K]``, contiguous, where the T tasks (and the E edges that leave one state)
are folded into the channels, ``K = T * E * C``. In torch's terms that is channels-last memory of ``[N, K, H, W]``.
"""

from .conv_block.op import conv_block as conv_block
from .convolution.op import convolution as convolution
from .mix.op import mix as mix
from .normalise.op import normalise as normalise
from .pool.op import bare_pool as bare_pool
from .pool.op import pool as pool
from .pointwise.op import pointwise as pointwise
from .separable.op import separable as separable

IMPLEMENTATIONS = dict.fromkeys(("convolution", "mix", "normalise", "pointwise"), ("torch",))
"""Operator -> its implementations. Today each is one, in torch's own operators, on any device torch has."""
