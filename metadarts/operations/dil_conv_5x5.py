"""A dilated 5x5 separable convolution, applied once."""

from __future__ import annotations

from ._separable import separable_operation

OPERATION = separable_operation(5, halves=1, dilation=2, shade="#5f3696")
