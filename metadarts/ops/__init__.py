"""Numeric operators on tensors. One folder per operator; only its ``op.py`` is imported from outside.

Layout: tasks first, channels last, [T, E, N, H, W, C] or [T, N, H, W, C]; T tasks, the E edges that leave one state.
The operators convolution, pointwise and normalise, the stages of the ``folded`` implementations, have tasks and edges
folded into the channels: [N, H, W, T * E * C], in torch's terms channels-last memory of [N, K, H, W].
"""

from .choice import available as _available
from .choice import implementation as implementation
from .choice import watched as watched
from .conv_block.op import OFFERED as _CONV_BLOCK
from .conv_block.op import conv_block as conv_block
from .convolution.op import convolution as convolution
from .mix.op import OFFERED as _MIX
from .mix.op import mix as mix
from .normalise.op import normalise as normalise
from .pointwise.op import pointwise as pointwise
from .pool.op import OFFERED as _POOL
from .pool.op import bare_pool as bare_pool
from .pool.op import pool as pool
from .separable.op import OFFERED as _SEPARABLE
from .separable.op import separable as separable


def implementations(device: str = "cpu") -> dict[str, tuple[str, ...]]:
    """Operator -> its implementations that can run on this machine's ``device``, "cpu" or "cuda", fastest first."""
    offered = {"conv_block": _CONV_BLOCK, "mix": _MIX, "pool": _POOL, "separable": _SEPARABLE}
    return {op: _available(names, device) for op, names in offered.items()}
