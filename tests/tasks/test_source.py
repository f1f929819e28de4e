"""A source refuses what contradicts itself, and its digest covers all that decides an episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import ConfigError, DataError
from metadarts.tasks import ClassEntry, open_source


def test_says_its_shape(toy):
    assert (toy.channels, toy.size) == (2, (6, 6))
    assert toy.class_numbers("val") == (5, 6)


def test_unknown_split_names_the_nearest(toy):
    with pytest.raises(
        DataError, match=r"toy: unknown split 'tset'; did you mean 'test'\? valid names: test, train, val"
    ):
        toy.class_numbers("tset")


def entry(rows, turns=0):
    return ClassEntry("it", np.array(rows), turns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((3, 1, 4, 4))}, "images must be uint8"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, "images must be uint8"),
        ({"variety": np.zeros(3, np.int64)}, r"variety must be \[264\]"),
        ({"mean": (0.5,), "std": (0.5,)}, "mean needs 2 numbers"),
        ({"mean": (0.5, 0.5)}, "give mean and std together"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.0)}, "std above 0"),
        ({"classes": (entry([0, 264]),), "split": {"train": (0,)}}, r"must lie in 0\.\.263, given 0\.\.264"),
        ({"classes": (entry([-1, 2]),), "split": {"train": (0,)}}, r"given -1\.\.2"),
        ({"classes": (entry([1, 1]),), "split": {"train": (0,)}}, "distinct row numbers"),
        ({"classes": (entry([0.5]),), "split": {"train": (0,)}}, "distinct row numbers"),
        ({"classes": (entry([1], 4),), "split": {"train": (0,)}}, "asks for 4 quarter turns"),
        ({"split": {"train": (0, 1), "test": (1, 2)}}, "'class 1' is in 2 places of the splits"),
        ({"split": {"train": (0, 0)}}, "'class 0' is in 2 places"),
        ({"split": {"train": (99,)}}, "splits name class 99; there are 12 classes"),
        ({"split": {"trian": (0,)}}, "unknown split 'trian'; did you mean 'train'"),
    ],
)
def test_refuses_contradictions(toy, change, message):
    with pytest.raises(DataError, match=message):
        replace(toy, **change)


def test_refuses_odd_turns_of_oblong_images(toy):
    with pytest.raises(DataError, match="square images"):
        replace(toy, images=toy.images[:, :, :4])


def changed_images(source):
    images = source.images.copy()
    images[-1, -1, -1, -1] ^= 1
    return {"images": images}


@pytest.mark.parametrize(
    "change",
    [
        changed_images,
        lambda source: {"variety": None},
        lambda source: {"variety": source.variety + 1},
        lambda source: {"split": {**source.split, "val": (6, 5)}},
        lambda source: {"mean": (0.1, 0.1), "std": (1.0, 1.0)},
        lambda source: {
            "classes": (replace(source.classes[0], rows=source.classes[0].rows[::-1]), *source.classes[1:])
        },
        lambda source: {"classes": (replace(source.classes[0], quarter_turns=2), *source.classes[1:])},
    ],
    ids=["pixel", "no variety", "variety", "split order", "mean", "row order", "turn"],
)
def test_digest_sees_every_change(toy, change):
    assert replace(toy).content_sha256 == toy.content_sha256
    assert replace(toy, **change(toy)).content_sha256 != toy.content_sha256


def test_open_source_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown source 'glyph'; did you mean 'glyphs'\?"):
        open_source("glyph")
