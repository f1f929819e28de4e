"""A dilated 3x3 separable convolution, applied once."""

from __future__ import annotations

from ._separable import separable_operation

OPERATION = separable_operation(3, halves=1, dilation=2, shade="#a98bd8")
