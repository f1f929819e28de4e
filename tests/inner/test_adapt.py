"""The inner loop on losses that have a closed form, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop, adapt, rate_shapes, rates_at
from metadarts.optim import exponentiated, momentum
from metadarts.testing import ENGINES

CURVATURE = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


@dataclass(frozen=True)
class Targets:
    """T tasks: reach a point each."""

    points: torch.Tensor

    @property
    def tasks(self) -> int:
        return len(self.points)

    def task(self, index: int) -> Targets:
        return Targets(self.points[index : index + 1])


def bowl(params, batch, at=None):
    """0.5 sum c (x - target)^2 of each task."""
    return 0.5 * (CURVATURE * (params["x"] - batch.points).square()).sum(1)


def slope(params, batch, at=None):
    """A loss that is linear in its parameters."""
    return (params["x"] * batch.points).sum(1)


def draw(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("adapt", name)).torch())


TASKS = Targets(draw("targets", 4, 3))
START = {"x": draw("start", 4, 3)}
SGD = InnerLoop(steps=3, weight_rate=0.1)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_sgd_on_a_bowl_has_a_closed_form(engine):
    """K steps: x - target shrinks by (1 - rate c)^K, and so does the derivative with respect to the start."""
    start = {"x": START["x"].clone().requires_grad_()}
    result = adapt(bowl, start, TASKS, SGD, engine=ENGINES[engine])
    shrink = (1.0 - 0.1 * CURVATURE) ** 3
    torch.testing.assert_close(
        result.params["x"], TASKS.points + shrink * (START["x"] - TASKS.points), rtol=1e-13, atol=1e-13
    )
    (grad,) = torch.autograd.grad(result.params["x"].sum(), start["x"])
    torch.testing.assert_close(grad, shrink.expand(4, 3), rtol=1e-13, atol=0.0)
    assert result.losses.shape == (3, 4)
    torch.testing.assert_close(result.losses[0], bowl(START, TASKS))


@pytest.mark.parametrize("engine", list(ENGINES))
def test_first_order_passes_gradients_straight_to_the_start(engine):
    start = {"x": START["x"].clone().requires_grad_()}
    result = adapt(bowl, start, TASKS, replace(SGD, order="first"), engine=ENGINES[engine])
    torch.testing.assert_close(result.params["x"], adapt(bowl, START, TASKS, SGD).params["x"].detach())
    (grad,) = torch.autograd.grad(result.params["x"].sum(), start["x"])
    assert torch.equal(grad, torch.ones(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("engine", list(ENGINES))
def test_on_a_linear_loss_first_order_is_exact(engine):
    grads = []
    for order in ("first", "second"):
        start = {"x": START["x"].clone().requires_grad_()}
        ends = adapt(slope, start, TASKS, replace(SGD, order=order), engine=ENGINES[engine]).params
        grads += torch.autograd.grad(bowl(ends, TASKS).sum(), start["x"])
    assert torch.equal(*grads)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_zero_steps_and_zero_rates_change_nothing(engine):
    for inner in (replace(SGD, steps=0), replace(SGD, weight_rate=0.0)):
        params = START | {"alphas.y": draw("alphas", 4, 2)}

        def loss(own, batch, at=None):
            return bowl(own, batch) + own["alphas.y"].sum(1)

        result = adapt(loss, params, TASKS, inner, engine=ENGINES[engine])
        assert torch.equal(result.params["x"], START["x"])
        assert result.losses.shape == (inner.steps, 4)
        assert torch.equal(result.params["alphas.y"], params["alphas.y"]) == (inner.steps == 0)


def test_nothing_is_kept_under_no_grad():
    with torch.no_grad():
        ends = adapt(bowl, {"x": START["x"].clone().requires_grad_()}, TASKS, SGD).params["x"]
    assert not ends.requires_grad
    torch.testing.assert_close(ends, adapt(bowl, START, TASKS, SGD).params["x"])


def test_the_observer_sees_every_step_from_the_start_to_the_end():
    seen = []
    result = adapt(bowl, START, TASKS, SGD, observe=lambda step, params: seen.append((step, params["x"])))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0][1], START["x"])
    assert torch.equal(seen[-1][1], result.params["x"])


@pytest.mark.parametrize("checkpoint", [0, 3], ids=["stored", "recomputed"])
def test_each_step_learns_from_its_own_batch(checkpoint):
    parts = [Targets(draw(f"part {step}", 4, 3)) for step in range(3)]
    start = {"x": START["x"].clone().requires_grad_()}
    inner = replace(SGD, checkpoint=checkpoint)
    result = adapt(bowl, start, TASKS, inner, batches=parts.__getitem__)
    expected = START["x"]
    for part in parts:
        expected = expected - 0.1 * CURVATURE * (expected - part.points)
    torch.testing.assert_close(result.params["x"], expected, rtol=1e-13, atol=1e-13)
    (grad,) = torch.autograd.grad(result.params["x"].sum(), start["x"])
    torch.testing.assert_close(grad, ((1.0 - 0.1 * CURVATURE) ** 3).expand(4, 3), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("stop", [0, 2])
def test_an_observer_that_returns_true_ends_the_loop(stop):
    shorter = adapt(bowl, START, TASKS, replace(SGD, steps=stop))
    result = adapt(bowl, START, TASKS, SGD, observe=lambda step, params: step == stop)
    assert torch.equal(result.params["x"], shorter.params["x"])
    assert len(result.losses) == stop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "loop"}, "expected None or an entry of metadarts.testing.ENGINES, given 'loop'"),
        ({"engine": ENGINES["loop"], "observe": lambda step, params: None}, "observe needs the batched engine"),
        ({"engine": ENGINES["higher"], "batches": lambda step: TASKS}, "batches needs the batched engine"),
        (
            {"engine": ENGINES["higher"], "rates": {"rates.weights": torch.ones(4)}},
            "neither learned rates nor clipping",
        ),
    ],
)
def test_what_an_engine_does_not_offer_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        adapt(bowl, START, TASKS, SGD, **options)


@pytest.mark.parametrize(
    "option", [{"clip": 1.0}, {"decay": 0.1}, {"schedule": "cosine"}, {"rule": "adamw"}, {"alpha_rule": "sgd"}]
)
def test_higher_refuses_what_it_has_not(option):
    with pytest.raises(ConfigError, match="use batched or loop"):
        adapt(bowl, START, TASKS, replace(SGD, **option), engine=ENGINES["higher"])


def test_higher_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "higher", None)
    with pytest.raises(ConfigError, match="pip install higher"):
        adapt(bowl, START, TASKS, SGD, engine=ENGINES["higher"])


def test_all_faults_of_a_configuration_at_once():
    with pytest.raises(ConfigError) as error:
        InnerLoop(steps=-1, order="third", granularity="layer", head_rate=-1.0, clip=0.0, decay=-0.1, schedule="cosin")
    for part in (
        "steps: expected 0 or more, got -1",
        "order 'third'",
        "granularity 'layer'",
        "rates: expected finite numbers from 0 on, got {'head': -1.0, 'body': 0.1, 'alphas': 30.0}",
        "clip:",
        "decay: expected a finite number from 0 on or none, got -0.1",
        "schedule 'cosin' is unknown; did you mean 'cosine'",
    ):
        assert part in str(error.value)


def test_an_unknown_rule_is_refused_when_configured():
    with pytest.raises(ConfigError, match="unknown update rule 'rmsprop'"):
        InnerLoop(rule="rmsprop")
    with pytest.raises(ConfigError, match="unknown update rule 'rmsprop'"):
        InnerLoop(alpha_rule="rmsprop")


@pytest.mark.parametrize("rule", ["exponentiated", exponentiated()])
def test_a_rule_of_alphas_is_refused_for_weights(rule):
    with pytest.raises(ConfigError, match=r"inner loop: rule 'exponentiated' is for alphas alone, .*: set alpha_rule"):
        InnerLoop(rule=rule, alpha_rule="sgd")


NAMES = ["a", "b", "alphas.normal", "alphas.reduce"]


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        ("group", {"rates.weights": (), "rates.alphas": ()}),
        ("step", {"rates.weights": (4,), "rates.alphas": (4,)}),
        ("tensor", {f"rates.{name}": () for name in NAMES}),
        ("tensor-step", {f"rates.{name}": (4,) for name in NAMES}),
    ],
)
def test_learned_rates_are_shaped_by_their_granularity(granularity, expected):
    table = rate_shapes(InnerLoop(steps=4, granularity=granularity), NAMES)
    assert {name: shape for name, (shape, _) in table.items()} == expected
    assert {value for _, value in table.values()} == {0.1, 30.0}


def test_a_head_with_a_rate_of_its_own_has_a_learned_one():
    names = ["head.weight", *NAMES]
    expected = {"rates.head": 0.5, "rates.weights": 0.1, "rates.alphas": 30.0}
    found = rate_shapes(InnerLoop(head_rate=0.5), names)
    assert {name: value for name, (_, value) in found.items()} == expected
    assert "rates.head" not in rate_shapes(InnerLoop(), names)
    assert set(rate_shapes(InnerLoop(head_rate=0.0), names)) == {"rates.weights", "rates.alphas"}
    assert set(rate_shapes(InnerLoop(weight_rate=0.0, head_rate=0.5), names)) == {"rates.head", "rates.alphas"}


def test_learned_rates_of_the_head_reach_the_head_alone():
    rates = {"rates.head": torch.tensor([1.0, 2.0]), "rates.weights": torch.tensor([3.0, 4.0])}
    start = {"head.weight": torch.zeros(2, 5), "a": torch.zeros(2, 5)}
    at = rates_at(InnerLoop(head_rate=0.5), rates, start, 0)
    assert {name: rate.tolist() for name, rate in at.items()} == {"head.weight": [1.0, 2.0], "a": [3.0, 4.0]}
    shared = rates_at(InnerLoop(), rates, start, 0)
    assert torch.equal(shared["head.weight"], rates["rates.weights"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"head": 0.1, "body": 0.1, "alphas": 30.0}),
        ({"head_rate": 0.5}, {"head": 0.5, "body": 0.1, "alphas": 30.0}),
        ({"weight_rate": 0.0, "head_rate": 0.5}, {"head": 0.5, "body": 0.0, "alphas": 30.0}),
        ({"weight_rate": 0.2, "alpha_rate": 0.0}, {"head": 0.2, "body": 0.2, "alphas": 0.0}),
    ],
)
def test_every_group_has_a_rate(settings, expected):
    inner = InnerLoop(**settings)
    assert inner.rates == expected
    assert {name: inner.rate_of(name) for name in ("head.bias", "stem.conv1", "alphas.normal")} == {
        "head.bias": expected["head"], "stem.conv1": expected["body"], "alphas.normal": expected["alphas"]
    }  # fmt: skip


def test_facts_tell_rarer_settings_only_where_they_are_set():
    assert InnerLoop().facts == {"rule": "sgd", "weight_rate": 0.1, "alpha_rate": 30.0, "clip": None}
    rare = {"head_rate": 0.0, "decay": 0.1, "schedule": "cosine"}
    assert InnerLoop(**rare, rule=momentum()).facts == InnerLoop().facts | {"rule": "momentum"} | rare
    for rule in ("exponentiated", exponentiated()):
        assert InnerLoop(alpha_rule=rule).facts == InnerLoop().facts | {"alpha_rule": "exponentiated"}


@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_alphas_decay_under_no_rule_of_their_own(rule):
    start = {"alphas.y": draw("still", 4, 2)}
    inner = InnerLoop(2, decay=0.5, alpha_rate=0.2, alpha_rule=rule)
    ends = adapt(lambda own, batch, at: 0.0 * own["alphas.y"].sum(1), start, TASKS, inner).params
    assert torch.equal(ends["alphas.y"], start["alphas.y"])


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_decay_and_schedule_have_a_closed_form_on_a_bowl(engine):
    """x_{k+1} = (1 - a_k d) x_k - a_k c (x_k - target), with a_k along half a cosine; alphas do not decay."""
    inner = replace(SGD, decay=0.3, schedule="cosine", alpha_rate=0.2)
    table = draw("still", 4, 2)
    ends = adapt(
        lambda own, batch, at=None: bowl(own, batch) + 0.0 * own["alphas.y"].sum(1),
        START | {"alphas.y": table}, TASKS, inner, engine=ENGINES[engine],
    ).params  # fmt: skip
    expected = START["x"]
    for share in (1.0, 0.75, 0.25):
        expected = (1 - 0.1 * share * 0.3) * expected - 0.1 * share * CURVATURE * (expected - TASKS.points)
    torch.testing.assert_close(ends["x"], expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(ends["alphas.y"], table)


def test_a_group_that_does_not_move_has_no_rate():
    assert set(rate_shapes(InnerLoop(alpha_rate=0.0), NAMES)) == {"rates.weights"}


def test_rates_of_steps_continue_beyond_those_they_were_learned_for():
    inner = InnerLoop(steps=2, alpha_rate=0.0, granularity="step")
    rates = {"rates.weights": torch.tensor([[0.1, 0.2], [0.3, 0.4]])}
    start = {"a": torch.zeros(2, 5), "alphas.normal": torch.zeros(2, 3)}
    found = [rates_at(inner, rates, start, step) for step in range(4)]
    assert [list(at) for at in found] == [["a"]] * 4
    for at, expected in zip(found, ([0.1, 0.3], [0.2, 0.4], [0.2, 0.4], [0.2, 0.4]), strict=True):
        assert torch.equal(at["a"], torch.tensor(expected))


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_learned_rates_are_those_of_their_task_step_and_tensor(engine):
    inner = InnerLoop(steps=2, granularity="tensor-step")
    table = 0.1 * draw("table", 4, 2).abs()
    ends = adapt(bowl, START, TASKS, inner, rates={"rates.x": table}, engine=ENGINES[engine]).params["x"]
    expected = START["x"]
    for step in range(2):
        expected = expected - table[:, step : step + 1] * CURVATURE * (expected - TASKS.points)
    torch.testing.assert_close(ends, expected)
