"""The zero operation: no edge."""

from __future__ import annotations

from ._types import Operation

OPERATION = Operation(run=None)
