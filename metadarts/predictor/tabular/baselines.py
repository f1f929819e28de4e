"""Baselines of the meta-model: other ways to rank all architectures for a new task from K of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.stats import Values

from .encoding import Features
from .tables import ranks, spearman

FEWEST = 3
"""Known architectures below which a regression of the new task itself says nothing."""
PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""Of ridge regression; leave-one-out over the known architectures chooses."""


@dataclass(frozen=True, eq=False)
class Known:
    """All that may be used to rank N architectures for a new task.

    Args:
        encoding: [N, F].
        others: [n, N] scores on the training tasks; those left out are not among them.
        rows: [K] which architectures were measured on the new task.
        values: [K] what was measured of them; more is better.
        prior: [N] what trees predict from the encoding after learning the training tasks' mean.
        facts: by name [N], what is known without a measurement.
        key: of everything random.
        trees: how many a model of trees has.
    """

    encoding: Features
    others: Values
    rows: NDArray[np.int64]
    values: Values
    prior: Values
    facts: Mapping[str, Values]
    key: Key
    trees: int = 100


Baseline = Callable[[Known], Values]
"""[N] scores, higher for what is thought better; equal ones are told apart at random."""


def best_of_known(known: Known) -> Values:
    """The best of the known architectures; where none is known, any."""
    scores = np.full(len(known.encoding), -np.inf)
    scores[known.rows] = known.values
    return scores


def best_on_average(known: Known) -> Values:
    """The mean rank on the training tasks."""
    return np.asarray(np.mean([ranks(row) for row in known.others], axis=0), dtype=np.float64)


def nearest_task(known: Known) -> Values:
    """The training task that ranks the known architectures most alike; with fewer than 3 of them the mean rank."""
    if len(known.rows) < FEWEST:
        return best_on_average(known)
    alike = np.array([spearman(row[known.rows], known.values) for row in known.others])
    nearest = np.flatnonzero(alike == alike.max())
    chosen = nearest[known.key.child("nearest").choose(len(nearest), 1)[0]]
    return np.asarray(known.others[chosen], dtype=np.float64)


def ridge(known: Known) -> Values:
    """Ridge regression from the training tasks' scores of an architecture to the new task's."""
    if len(known.rows) < FEWEST:
        return best_on_average(known)
    fitted = _sklearn("linear_model").RidgeCV(PENALTIES).fit(known.others[:, known.rows].T, _standard(known.values))
    return _plain(fitted.predict(known.others.T))


def forest(known: Known) -> Values:
    """A random forest on the encodings of the known architectures alone."""
    if len(known.rows) < FEWEST:
        return best_of_known(known)
    model = _sklearn("ensemble").RandomForestRegressor(n_estimators=known.trees, random_state=_seed(known))
    return _plain(model.fit(known.encoding[known.rows], known.values).predict(known.encoding))


def trees(known: Known) -> Values:
    """Gradient-boosted trees on the encodings of the known architectures alone."""
    if len(known.rows) < FEWEST:
        return best_of_known(known)
    return _boosted(known, known.encoding, known.values)


def trees_on_others(known: Known) -> Values:
    """Gradient-boosted trees that also see the training tasks' scores of an architecture, and their mean."""
    if len(known.rows) < FEWEST:
        return best_on_average(known)
    seen = np.concatenate([known.encoding, known.others.T, known.others.mean(0)[:, None]], axis=1)
    return _boosted(known, seen, known.values)


def trees_continued(known: Known) -> Values:
    """Trees that learnt the training tasks from the encoding, then boosted on by what the known ones leave over."""
    if len(known.rows) < FEWEST:
        return known.prior
    left = _standard(known.values) - _standard(known.prior[known.rows])
    return _standard(known.prior) + _boosted(known, known.encoding, left)


def learnt_prior(encoding: Features, others: Values, key: Key, trees: int) -> Values:
    """[N] what gradient-boosted trees predict from the encoding after learning all training tasks' scores.

    Every architecture was measured on every training task, so that learning them all is learning their mean.
    """
    model = _sklearn("ensemble").HistGradientBoostingRegressor(
        max_iter=trees, early_stopping=False, random_state=_number(key)
    )
    return _plain(model.fit(encoding, others.mean(0)).predict(encoding))


def by_fact(name: str) -> Baseline:
    """What is known without a measurement, such as the operations counted."""
    return lambda known: known.facts[name]


def _boosted(known: Known, seen: NDArray[Any], values: Values) -> Values:
    model = _sklearn("ensemble").GradientBoostingRegressor(
        n_estimators=known.trees, max_depth=3, subsample=0.8, random_state=_seed(known)
    )
    return _plain(model.fit(seen[known.rows], values).predict(seen))


def _standard(values: Values) -> Values:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-12), dtype=np.float64)


def _plain(values: Any) -> Values:
    return np.asarray(values, dtype=np.float64)


def _seed(known: Known) -> int:
    return _number(known.key)


def _number(key: Key) -> int:
    return int(key.child("trees").bits().random_raw(1)[0] % np.uint64(2**31))


def _sklearn(module: str) -> Any:
    """scikit-learn's ``module``, imported when it is needed. Raises ConfigError."""
    from importlib import import_module

    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ConfigError(f"the baselines need scikit-learn, which cannot be imported ({error}); install it") from error
