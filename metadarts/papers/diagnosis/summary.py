"""From rows per task to the figures of a `Diagnosis`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.spaces import Genotype
from metadarts.stats import Estimate, Values, estimate, paired, wilson

from .answer import Evidence, verdict
from .distances import between, edits, largest_shares, pair_scores, retrieved, variations, within
from .figures import Architecture, Contrast, Control, Diagnosis, Rate, Variant
from .passes import DISCRETE, SOFT, TaskResults


class _Distances:
    """All distances among the tasks that stayed finite, N of them."""

    def __init__(self, found: TaskResults, meta: Genotype, start: Tensor) -> None:
        kept = np.flatnonzero(found.finite).tolist()
        first, second = found.first[kept], found.second[kept]
        self.genotypes = [found.genotypes[task] for task in kept]
        again = [found.again[task] for task in kept]
        self.largest = largest_shares(first)
        self.moved = variations(first, start)[:, 0]
        self.alphas_between = between(variations(first, first))
        self.alphas = variations(first, second)
        self.cells_from_meta = edits(self.genotypes, [meta])[:, 0]
        self.cells_between = between(edits(self.genotypes, self.genotypes))
        self.cells = edits(self.genotypes, again)
        self.retrieved = retrieved((first - start).flatten(1), (second - start).flatten(1))


def summarised(found: TaskResults, meta: Genotype, start: Tensor, key: Key, facts: dict[str, Any]) -> Diagnosis:
    """The figures of ``found`` and what they say.

    Args:
        found: at least two tasks that stayed finite.
        meta: the cell of the meta-learned alphas.
        start: [1, R, P] the shares of the meta-learned alphas.
        key: of the bootstrap.
        facts: what was measured, as they are to stand in the diagnosis.
    """
    distances = _Distances(found, meta, start)
    architecture = _architecture(distances, meta, float(largest_shares(start)[0]), key.child("architecture"))
    control = _control(distances, key.child("control"))
    soft, discrete = key.child("soft"), key.child("discrete")
    swapped = _change(found.soft, "other_fixed", "own_fixed", soft)
    evidence = Evidence(
        tasks=len(found.finite),
        finite=len(distances.genotypes),
        moved=architecture.alphas_moved.mean,
        cells_swapped=_change(found.discrete, "other", "own", discrete),
        alphas_swapped=swapped,
        cells_meta=_change(found.discrete, "meta", "own", discrete),
        draws=control.alphas,
    )
    return Diagnosis(
        verdict(evidence),
        facts,
        architecture,
        control,
        _variants(found.soft, SOFT, soft),
        swapped,
        _variants(found.discrete, DISCRETE, discrete),
        _per_task(found, distances),
    )


def _change(arrays: dict[str, Values], name: str, before: str, key: Key) -> Estimate:
    """Accuracy of ``name`` less that of ``before``, on the same tasks."""
    return paired(arrays[name][None], arrays[before][None], key.child(name, "less", before))


def _variants(arrays: dict[str, Values], meanings: dict[str, str], key: Key) -> tuple[Variant, ...]:
    return tuple(
        Variant(
            name,
            meaning,
            estimate(arrays[name][None], key.child(name)),
            None if name == "own" else _change(arrays, name, "own", key),
        )
        for name, meaning in meanings.items()
    )


def _architecture(distances: _Distances, meta: Genotype, meta_share: float, key: Key) -> Architecture:
    def over_tasks(name: str, values: Values) -> Estimate:
        return estimate(values[None], key.child(name))

    (commonest, count), *_ = Counter(distances.genotypes).most_common(1)
    moved = over_tasks("alphas moved", distances.moved)
    apart = over_tasks("alphas between", pair_scores(distances.alphas_between))
    return Architecture(
        meta=str(meta),
        distinct=len(set(distances.genotypes)),
        commonest=str(commonest),
        commonest_count=count,
        choices=sum(len(meta.pairs(cell)) for cell in ("normal", "reduce")),
        cells_from_meta=over_tasks("cells from meta", distances.cells_from_meta),
        cells_between=over_tasks("cells between", pair_scores(distances.cells_between)),
        meta_share=meta_share,
        adapted_share=over_tasks("share", distances.largest),
        alphas_moved=moved,
        alphas_between=apart,
        moved_over_between=moved.mean / apart.mean if apart.mean > 0 else None,
    )


def _control(distances: _Distances, key: Key) -> Control:
    count = len(distances.retrieved)
    found_again = wilson(float(distances.retrieved.sum()), count)
    return Control(
        _contrast(distances.alphas, key.child("alphas")),
        _contrast(distances.cells, key.child("cells")),
        Rate(found_again.mean, found_again.low, found_again.high, 1 / count),
    )


def _contrast(table: Values, key: Key) -> Contrast:
    own, others = within(table)[None], pair_scores(between(table))[None]
    return Contrast(
        estimate(own, key.child("within")),
        estimate(others, key.child("between")),
        paired(others, own, key.child("difference")),
    )


def _per_task(found: TaskResults, distances: _Distances) -> dict[str, Any]:
    distinct = {genotype: number for number, genotype in enumerate(dict.fromkeys(found.genotypes + found.again))}
    measured = {
        "largest_share": distances.largest,
        "alphas_moved": distances.moved,
        "alphas_within": within(distances.alphas),
        "alphas_between": between(distances.alphas),
        "cells_from_meta": distances.cells_from_meta,
        "cells_within": within(distances.cells),
        "cells_between": between(distances.cells),
        "retrieved": distances.retrieved,
    }
    return {
        "finite": found.finite.tolist(),
        "partner": found.partners,
        "genotypes": [str(genotype) for genotype in distinct],
        "genotype": _where(found.finite, [distinct[genotype] for genotype in found.genotypes]),
        "genotype_again": _where(found.finite, [distinct[genotype] for genotype in found.again]),
        **{name: _spread(found.finite, values) for name, values in measured.items()},
        "soft": {name: values.tolist() for name, values in found.soft.items()},
        "discrete": {name: values.tolist() for name, values in found.discrete.items()},
    }


def _where(finite: NDArray[np.bool_], values: list[int]) -> list[int | None]:
    return [value if usable else None for value, usable in zip(values, finite, strict=True)]


def _spread(finite: NDArray[np.bool_], values: Values) -> list[float | None]:
    """Values of the finite tasks at their places among all."""
    rest = iter(values.tolist())
    return [next(rest) if usable else None for usable in finite]
