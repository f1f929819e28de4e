"""learn2learn's benchmarks by name, read from a folder in the layout that learn2learn expects."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from pathlib import Path
from typing import Any

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.core.rng import Key
from metadarts.store.files import default_cache

from .package import import_learn2learn
from .randomness import seeded_globals
from .tasksets import Tasksets

TASKSETS: dict[str, str] = {
    "omniglot": "omniglot-py/images_background.zip and images_evaluation.zip, the archives of brendenlake/omniglot, "
    "and both unpacked beside them",
    "mini-imagenet": "mini-imagenet-cache-train.pkl, -validation.pkl and -test.pkl",
    "tiered-imagenet": "tiered-imagenet/{train,val,test}_images_png.pkl and {train,val,test}_labels.pkl",
    "fc100": "FC100_train.pickle, FC100_val.pickle and FC100_test.pickle",
    "cifarfs": "cifarfs/cifar100/data/CLASS/*.png and the lists of classes cifarfs/cifar100/splits/bertinetto/"
    "{train,val,test}.txt, but no folder cifarfs/processed, which it makes itself",
}
"""The names that `open_tasksets` knows, and what learn2learn looks for under the root folder."""


def open_tasksets(name: str, root: Path | None = None) -> Tasksets:
    """One of learn2learn's benchmarks. learn2learn tries to download the data that are missing in ``root``.

    learn2learn unpickles files under ``root``: the images of mini-imagenet, tiered-imagenet and fc100, and for every
    benchmark an index of the labels that it writes there itself. A pickle can run code: use only folders that you
    trust.

    Images are in [0, 1]. Classes are split as in learn2learn. If it shuffles them first (omniglot), it does so with a
    fixed key, so that every run has the same test classes.

    Args:
        name: one of `TASKSETS`.
        root: the folder of the data. Default: ``learn2learn`` in the cache folder (`default_cache`).

    Raises:
        ConfigError: for an unknown name, or when learn2learn is not installed.
        DataError: when the data is missing and cannot be downloaded, or is damaged.
    """
    if name not in TASKSETS:
        raise ConfigError(f"unknown learn2learn taskset {name!r}; {nearest(name, TASKSETS)}")
    library = import_learn2learn()
    place = (default_cache() / "learn2learn" if root is None else root).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
        built = _build(library, name, place)
    except Exception as error:  # whatever a download, an archive, an image or a pickle can raise
        reason = textwrap.shorten(str(error), 150, placeholder=" ...")
        raise DataError(
            f"learn2learn can neither read {name} in {place} nor download it ({type(error).__name__}: {reason}); "
            f"some of its links are dead, so put there by hand: {TASKSETS[name]}"
        ) from error
    return Tasksets(f"learn2learn:{name}", {"train": built.train, "val": built.validation, "test": built.test})


def _build(library: Any, name: str, place: Path) -> Any:
    """The BenchmarkTasksets. What learn2learn prints goes to stderr, with the progress of its downloads."""
    with contextlib.redirect_stdout(sys.stderr), seeded_globals(Key(("learn2learn", "classes", name))):
        # mini-imagenet's images stay in 0..255 unless they are asked to be normalised; the others ignore the word.
        return library.vision.benchmarks.get_tasksets(name, root=str(place), data_augmentation="normalize")
