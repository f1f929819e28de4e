"""3x3 max pooling."""

from __future__ import annotations

from ._pool import pool_operation

OPERATION = pool_operation("max", "#e3a63a")
