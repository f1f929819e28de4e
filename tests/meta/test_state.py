"""The outer loop: its rules and schedules, the alphas' warm-up, learned rates that stay positive, clipped gradients."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from metadarts.core.errors import ConfigError, RunError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop
from metadarts.meta import MetaState, OuterLoop, meta_gradient, meta_step
from metadarts.optim import RULES, momentum
from metadarts.testing import generic_params, random_tasks, tiny_learner

LEARNER = tiny_learner(head="prototype")
PARAMS = generic_params(LEARNER, Key.from_seed(1))
TASKS = random_tasks(Key.from_seed(0))
NAMES = list(LEARNER.start({name: tensor.unsqueeze(0) for name, tensor in PARAMS.items()}, TASKS.task(0)))
INNER = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0)
LEARNED = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0, learn_rates=True, granularity="tensor-step")


def fresh(inner=INNER, **outer):
    return MetaState.create(PARAMS, NAMES, inner, OuterLoop(**outer))


def ones(state):
    return {name: torch.ones_like(tensor) for name, tensor in (state.params | state.log_rates).items()}


def moved(state):
    return {name for name, tensor in state.params.items() if not torch.equal(tensor, PARAMS[name])}


def test_a_state_keeps_copies():
    state = fresh()
    meta_step(LEARNER, state, TASKS, INNER)
    before = generic_params(LEARNER, Key.from_seed(1))
    assert all(torch.equal(PARAMS[name], before[name]) for name in PARAMS)
    assert moved(state) == set(PARAMS)
    assert state.step == 1


def test_one_step_is_one_step_of_adam_along_the_meta_gradient():
    """T-NAS: weights by Adam's defaults, alphas with betas (0.5, 0.999) and weight decay 1e-3."""
    state = fresh(clip=None, alpha_decay=1e-3)
    result, norms = meta_step(LEARNER, state, TASKS, INNER)
    gradients = meta_gradient(LEARNER, PARAMS, TASKS, INNER).gradients
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in PARAMS.items()}
    groups = [[leaf for name, leaf in leaves.items() if is_alpha(name) == alphas] for alphas in (False, True)]
    adam = torch.optim.Adam(
        [{"params": groups[0]}, {"params": groups[1], "betas": (0.5, 0.999), "weight_decay": 1e-3}], lr=1e-3
    )
    for name, leaf in leaves.items():
        leaf.grad = gradients[name]
    adam.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(state.params[name], leaf.detach(), rtol=1e-12, atol=1e-14)
        assert torch.equal(result.gradients[name], gradients[name])
    assert set(norms) == {"weights", "alphas"}
    squares = sum(float(grad.square().sum()) for name, grad in gradients.items() if not is_alpha(name))
    assert norms["weights"] == pytest.approx(math.sqrt(squares))


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (0.25, 0.8682), (0.5, 0.55), (1.0, 0.1), (2.0, 0.1), (-1.0, 1.0)]
)
def test_outer_rates_decay_along_a_cosine_to_their_final_share(progress, share):
    state = fresh(LEARNED, weight_rate=1e-2, alpha_rate=3e-3, rate_rate=5e-2, final=0.1)
    state.apply(ones(state), progress)
    expected = {"weights": 1e-2 * share, "alphas": 3e-3 * share, "rates": 5e-2 * share}
    assert state.outer_rates == pytest.approx(expected, rel=1e-4)


def test_without_a_final_share_rates_are_constant():
    state = fresh()
    for progress in (0.0, 0.7, 1.0):
        state.apply(ones(state), progress)
        assert state.outer_rates == {"weights": 1e-3, "alphas": 1e-3}


def test_alphas_stay_where_they_are_during_their_warm_up():
    state = fresh(alpha_warmup=2)
    for step in range(3):
        state.apply(ones(state), 0.0)
        alphas_moved = {name for name in moved(state) if is_alpha(name)}
        assert bool(alphas_moved) == (step >= 2)
        assert "stem.conv1" in moved(state)


