"""The generated sources: what a class is, that splits share no pattern, and that widths are what domains say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import SOURCES, EpisodeSampler, nearest_class_mean
from metadarts.tasks.sources.widths import IMAGES, SEEN, WIDTHS, Drawing, widths

FLAT = Drawing(flat=True, cells=32, copies=2, others=3, patterns=(16, 6, 10))
CLEAN = {"copies": 1, "others": 0, "noise": 0.0, "patterns": (3, 2, 4)}


@pytest.fixture(scope="module", params=[Drawing(), FLAT], ids=["square", "strips"])
def drawing(request):
    return request.param


@pytest.fixture(scope="module")
def clean(drawing):
    return widths(replace(drawing, **CLEAN))


def test_domains_of_each_split(clean):
    seen, every = ([f"width {width}" for width in found] for found in (SEEN, WIDTHS))
    assert {split: sorted(clean.domain_classes(split)) for split in clean.split} == {
        "train": seen, "val": seen, "test": every,
    }  # fmt: skip
    assert [len(numbers) for numbers in clean.domain_classes("test").values()] == [4] * len(WIDTHS)
    assert all(len(entry.rows) == IMAGES for entry in clean.classes)


def taps(image, drawing):
    """Signs [cells, cells] of an image without noise, and of a strip [1, cells]."""
    cells = image[0, :: 8 if drawing.flat else drawing.pixels, :: drawing.pixels].astype(int)
    signs = np.sign(cells - 128)
    return signs


def test_a_class_is_one_pattern_whose_taps_lie_its_width_apart(clean, drawing):
    for entry in clean.classes:
        width = int(entry.domain.split()[1])
        found = set()
        for row in entry.rows[:6]:
            signs = taps(clean.images[row], drawing)
            where = np.argwhere(signs)
            assert len(where) == np.prod(drawing.taps)
            offsets = where - where.min(0)
            assert set((offsets % width).ravel().tolist()) == {0}
            assert (offsets.max(0) == (np.array(drawing.taps) - 1) * width).all()
            found.add(tuple(signs[tuple(where.T)].tolist()))
        assert len(found) == 1


def test_no_pattern_is_in_two_splits(clean, drawing):
    seen = {}
    for split in clean.split:
        for number in clean.class_numbers(split):
            signs = taps(clean.images[clean.classes[number].rows[0]], drawing)
            seen.setdefault(tuple(signs[signs != 0].tolist()), set()).add(split)
    assert all(len(splits) == 1 for splits in seen.values())
    assert len(seen) == sum(CLEAN["patterns"])


def test_every_row_of_a_strip_is_one_signal():
    found = widths(replace(FLAT, **CLEAN))
    assert (found.images == found.images[:, :, :1]).all()


def test_domains_have_the_same_brightness_and_contrast(drawing):
    """Else a task's width could be read off its histogram."""
    source = widths(replace(drawing, patterns=(6, 2, 6)))
    levels = {}
    for entry in source.classes:
        pixels = source.images[entry.rows].astype(float)
        levels.setdefault(entry.domain, []).append((pixels.mean(), pixels.std()))
    means, deviations = (np.array([np.mean([p[k] for p in found]) for found in levels.values()]) for k in (0, 1))
    assert np.ptp(means) < 6
    assert np.ptp(deviations) < 0.12 * deviations.mean()


def test_the_same_on_every_opening(clean, drawing):
    assert widths(replace(drawing, **CLEAN)).content_sha256 == clean.content_sha256


def test_pixels_say_little():
    """Copies lie anywhere, so class means of pixels say little (chance is 20 %), but the more the wider patterns are:
    those of width 5 have little room left, and pixels tell 69 % of them."""
    source = SOURCES["widths"](None)
    for width, most in ((1, 0.26), (2, 0.32), (3, 0.38), (4, 0.48)):
        sampler = EpisodeSampler(source, "test", 5, 5, 10, f"width {width}")
        assert nearest_class_mean(sampler.sample(Key.from_seed(0), 60)).mean() < most


def test_brightness_tells_nothing():
    """Nearest class mean of one number, the image's mean: chance is 20 %."""
    sampler = EpisodeSampler(SOURCES["widths"](None), "test", 5, 5, 10)
    batch = sampler.sample(Key.from_seed(0), 100)
    sides = {
        f"{side}_images": getattr(batch, f"{side}_images").mean((2, 3, 4), keepdim=True)
        for side in ("support", "query")
    }
    assert nearest_class_mean(replace(batch, known_ragged=False, **sides)).mean() < 0.225


def test_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path))
    assert SOURCES["widths-strips"](None).size == (8, 64)
    source = SOURCES["widths"](None, size=24, channels=3)
    assert (source.size, source.channels, len(source.mean)) == ((24, 24), 3, 3)
    with pytest.raises(DataError, match="widths is built in, expected no place"):
        SOURCES["widths"](tmp_path)
