"""3x3 average pooling."""

from __future__ import annotations

from ._pool import pool_operation

OPERATION = pool_operation("avg", "#b0741a")