def test_the_norm_is_clipped_group_by_group_and_reported_unclipped():
    state = fresh(clip=1e-3, rule="sgd", weight_rate=1.0, alpha_rate=1.0)
    norms = state.apply(ones(state), 0.0)
    for kind in (False, True):
        squares = [
            (tensor - PARAMS[name]).square().sum() for name, tensor in state.params.items() if is_alpha(name) == kind
        ]
        assert math.sqrt(sum(map(float, squares))) == pytest.approx(1e-3, rel=1e-2)
    assert norms["alphas"] == pytest.approx(math.sqrt(sum(t.numel() for n, t in PARAMS.items() if is_alpha(n))))


def test_learned_rates_start_at_the_configured_ones():
    rates = fresh(LEARNED).rates
    assert set(rates) == {f"rates.{name}" for name in NAMES}
    for name, rate in rates.items():
        assert rate.shape == (1,)
        assert float(rate) == pytest.approx(2.0 if ".alphas." in name else 0.05)


def test_without_learned_rates_there_are_none():
    assert fresh().rates is None


@pytest.mark.parametrize("push", [1e6, -1e6])
def test_learned_rates_stay_positive(push):
    state = fresh(LEARNED, rate_rate=1.0)
    for _ in range(20):
        state.apply({name: push * grad for name, grad in ones(state).items()}, 0.0)
    assert all(bool((rate > 0.0).all()) and bool(torch.isfinite(rate).all()) for rate in state.rates.values())


def test_learned_rates_follow_the_gradient_of_their_logarithm():
    """d loss / d log(rate) = rate d loss / d rate: a rate whose growth lowers the loss grows."""
    state = fresh(LEARNED, rate_rate=0.01)
    before = state.rates
    result, norms = meta_step(LEARNER, state, TASKS, LEARNED)
    assert norms["rates"] == pytest.approx(
        math.sqrt(sum(float((result.gradients[name] * rate).square().sum()) for name, rate in before.items())), rel=1e-9
    )
    grew = [(name, float(state.rates[name] - rate), float(result.gradients[name])) for name, rate in before.items()]
    assert all(step * grad < 0.0 for _, step, grad in grew if abs(grad) > 1e-9)
    assert any(abs(grad) > 1e-9 for _, _, grad in grew)


def test_meta_steps_learn():
    """Eight steps on the same tasks lower their query loss."""
    state = fresh(weight_rate=3e-2, alpha_rate=1e-2)
    losses = [float(meta_step(LEARNER, state, TASKS, INNER)[0].losses.mean()) for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]


REFERENCES = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
DECAYS = {"alpha_decay": 1e-2, "weight_decoupled_decay": None, "alpha_decoupled_decay": 0.0}


def in_float32(**outer):
    """A state of single precision with learned rates, and leaves of the same numbers for an optimiser of torch."""
    rates = {f"rates.{name}": torch.tensor([value]) for name, value in (("weights", 0.1), ("alphas", 30.0))}
    params = {name: tensor.float() for name, tensor in PARAMS.items()}
    log_rates = {name: rate.log() for name, rate in rates.items()}
    state = MetaState({n: t.clone() for n, t in params.items()}, dict(log_rates), OuterLoop(**DECAYS | outer))
    return state, {name: tensor.clone().requires_grad_() for name, tensor in (params | log_rates).items()}


def torch_groups(leaves, rule):
    """Parameter groups as ours: weights, alphas with a beta and a decay of their own, logarithms of rates."""
    weights = [leaf for name, leaf in leaves.items() if not is_alpha(name) and not name.startswith("rates.")]
    alphas = [leaf for name, leaf in leaves.items() if is_alpha(name)]
    rates = [leaf for name, leaf in leaves.items() if name.startswith("rates.")]
    first = {"betas": (0.5, 0.999)} if rule.startswith("adam") else {}
    own = {"weight_decay": 1e-2} if rule != "adamw" else {"weight_decay": 0.0}
    none = {"weight_decay": 0.0} if rule == "adamw" else {}
    return [
        {"params": weights, "lr": 3e-3},
        {"params": alphas, "lr": 1e-2, **first, **own},
        {"params": rates, "lr": 1e-2, **none},
    ]


