"""Inner loops that move nothing, and options that an engine does not have."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.inner import InnerLoop, adapt
from metadarts.testing import ENGINES


class Bowl:
    tasks = 2

    def task(self, index: int) -> Bowl:
        return self


def loss(params, batch, at=None):
    return params["x"].square().sum(1)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_rates_of_zero_leave_the_start_alone(engine):
    start = {"x": torch.ones(2, 3, requires_grad=True)}
    adapted = adapt(loss, start, Bowl(), InnerLoop(3, weight_rate=0.0, alpha_rate=0.0), engine=ENGINES[engine])
    assert adapted.params["x"] is start["x"]
    assert adapted.losses.shape == (0, 2)


def test_an_observer_still_sees_every_step():
    seen = []
    inner = InnerLoop(3, weight_rate=0.0, alpha_rate=0.0)
    adapt(loss, {"x": torch.ones(2, 3)}, Bowl(), inner, observe=lambda step, params: seen.append(step))
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("engine", ["loop", "higher"])
def test_checkpointing_elsewhere_is_refused(engine):
    with pytest.raises(ConfigError, match="checkpoint needs the batched engine"):
        adapt(loss, {"x": torch.ones(2, 3)}, Bowl(), InnerLoop(3, checkpoint=1), engine=ENGINES[engine])


@pytest.mark.parametrize("fault", [{"checkpoint": -1}, {"weight_rate": float("inf")}, {"alpha_rate": float("nan")}])
def test_fields_out_of_range(fault):
    with pytest.raises(ConfigError):
        InnerLoop(**fault)
