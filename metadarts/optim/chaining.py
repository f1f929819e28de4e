"""A rule with transforms of its inputs."""

from __future__ import annotations

from metadarts.core.types import Params

from ._types import Rates, Rule, State, Step, Transform, Update


def chain(rule: Rule, *transforms: Transform, name: str = "") -> Rule:
    """``rule`` with ``transforms``, applied to its arguments in order; the state is that of the rule.

    Args:
        name: name of the chained rule; empty for that of the rule.
    """

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        seen = Update(grads, params, rates, step)
        for transform in transforms:
            seen = transform(seen)
        return rule.update(seen.grads, state, seen.params, seen.rates, seen.step)

    return Rule(name or rule.name, rule.init, update, rule.simplex)