def gradients(step, like):
    draw = Key(("outer", str(step))).torch()
    return {name: 0.3 * torch.randn(tensor.shape, generator=draw) for name, tensor in like.items()}


def torch_step(optimiser, leaves, grads, clip):
    """A step of torch's optimiser as the outer loop takes it; rates of the optimiser as they are."""
    for name, leaf in leaves.items():
        leaf.grad = grads[name] * leaf.detach().exp() if name.startswith("rates.") else grads[name].clone()
    for group in optimiser.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], clip)
    optimiser.step()


@pytest.mark.parametrize("clip", [1.0, 100.0], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("rule", REFERENCES)
def test_fifty_updates_are_those_of_torch_to_the_bit(rule, clip):
    """On a CPU: groups of other betas and decays, clipping, a cosine, and the logarithms of learned rates."""
    decay = {"alpha_decay": 0.0} if rule == "adamw" else {}  # torch's has no gradient of the decay
    state, leaves = in_float32(rule=rule, clip=clip, weight_rate=3e-3, alpha_rate=1e-2, final=0.1, **decay)
    optimiser = REFERENCES[rule](torch_groups(leaves, rule))
    starts = [group["lr"] for group in optimiser.param_groups]
    for step in range(50):
        share = 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * step / 50))
        for group, start in zip(optimiser.param_groups, starts, strict=True):
            group["lr"] = start * share
        grads = gradients(step, leaves)
        state.apply(grads, step / 50)
        torch_step(optimiser, leaves, grads, clip)
        for name, tensor in (state.params | state.log_rates).items():
            assert torch.equal(tensor, leaves[name]), (step, name)


@pytest.mark.parametrize("rule", REFERENCES)
def test_what_is_kept_on_the_device_takes_the_same_steps(rule):
    state, _ = in_float32(rule=rule, clip=1.0, final=0.1)
    twin = MetaState(
        *({n: t.clone() for n, t in side.items()} for side in (state.params, state.log_rates)), state.outer, True
    )
    for step in range(10):
        grads = gradients(step, state.params | state.log_rates)
        assert twin.apply(grads, step / 10) == state.apply(grads, step / 10)
    for name, tensor in (state.params | state.log_rates).items():
        torch.testing.assert_close((twin.params | twin.log_rates)[name], tensor, rtol=1e-5, atol=1e-7)
    assert twin.memory().keys() == state.memory().keys()
    assert float(twin.updates) == state.updates == 10.0


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("rule", "own"),
    [*((rule, {}) for rule in REFERENCES), ("adam", {"alpha_rule": "exponentiated", "alpha_decay": 0.0})],
)
def test_a_restored_state_goes_on_bit_for_bit(rule, own, on_device):
    whole, _ = in_float32(rule=rule, final=0.1, weight_decoupled_decay=0.1, **own)
    if on_device:
        whole = MetaState(whole.params, whole.log_rates, whole.outer, on_device=True)
    for step in range(6):
        if step == 3:
            copies = (
                {n: t.clone() for n, t in side.items()} for side in (whole.params, whole.log_rates, whole.memory())
            )
            part = MetaState.restore(*copies, 3, whole.outer, on_device)
        for state in (whole, part) if step >= 3 else (whole,):
            state.apply(gradients(step, state.params | state.log_rates), step / 6)
    assert (part.step, float(part.updates)) == (whole.step, float(whole.updates)) == (6, 6.0)
    for mine, theirs in (
        (part.params, whole.params),
        (part.log_rates, whole.log_rates),
        (part.memory(), whole.memory()),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())


