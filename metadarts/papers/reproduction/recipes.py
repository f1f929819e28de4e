"""What is trained for a table, with which settings, for how long.

Our own trainings share one recipe, that of `metadarts.training.PRESETS`' ``omniglot`` and ``cifar``: many-way
training tasks, a prototype head, one exact inner step. So do the discrete cells and one of the 4CONV rows, so that
those rows differ in the network alone; MAML is also trained as its paper says. Nothing is tuned on test classes.

Lengths are numbers of meta-updates, not of seconds, so that a table can be had again. They were chosen to take their
share of the budget on one thread of a two-core machine (Intel Xeon) whose other core is busy too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from metadarts.core.errors import ConfigError, nearest
from metadarts.papers.rows import HEADLINE, META_CELL, RANDOM_CELL, SHORT, TASK_CELL
from metadarts.training import Config, preset, with_settings

Settings = dict[str, Any]
LENGTHS_IN_WORDS = {
    "smoke": "5 minutes: shows that everything runs",
    "hour": "60 minutes for the headline, 10 for each baseline",
    "full": "the paper's recipe and its number of updates; the smaller budgets have a recipe of ours",
}


@dataclass(frozen=True)
class Training:
    """One meta-training.

    Args:
        name: short, of a run folder.
        title: what a reader reads.
        settings: over the defaults; without length, data and seed.
        steps: meta-updates.
        cell: whether it trains a discrete cell, one of `CELLS`.
        own_setting: whether each setting has a training of its own under every budget: MAML's inner rate suits only the
            number of support images that it was trained with.
    """

    name: str
    title: str
    settings: Settings
    steps: int
    cell: bool = False
    own_setting: bool = False

    def config(self, source: str, shots: int, seed: int, extra: Settings) -> Config:
        """The configuration, checked. ``extra`` overrides."""
        fixed = {
            "tasks.source": source,
            "tasks.shots": shots,
            "training.minutes": 0.0,
            "training.meta_steps": self.steps,
            "training.seed": seed,
        }
        return with_settings(Config(), self.settings | fixed | extra).check()


@dataclass(frozen=True)
class Recipe:
    """How a kind of data is learnt: what our trainings share, what MAML's paper says, and lengths by budget.

    Args:
        ours: settings of the headline; T-NAS's own take their place under the full budget.
        maml: settings of 4CONV as MAML trains it, under budgets smaller than its paper's.
        maml_full: what its paper has besides.
        steps_at: shots -> budget -> training -> meta-updates, instead of ``steps``, of trainings that each setting has
            of its own (``AFTER_MAML``): with more support images an update takes longer.
        protonet: what a prototype network changes of ``ours`` (Snell et al., 2017).
        steps: budget -> training -> meta-updates; a training without a number is left out of that budget.
    """

    ours: Settings
    maml: Settings
    protonet: Settings
    steps: dict[str, dict[str, int]]
    maml_full: Settings = field(default_factory=dict)
    steps_at: dict[int, dict[str, dict[str, int]]] = field(default_factory=dict)

    def trainings(self, budget: str, shots: int) -> list[Training]:
        """All trainings of ``budget`` behind a setting of ``shots``, the headline first.

        Raises ConfigError for a budget there is not.
        """
        if budget not in self.steps:
            raise ConfigError(f"unknown budget {budget!r}: {nearest(budget, self.steps)}")
        full = budget == "full"
        smoke = SMOKE_VALIDATION if budget == "smoke" else {}
        search = (_TNAS if full else self.ours) | smoke
        steps = self.steps[budget] | self.steps_at.get(shots, {}).get(budget, {})
        maml = self.maml | (CONSTANT_RATES | self.maml_full if full else {}) | smoke
        kinds = [
            (HEADLINE, "supernet, weights and alphas adapted", search),
            (SHORT, "the same supernet, a shorter search", search),
            ("maml", "MAML 4CONV, after its paper, exact", maml),
            ("maml-first", "MAML 4CONV, after its paper, first order", maml | {"inner.order": "first"}),
            ("maml-equal", "MAML 4CONV, after its paper, exact, fewer updates", maml),
            ("maml-ours", "MAML 4CONV, our recipe, exact", self.ours | CONV4 | smoke),
            ("protonet", "ProtoNet 4CONV", self.ours | self.protonet | smoke),
        ]
        found = [
            Training(name, title, settings, steps.get(name, 0), own_setting=name in AFTER_MAML)
            for name, title, settings in kinds
        ]
        found += [Training(name, title, search | CELL, steps.get("cells", 0), True) for name, title in CELLS.items()]
        return [training for training in found if training.steps]


CONSTANT_RATES: Settings = {"outer.final": 1.0}
SMOKE_VALIDATION: Settings = {"training.validations": 1, "training.validation_tasks": 4}
VALIDATION: Settings = {"training.validations": 4, "training.validation_tasks": 100}
CONV4: Settings = {"macro.name": "conv4", "macro.channels": 32}
AFTER_MAML = ("maml", "maml-first", "maml-equal")
AUTO_MAML_CELLS = {"auto-maml-1-shot": 1, "auto-maml-5-shot": 5}
CELLS = {
    "auto-maml-1-shot": "Auto-MAML's published 1-shot cell",
    "auto-maml-5-shot": "Auto-MAML's published 5-shot cell",
    RANDOM_CELL: "a random cell",
    META_CELL: "the meta-alphas' cell, adapted to no task",
    TASK_CELL: "each task's own cell, or the most frequent one",
}
CELL: Settings = {"model.network": "cell", "model.affine": True, "model.pool_norm": False}
"""As T-NAS's evaluation network: affine batch norms, none after pools."""

