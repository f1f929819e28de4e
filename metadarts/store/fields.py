"""Types with ranges that fields of many schemas have; they are floats, whole numbers and text to everyone else."""

from __future__ import annotations

import sys
from typing import Annotated

from msgspec import Meta

MOST = 10**12
"""Of a count."""

MOST_TEXT = 10_000
"""Letters of a text."""

Number = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
AboveZero = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=MOST)]
Positive = Annotated[int, Meta(ge=1, le=MOST)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


def one_of(*names: str) -> Meta:
    """Of a text: that it is one of ``names``, which hold no sign that regular expressions have a use for."""
    return Meta(pattern=rf"^(?:{'|'.join(names)})\Z")