def test_what_torchs_adam_wrote_is_gone_on_with_bit_for_bit():
    """Checkpoints of versions whose outer loop was torch.optim.Adam hold its state, by parameter."""
    state, leaves = in_float32(clip=1.0)
    optimiser = torch.optim.Adam([group | {"lr": 1e-3} for group in torch_groups(leaves, "adam")])
    for step in range(4):
        torch_step(optimiser, leaves, gradients(step, leaves), 1.0)
    memory = {
        f"{name}/{key}": value.clone() for name, leaf in leaves.items() for key, value in optimiser.state[leaf].items()
    }
    params, log_rates = (
        {name: leaves[name].detach().clone() for name in side} for side in (state.params, state.log_rates)
    )
    state = MetaState.restore(params, log_rates, memory, 4, OuterLoop(clip=1.0, alpha_decay=1e-2, rate_rate=1e-3))
    kept = state.memory()
    assert kept.keys() == memory.keys()
    assert all(torch.equal(kept[name], tensor) and kept[name].dtype == tensor.dtype for name, tensor in memory.items())
    for step in range(4, 8):
        state.apply(gradients(step, leaves), 0.0)
        torch_step(optimiser, leaves, gradients(step, leaves), 1.0)
    assert all(torch.equal(tensor, leaves[name]) for name, tensor in (state.params | state.log_rates).items())


@pytest.mark.parametrize(
    ("rule", "slots"),
    [
        ("sgd", set()),
        ("momentum", {"momentum_buffer"}),
        ("adam", {"exp_avg", "exp_avg_sq"}),
        ("adamw", {"exp_avg", "exp_avg_sq"}),
    ],
)
def test_memory_is_empty_before_the_first_update_and_then_the_rules(rule, slots):
    state = fresh(LEARNED, rule=rule)
    assert state.memory() == {}
    state.apply(ones(state), 0.0)
    names = [*state.params, *state.log_rates]
    assert set(state.memory()) == {f"{name}/{key}" for name in names for key in {"step", *slots}}


def test_memory_of_another_rule_is_refused():
    state = fresh(rule="momentum")
    state.apply(ones(state), 0.0)
    with pytest.raises(RunError, match=r"the optimiser's memory .*/exp_avg' is missing or fits nothing"):
        MetaState.restore(state.params, {}, state.memory(), 1, OuterLoop())


def test_a_skipped_update_leaves_every_bit():
    state = MetaState.create(PARAMS, NAMES, LEARNED, OuterLoop(), on_device=True)
    state.apply(ones(state), 0.0)
    before = {n: t.clone() for n, t in (state.params | state.log_rates | state.memory()).items()}
    norms = state.update({name: 7.0 * grad for name, grad in ones(state).items()}, skip=torch.tensor(1.0))
    assert all(
        torch.equal(tensor, before[n]) for n, tensor in (state.params | state.log_rates | state.memory()).items()
    )
    assert set(norms) == {"weights", "alphas", "rates"}
    state.update(ones(state), skip=torch.tensor(0.0))
    assert moved(state) == set(PARAMS)
    assert not torch.equal(state.params["stem.conv1"], before["stem.conv1"])
    assert float(state.updates) == 2.0


def test_rates_rise_over_the_warm_up():
    state = fresh(LEARNED, warmup=0.2)
    for progress, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        state.schedule(progress)
        assert state.outer_rates == pytest.approx(
            {"weights": 1e-3 * share, "alphas": 1e-3 * share, "rates": 1e-2 * share}
        )


@pytest.mark.parametrize("on_device", [False, True])
def test_progress_is_a_tensor_that_stays_in_its_place(on_device):
    state = MetaState.create(PARAMS, NAMES, INNER, OuterLoop(), on_device)
    place = state.progress
    state.schedule(0.25)
    assert state.progress is place
    assert (float(place), place.shape, place.device) == (0.25, (), state.params["stem.conv1"].device)


def test_alphas_decay_by_default_in_no_way():
    """An L2 decay under Adam holds alphas near their mean gradient over the decay: near uniform."""
    state = fresh(weight_rate=0.0, alpha_rate=0.1)
    state.apply({name: torch.zeros_like(tensor) for name, tensor in state.params.items()}, 0.0)
    assert moved(state) == set()


@pytest.mark.parametrize("settings", [{"alpha_decay": 1e-3}, {"alpha_decoupled_decay": 0.1}], ids=["L2", "decoupled"])
def test_alphas_decay_alone_when_asked(settings):
    state = fresh(alpha_rate=0.1, **settings)
    state.apply({name: torch.zeros_like(tensor) for name, tensor in state.params.items()}, 0.0)
    assert moved(state) == {name for name in PARAMS if is_alpha(name)}
    assert all(bool(((t - PARAMS[n]) * PARAMS[n] < 0.0).all()) for n, t in state.params.items() if is_alpha(n))


