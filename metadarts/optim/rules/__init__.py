"""One update rule per file: a factory of `Rule` whose arguments are the rule's constants."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from metadarts.core.errors import ConfigError
from metadarts.core.variants import Variants, collect
from metadarts.optim._types import Rule
from metadarts.optim.chaining import chain
from metadarts.optim.decay import decoupled_decay

RULES: Variants[Callable[..., Rule]] = collect(__name__, "UPDATE_RULE", "update rule")


def rule_by_name(
    rule: str | Rule,
    *,
    decay: float | None = None,
    decayed: Callable[[str], bool] | None = None,
    **constants: float,
) -> Rule:
    """The rule of that name.

    Args:
        rule: a name of `RULES`, or your own rule, which has its constants.
        decay: decoupled weight decay; None for that of the rule (only "adamw" has one).
        decayed: parameter name -> whether it decays; None for all.
        constants: constants of the rule that replace its defaults; those that the rule does not have are ignored.

    Raises:
        ConfigError: for an unknown name.
    """
    known = {} if isinstance(rule, Rule) else signature(RULES[rule]).parameters
    given: dict[str, Any] = {**constants, "decayed": decayed, **({} if decay is None else {"decay": decay})}
    own = {name: value for name, value in given.items() if name in known}
    found = rule if isinstance(rule, Rule) else RULES[rule](**own)
    return chain(found, decoupled_decay(decay, decayed)) if decay and "decay" not in own else found


def require_for_weights(rule: Rule, where: str) -> None:
    """Raises ConfigError, beginning with ``where``, for a rule that is only for alphas."""
    if rule.simplex:
        raise ConfigError(
            f"{where}: rule {rule.name!r} is for alphas alone, expected one that weights can follow: set alpha_rule to "
            f"{rule.name!r}, and rule to another"
        )
