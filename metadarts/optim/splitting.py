"""One rule for some parameters, another for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from metadarts.core.types import Params

from ._types import Rates, Rule, State, Step


def split(rule: Rule, other: Rule, others: Callable[[str], bool]) -> Rule:
    """``other`` for the parameters whose names ``others`` picks, ``rule`` for the rest; named and typed as ``rule``.

    The state has the slots of both rules; a common slot contains the parameters of both.
    """
    halves = ((rule, lambda name: not others(name)), (other, others))

    def init(params: Params) -> State:
        return _joined(own.init(_picked(params, picks)) for own, picks in halves)

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        moved, states = params, []
        for own, picks in halves:
            given = {slot: _picked(kept, picks) for slot, kept in state.items()}
            own_rates = _picked(rates, picks) if isinstance(rates, dict) else rates
            ends, slots = own.update(_picked(grads, picks), given, _picked(params, picks), own_rates, step)
            moved = moved | ends
            states.append(slots)
        return moved, _joined(states)

    return Rule(rule.name, init, update, rule.simplex)


def _picked(tensors: Params, picks: Callable[[str], bool]) -> Params:
    return {name: tensor for name, tensor in tensors.items() if picks(name)}


def _joined(states: Iterable[State]) -> State:
    joined: State = {}
    for state in states:
        for slot, tensors in state.items():
            joined[slot] = joined.get(slot, {}) | tensors
    return joined
