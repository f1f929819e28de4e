"""A 3x3 separable convolution, applied twice."""

from __future__ import annotations

from ._separable import separable_operation

OPERATION = separable_operation(3, halves=2, dilation=1, shade="#6fa3dc")
