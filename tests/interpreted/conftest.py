"""Triton kernels on the CPU, under Triton's interpreter: `TRITON_INTERPRET=1 pytest tests/interpreted`.

Some 20 ms a program, so shapes are tiny and odd. A test asks for `ran` to assert which kernels really ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from metadarts.ops import watched
from metadarts.ops.choice import no_triton
from metadarts.ops.gpu.launch import Launch, interpreting, launches


@pytest.fixture(scope="session", autouse=True)
def interpreter() -> None:
    """Triton, interpreting; else a reason to skip."""
    if reason := no_triton():
        pytest.skip(reason)
    assert interpreting()


@dataclass
class Ran:
    """The choices made and the kernels launched since the test began."""

    choices: list[tuple[str, str]]
    launched: list[Launch]

    def only(self, op: str, *stages: str) -> bool:
        """Whether nothing ran but ``op`` by Triton, and of its kernels exactly ``stages``."""
        names = {launch.kernel.name for launch in self.launched}
        return set(self.choices) == {(op, "triton")} and names == {f"{op}.{stage}" for stage in stages}


@pytest.fixture
def ran() -> Iterator[Ran]:
    with watched() as choices, launches() as launched:
        yield Ran(choices, launched)
