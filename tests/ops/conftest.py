"""What the operators' tests share: a record of which implementation, and which of its kernels, really ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from metadarts.ops import watched
from metadarts.ops.vector import launch

KERNELS = {
    "separable": ("forward", "backward", "input_gradient", "second"),
    "pool": ("forward", "gradient", "second"),
    "mix": ("forward", "gradient", "second"),
    "conv_block": ("forward", "gradient", "input_gradient", "second"),
}


@dataclass
class Ran:
    """The choices made and the kernels run since the test began."""

    choices: list[tuple[str, str]] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)

    def only(self, op: str, implementation: str) -> bool:
        """Whether nothing but this implementation ran, and with "cpu" each of the operator's kernels."""
        expected = {f"{op}.{step}" for step in KERNELS[op]} if implementation == "cpu" else set()
        return set(self.choices) == {(op, implementation)} and self.kernels == expected


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ran]:
    run = launch.Kernel.__call__
    with watched() as choices:
        seen = Ran(choices)

        def noted(kernel, *arguments):
            seen.kernels.add(kernel.name)
            return run(kernel, *arguments)

        monkeypatch.setattr(launch.Kernel, "__call__", noted)
        yield seen