_DECAY: Settings = {"outer.alpha_decay": 1e-3}
"""As T-NAS; in every training, so that they differ in nothing else."""
# Ten times T-NAS's outer rate of the alphas: these searches have a fifth to a tenth of its updates.
_OURS: Settings = VALIDATION | _DECAY | {"outer.alpha_rate": 0.01}
_MAML: Settings = VALIDATION | _DECAY | CONV4 | {"tasks.queries": 15, "outer.final": 0.02}
_NO_STEPS: Settings = {"inner.steps": 0, "evaluate.steps": 0}

_SMOKE = {
    "headline": 12, "headline-10": 6, "maml": 6, "maml-first": 6, "maml-ours": 12, "maml-equal": 6, "protonet": 6,
    "cells": 6,
}  # fmt: skip
_PAPER = {"headline": 12_500, "maml": 60_000, "maml-first": 60_000, "protonet": 60_000, "cells": 75_000}
"""T-NAS: 10 epochs of 5,000 tasks, 4 at a time; its cells 20 of 15,000. MAML: 60,000 updates."""


LENGTHS = ("training.minutes", "training.meta_steps")


def _without_length(name: str) -> Settings:
    return {path: value for path, value in preset(name).items() if path not in LENGTHS}


_TNAS = _without_length("tnas") | {"training.validations": 10, "training.validation_tasks": 100}
OMNIGLOT_RECIPE = Recipe(
    ours=_without_length("omniglot-supernet") | _OURS,
    maml=_MAML | {"training.tasks": 8, "inner.steps": 1, "inner.weight_rate": 0.4, "evaluate.steps": 1},
    protonet=CONV4 | _NO_STEPS | {"tasks.train_ways": 60, "tasks.queries": 5, "training.tasks": 1},
    steps={
        "smoke": _SMOKE,
        "hour": {
            "headline": 5000, "headline-10": 830, "maml": 1700, "maml-first": 1900, "maml-ours": 5000,
            "maml-equal": 830, "protonet": 3600, "cells": 3000,
        },
        "full": _PAPER,
    },
    maml_full={"training.tasks": 32},
    steps_at={5: {"hour": {"maml": 1100, "maml-first": 1500}}},
)  # fmt: skip
"""28x28 characters. MAML's paper has 32 tasks a meta-batch; of 8, ten minutes hold four times as many updates.

The paper trains with one inner step and tests with 3. Ours starts with equal head rows, under which the first step
moves the head alone; the body moves from the second on, which no training saw: after 1, 2 and 3 steps 98.4, 85.6 and
63.8 % on 60 validation tasks of 5 shots. So it is tested with the one step that it was trained with.
"""
SMALL_RECIPE = Recipe(
    ours=_without_length("cifar-supernet") | _OURS,
    maml=_MAML | {"training.tasks": 4, "inner.steps": 5, "inner.weight_rate": 0.01},
    protonet=CONV4 | _NO_STEPS | {"tasks.train_ways": 20, "tasks.queries": 15, "training.tasks": 1},
    steps={
        "smoke": _SMOKE,
        "hour": {
            "headline": 2800, "headline-10": 470, "maml": 800, "maml-first": 1700, "maml-ours": 2800,
            "maml-equal": 470, "protonet": 3000, "cells": 1800,
        },
        "full": _PAPER,
    },
)  # fmt: skip
"""32x32 in colour; MAML as its paper trains it on miniImageNet."""
PIXELS_MORE = 7
LARGE_RECIPE = replace(
    SMALL_RECIPE,
    steps={
        "smoke": {name: max(2, count // PIXELS_MORE) for name, count in _SMOKE.items()},
        "hour": {name: count // PIXELS_MORE for name, count in SMALL_RECIPE.steps["hour"].items()},
        "full": _PAPER,
    },
)
"""84x84, so many times the pixels: lengths by arithmetic, not measured."""