def test_adamw_decays_weights_and_leaves_alphas_and_rates():
    state = fresh(LEARNED, rule="adamw")
    before = state.rates
    state.apply({name: torch.zeros_like(tensor) for name, tensor in ones(state).items()}, 0.0)
    assert moved(state) == {name for name in PARAMS if not is_alpha(name) and bool(PARAMS[name].any())}
    assert all(torch.equal(rate, before[name]) for name, rate in state.rates.items())
    name = "stem.conv1"
    torch.testing.assert_close(state.params[name], PARAMS[name] * (1 - 1e-3 * 0.01), rtol=1e-12, atol=0.0)


def test_a_rule_of_ones_own_updates_every_group():
    mine, named = fresh(LEARNED, rule=momentum(0.9)), fresh(LEARNED, rule="momentum")
    for _ in range(2):
        assert mine.apply(ones(mine), 0.0) == named.apply(ones(named), 0.0)
    assert all(torch.equal(mine.params[name], tensor) for name, tensor in named.params.items())


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown update rule 'adamx': did you mean 'adam'"):
        OuterLoop(rule="adamx")
    with pytest.raises(ConfigError, match="unknown update rule 'adamx': did you mean 'adam'"):
        OuterLoop(alpha_rule="adamx")
    assert {*REFERENCES, "exponentiated"} == set(RULES)


@pytest.mark.parametrize("own", ["sgd", "adam", "exponentiated"])
@pytest.mark.parametrize("rule", ["adam", "momentum"])
def test_alphas_may_follow_a_rule_of_their_own(rule, own):
    """Weights and rates move as without it; alphas as their rule says, from the same gradients."""
    state, common = fresh(LEARNED, rule=rule, alpha_rule=own), fresh(LEARNED, rule=rule)
    for _ in range(3):
        assert state.apply(ones(state), 0.0) == common.apply(ones(common), 0.0)
    weights = {name for name in state.params if not is_alpha(name)} | set(state.log_rates)
    both = [side.params | side.log_rates for side in (state, common)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in weights)
    slots = {"adam": {"exp_avg", "exp_avg_sq"}}.get(own, set())
    assert {entry.rpartition("/")[2] for entry in state.memory() if is_alpha(entry)} == {"step", *slots}


def test_the_outer_alphas_descend_on_the_simplex():
    """Algorithm 1 of GAEA, from the gradient of the logits, behind clipping."""
    state = fresh(alpha_rule="exponentiated", alpha_rate=0.3, clip=None)
    gradients = meta_gradient(LEARNER, PARAMS, TASKS, INNER).gradients
    meta_step(LEARNER, state, TASKS, INNER)
    for name in filter(is_alpha, PARAMS):
        p = PARAMS[name].softmax(-1)
        expected = p * (-0.3 * gradients[name] / p).exp()
        torch.testing.assert_close(state.params[name].softmax(-1), expected / expected.sum(-1, keepdim=True))
        assert not torch.allclose(state.params[name], PARAMS[name])


def test_decay_on_the_simplex_is_decoupled_or_refused():
    with pytest.raises(ConfigError, match=r"outer.alpha_decay: rule 'exponentiated' moves .*: expected 0"):
        fresh(alpha_rule="exponentiated", alpha_decay=1e-3)
    with pytest.raises(ConfigError, match="outer loop: rule 'exponentiated' is for alphas alone"):
        OuterLoop(rule="exponentiated")
    state = fresh(alpha_rule="exponentiated", alpha_rate=1.0, alpha_decoupled_decay=0.25)
    state.apply({name: torch.zeros_like(tensor) for name, tensor in state.params.items()}, 0.0)
    for name in filter(is_alpha, PARAMS):
        powers = PARAMS[name].softmax(-1) ** 0.75
        torch.testing.assert_close(state.params[name].softmax(-1), powers / powers.sum(-1, keepdim=True))
