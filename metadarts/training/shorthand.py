"""Settings that are short for others: the rates of the inner loop by group of parameters."""

from __future__ import annotations

from typing import Any

from metadarts.core.errors import ConfigError, nearest
from metadarts.inner import RATE_FIELDS
from metadarts.store.schema import shown

from .values import read

RATES = "inner.rates"
EXPECTED = "the rates of groups as {head: 0.1, body: 0.1, alphas: 30}"


def written_out(path: str, value: Any) -> dict[str, Any]:
    """The settings that one stands for: itself, unless it is `RATES` or one of its entries.

    "inner.rates" with {head: 0.1, body: 0} stands for "inner.head_rate" and "inner.weight_rate"; "inner.rates.head" for
    the first of them.

    Raises:
        ConfigError: on an unknown group, with the nearest valid one, and on what is no table.
    """
    if path == RATES:
        table = read(value, EXPECTED)
        if not isinstance(table, dict):
            raise ConfigError(f"{RATES}: expected {EXPECTED}, got {shown(value)}")
        return {name: rate for group in table for name, rate in written_out(f"{RATES}.{group}", table[group]).items()}
    if not path.startswith(f"{RATES}."):
        return {path: value}
    group = path.removeprefix(f"{RATES}.")
    if group not in RATE_FIELDS:
        raise ConfigError(f"unknown setting {path!r}: {nearest(group, RATE_FIELDS)}")
    return {f"inner.{RATE_FIELDS[group]}": value}
