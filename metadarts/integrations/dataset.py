"""A source as a torch data set, for libraries that draw tasks themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from metadarts.core.errors import DataError
from metadarts.tasks import Source
from metadarts.tasks.scaling import scaled


class SourceDataset(Dataset[tuple[Tensor, int]]):
    """The images of one split of a source, class by class, as an `EpisodeSampler` of that source would load them.

    Args:
        source: where images and classes come from.
        split: 'train', 'val' or 'test'.

    Attributes:
        labels: [len] the class number in the source of every item.
        rows: [len] the image row in the source of every item. Classes may share rows (the rotations of one character).

    Raises DataError when the source has no such split, or no image in it.
    """

    def __init__(self, source: Source, split: str) -> None:
        numbers = source.class_numbers(split)
        self.source = source
        self.labels: list[int] = [number for number in numbers for _ in source.classes[number].rows]
        self.rows: list[int] = [row for number in numbers for row in source.classes[number].rows.tolist()]
        if not self.rows:
            raise DataError(f"{source.name}, split {split!r}: no images; choose another split")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(image [C, H, W] float32 in [0, 1], or normalised where the source has a mean; class number)."""
        number = self.labels[index]
        turned = np.rot90(self.source.images[self.rows[index]], self.source.classes[number].quarter_turns, (-2, -1))
        return scaled(torch.from_numpy(turned.copy()), self.source.mean, self.source.std), number


def as_dataset(source: Source, split: str) -> SourceDataset:
    """One split of a source for ``learn2learn.data.MetaDataset``; see `SourceDataset`.

    MetaDataset finds the class of every item by loading it, unless the classes are given: ``MetaDataset(dataset,
    indices_to_labels=dict(enumerate(dataset.labels)))``.
    """
    return SourceDataset(source, split)
