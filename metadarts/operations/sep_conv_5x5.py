"""A 5x5 separable convolution, applied twice."""

from __future__ import annotations

from ._separable import separable_operation

OPERATION = separable_operation(5, halves=2, dilation=1, shade="#1f5fa8")
