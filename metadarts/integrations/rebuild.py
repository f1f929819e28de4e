"""A learn2learn taskset again, for other numbers of ways and images: its data set and its own transforms, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metadarts.core.errors import DataError

from .package import import_learn2learn


def rebuilt(taskset: Any, ways: int, samples: int) -> Any:
    """A Taskset that draws ``ways`` classes of ``samples`` images by the transforms of ``taskset``.

    Every transform is rebuilt on ``taskset.dataset``, which is the split's own. (The omniglot benchmark of learn2learn
    0.2.0 builds them on the data set of all splits, so that its training tasks hold test classes.) Descriptions of
    tasks are not kept from one draw to the next, whatever ``num_tasks`` was.

    Raises:
        DataError: on a transform that is not one of learn2learn's, or that repeats images.
    """
    data = import_learn2learn().data
    transforms = taskset.task_transforms
    if not isinstance(transforms, list):
        raise DataError(
            f"expected a taskset with a list of task transforms, given {type(transforms).__name__}; "
            "list NWays, KShots, LoadData, RemapLabels"
        )
    own = [_rebuilt_transform(transform, taskset.dataset, ways, samples) for transform in transforms]
    return data.Taskset(taskset.dataset, own, num_tasks=-1, task_collate=taskset.task_collate)


def _rebuilt_transform(transform: Any, dataset: Any, ways: int, samples: int) -> Any:
    for kind, build in _builders(import_learn2learn(), dataset, ways, samples):
        if isinstance(transform, kind):
            if getattr(transform, "replacement", False):
                raise DataError(
                    f"{kind.__name__} draws images with replacement, so an image could be support and query of one "
                    "task; use replacement=False"
                )
            return build(transform)
    names = ", ".join(kind.__name__ for kind, _ in _builders(import_learn2learn(), dataset, ways, samples))
    raise DataError(
        f"expected transforms whose ways and images can be set anew, learn2learn's {names}; given "
        f"{type(transform).__name__}, which leave out or put into the data set"
    )


def _builders(library: Any, dataset: Any, ways: int, samples: int) -> list[tuple[Any, Callable[[Any], Any]]]:
    """(kind of transform, how to make one like it on ``dataset``)."""
    kinds, rotation = library.data.transforms, library.vision.transforms.RandomClassRotation

    def fused(old: Any) -> Any:
        allowed = set(old.filter_labels)
        labels = [label for label in dataset.labels if label in allowed]
        return kinds.FusedNWaysKShots(dataset, n=ways, k=samples, filter_labels=labels)

    return [
        (kinds.NWays, lambda old: kinds.NWays(dataset, n=ways)),
        (kinds.KShots, lambda old: kinds.KShots(dataset, k=samples)),
        (kinds.FusedNWaysKShots, fused),
        (kinds.FilterLabels, lambda old: kinds.FilterLabels(dataset, old.labels)),
        (kinds.LoadData, lambda old: kinds.LoadData(dataset)),
        (kinds.RemapLabels, lambda old: kinds.RemapLabels(dataset, shuffle=old.shuffle)),
        (kinds.ConsecutiveLabels, lambda old: kinds.ConsecutiveLabels(dataset)),
        (rotation, lambda old: rotation(dataset, old.degrees)),
    ]
