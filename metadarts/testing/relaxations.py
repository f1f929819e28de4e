"""check_relaxation: mixing weights that can be differentiated twice, noise only from its key, scores for derivation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.rng import Key
from metadarts.core.types import Stage
from metadarts.relaxations import CLOSED, Relaxation, zeros_learn

SHAPE = (2, 3, 4)
"""Of the alphas: tasks, rows, candidates."""
STEPS = 2
NOISE = (SHAPE[0], STEPS + 1, *SHAPE[1:])
STAGES = tuple(Stage(step, STEPS, progress) for step in range(STEPS + 1) for progress in (0.0, 0.5, 1.0))


def check_relaxation(relaxation: Relaxation, *, smooth: bool = True, learns: bool = True) -> None:
    """Check a relaxation at every inner step, at the beginning, in the middle of and at the end of a run.

    Args:
        smooth: whether its derivatives are those of its values. Those of straight-through estimators are not, and are
            not checked.
        learns: whether the alphas get a gradient from the weights; False for sampled paths.

    Raises:
        AssertionError: for a wrong shape or type; weights that are not finite, have no graph or change when computed
            again; a weight for a dropped candidate; a device or a progress that only works as a number; noise that its
            key does not determine; derivatives that differ from central differences; or scores that are not finite
            double-precision numbers of at least 0 or that rank the candidates of a row differently from their alphas.
    """
    key = Key(("check_relaxation",))
    alpha = torch.randn(SHAPE, dtype=torch.float64, generator=key.child("alpha").torch())
    _check_noise(relaxation, key)
    _check_scores(relaxation, alpha)
    drawn = relaxation.noise(NOISE, key.child("noise"))
    for draws in (None,) if drawn is None else (None, drawn):  # None: outside training
        _check_repeats(relaxation, alpha, draws)
        for at in STAGES:
            noise = _draw(draws, at)
            _check_weights(relaxation, alpha, at, noise, learns)
            _check_device(relaxation, alpha, at, noise)
            _check_closed(relaxation, alpha, at, noise)
            if smooth:
                _check_derivatives(relaxation, alpha, at, noise)
    if not zeros_learn(relaxation):
        _check_zeros(relaxation, alpha, _draw(drawn, STAGES[-1]))


def _draw(draws: Tensor | None, at: Stage) -> Tensor | None:
    return None if draws is None else draws[:, at.step]


def _check_noise(relaxation: Relaxation, key: Key) -> None:
    first, again, other = (relaxation.noise(NOISE, key.child(name)) for name in ("a", "a", "b"))
    if first is None or again is None or other is None:
        if not (first is again is other is None):
            raise AssertionError("noise: expected it always or never")
        return
    if tuple(first.shape) != NOISE or not torch.equal(first, again) or torch.equal(first, other):
        raise AssertionError("noise: expected the shape asked for, the same for one key and another for another")


def _check_scores(relaxation: Relaxation, alpha: Tensor) -> None:
    scores = relaxation.scores(alpha.float())
    finite = bool(torch.isfinite(scores).all()) and bool((scores >= 0).all())
    if tuple(scores.shape) != SHAPE or scores.dtype != torch.float64 or not finite:
        raise AssertionError("scores: expected finite double-precision numbers from 0 on, shaped as the alphas")
    rising = scores.gather(-1, alpha.float().argsort(-1)).diff(dim=-1)
    if not bool((rising >= 0).all()):
        raise AssertionError("scores: expected no candidate to score below one of a smaller alpha in its row")


def _check_weights(relaxation: Relaxation, alpha: Tensor, at: Stage, noise: Tensor | None, learns: bool) -> None:
    weights = relaxation.weights(alpha, at, noise)
    if tuple(weights.shape) != SHAPE or not bool(torch.isfinite(weights).all()):
        raise AssertionError(f"weights at {at}: expected finite numbers shaped as the alphas")
    if relaxation.weights(alpha.float(), at, None if noise is None else noise.float()).dtype != torch.float32:
        raise AssertionError(f"weights at {at}: expected the type of the alphas")
    if relaxation.weights(alpha.clone().requires_grad_(), at, noise).requires_grad != learns:
        raise AssertionError(f"weights at {at}: expected {'a' if learns else 'no'} graph back to the alphas")
    recorded = relaxation.weights(alpha, at._replace(progress=torch.tensor(at.progress, dtype=torch.float64)), noise)
    if not torch.allclose(weights, recorded, rtol=1e-12, atol=0):
        raise AssertionError(f"weights at {at}: others where progress is a tensor")
    alone = relaxation.weights(alpha[:1], at, None if noise is None else noise[:1])
    if not torch.allclose(weights[:1], alone, rtol=1e-12, atol=0):
        raise AssertionError(f"weights at {at}: tasks depend on one another")


def _check_zeros(relaxation: Relaxation, alpha: Tensor, noise: Tensor | None) -> None:
    """Candidates whose weight is exactly 0 are not run where the relaxation promises that nothing is lost by it."""
    leaf = (1e4 * alpha).requires_grad_()
    weights = relaxation.weights(leaf, STAGES[-1], noise)
    zeros = (weights.detach() == 0).to(weights)
    if not weights.requires_grad or not bool(zeros.any()):
        return
    read = torch.linspace(1.0, 2.0, weights.numel(), dtype=weights.dtype).view_as(weights)
    (first,) = torch.autograd.grad((zeros * read * weights).sum(), leaf, create_graph=True)
    second = torch.autograd.grad((first * read).sum(), leaf)[0] if first.requires_grad else torch.zeros_like(first)
    if bool((first != 0).any()) or bool((second != 0).any()):
        raise AssertionError(
            "weights of exactly 0 have a derivative: expected none, or the attribute zeros_learn of True"
        )


def _check_closed(relaxation: Relaxation, alpha: Tensor, at: Stage, noise: Tensor | None) -> None:
    """A permanently dropped candidate has the effect of a missing one."""
    left = [0, 2, 3]
    closed = alpha.clone()
    closed[..., 1] = CLOSED
    weights = relaxation.weights(closed, at, noise)
    alone = relaxation.weights(alpha[..., left], at, None if noise is None else noise[..., left])
    if bool((weights[..., 1] != 0).any()) or not torch.allclose(weights[..., left], alone, rtol=1e-9, atol=1e-12):
        raise AssertionError(
            f"weights at {at}: expected 0 for a candidate whose alpha is CLOSED, and the others weighed without it"
        )


def _check_device(relaxation: Relaxation, alpha: Tensor, at: Stage, noise: Tensor | None) -> None:
    """A recorded GPU step keeps what Python computes from a tensor. On the meta device no tensor has a number."""
    progress = torch.tensor(at.progress, device="meta")
    try:
        relaxation.weights(
            alpha.to("meta"), at._replace(progress=progress), None if noise is None else noise.to("meta")
        )
    except (RuntimeError, NotImplementedError) as error:
        raise AssertionError(
            f"weights at {at}: expected tensors of the alphas' device, and no tensor (progress is one) made a number: "
            f"{error}"
        ) from error


def _check_repeats(relaxation: Relaxation, alpha: Tensor, draws: Tensor | None) -> None:
    """Inner steps are recomputed, latest first, and must find the bits of the first pass."""
    stored = [(at, relaxation.weights(alpha, at, _draw(draws, at))) for at in STAGES]
    for at, weights in reversed(stored):
        if not torch.equal(weights, relaxation.weights(alpha, at, _draw(draws, at))):
            raise AssertionError(f"weights at {at}: others when computed again; all that is drawn comes from `noise`")


def _check_derivatives(relaxation: Relaxation, alpha: Tensor, at: Stage, noise: Tensor | None) -> None:
    leaf = alpha.clone().requires_grad_()
    try:
        gradcheck(lambda own: relaxation.weights(own, at, noise), leaf)
        gradgradcheck(lambda own: relaxation.weights(own, at, noise), leaf)
    except RuntimeError as error:
        raise AssertionError(f"weights at {at}: {error}") from error
