"""The split of classes that come without one, and the published class lists."""

from __future__ import annotations

import pytest

from metadarts.core.errors import DataError
from metadarts.tasks.images.split import published_split, split_classes


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (8, (4, 2, 2)), (10, (6, 2, 2)), (15, (9, 3, 3)), (100, (60, 20, 20))],
)
def test_sizes_and_completeness(count, sizes):
    split = split_classes([f"{number:03d}" for number in range(count)], "data")
    assert tuple(len(split[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(number for numbers in split.values() for number in numbers) == list(range(count))


def test_the_split_is_this_one_for_ever():
    split = split_classes(list("abcdefghij"), "data")
    assert split == {"train": (0, 1, 3, 6, 7, 8), "val": (4, 9), "test": (2, 5)}


def test_depends_on_names_and_not_on_their_order():
    names = list("abcdefghij")
    split, reverse = split_classes(names, "data"), split_classes(names[::-1], "data")
    for part, numbers in split.items():
        assert {names[number] for number in numbers} == {names[::-1][number] for number in reverse[part]}


@pytest.mark.parametrize(("names", "found"), [([], "none"), (["cat", "dog"], "'cat', 'dog'")])
def test_too_few_classes(names, found):
    with pytest.raises(DataError, match=f"data: expected at least 3 classes, .*; found {found}; give a folder"):
        split_classes(names, "data")


@pytest.mark.parametrize(
    ("file", "name", "sizes"),
    [
        ("cifar100_splits.json", "cifar-fs", (64, 16, 20)),
        ("cifar100_splits.json", "fc100", (60, 20, 20)),
        ("imagenet_splits.json", "mini-imagenet", (64, 16, 20)),
        ("imagenet_splits.json", "tiered-imagenet", (351, 97, 160)),
    ],
)
def test_published_splits_are_disjoint_and_complete(file, name, sizes):
    split = published_split(file, name)
    assert tuple(len(labels) for labels in split.values()) == sizes
    assert len({label for labels in split.values() for label in labels}) == sum(sizes)


def test_both_cifar_splits_are_of_the_same_classes():
    both = [published_split("cifar100_splits.json", name) for name in ("cifar-fs", "fc100")]
    first, second = ({label for labels in split.values() for label in labels} for split in both)
    assert first == second
