"""Few-shot differentiable architecture search.

`import metadarts` imports neither torch nor matplotlib: a public name is looked up in its package when it is first used
(PEP 562). A package's other names are reached through it, e.g. ``metadarts.inner``. The import itself only sets how
OpenMP's threads wait, because torch reads this when it is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .core.openmp import let_threads_sleep

if TYPE_CHECKING:  # for editors and type checkers; tests/architecture checks that it says what _EXPORTS says
    from metadarts.core.rng import Key as Key
    from metadarts.core.types import TaskBatch as TaskBatch
    from metadarts.derive import derive_genotype as derive_genotype
    from metadarts.fewshot import FewShotClassifier as FewShotClassifier
    from metadarts.meta import meta_step as meta_step
    from metadarts.networks import NetworkSpec as NetworkSpec
    from metadarts.networks import supernet as supernet
    from metadarts.spaces import Genotype as Genotype
    from metadarts.spaces import SearchSpace as SearchSpace
    from metadarts.spaces import darts as darts
    from metadarts.tasks import EpisodeSampler as EpisodeSampler
    from metadarts.tasks import Source as Source
    from metadarts.tasks import glyphs as glyphs
    from metadarts.tasks import omniglot as omniglot
    from metadarts.tasks import open_source as open_source

__version__ = "0.1.0"

let_threads_sleep()

# A name may not be a package's: importing the package `inner` binds `metadarts.inner` to it, whatever stands here.
_EXPORTS = {
    "EpisodeSampler": "metadarts.tasks",
    "FewShotClassifier": "metadarts.fewshot",
    "Genotype": "metadarts.spaces",
    "Key": "metadarts.core.rng",
    "NetworkSpec": "metadarts.networks",
    "SearchSpace": "metadarts.spaces",
    "Source": "metadarts.tasks",
    "TaskBatch": "metadarts.core.types",
    "darts": "metadarts.spaces",
    "derive_genotype": "metadarts.derive",
    "glyphs": "metadarts.tasks",
    "meta_step": "metadarts.meta",
    "omniglot": "metadarts.tasks",
    "open_source": "metadarts.tasks",
    "supernet": "metadarts.networks",
}

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(_EXPORTS)}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
