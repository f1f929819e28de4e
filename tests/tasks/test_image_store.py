"""Decoded images in the cache: a mapped file, written whole or not at all, rebuilt when damaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler
from metadarts.tasks.images import store as image_store
from metadarts.tasks.images.store import mean_and_std, moments, stored_images

IMAGES = np.random.Generator(np.random.Philox(8)).integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)


def blocks():
    yield from (IMAGES[:20], IMAGES[20:])


def store(key="0" * 64):
    return stored_images("mine", key, len(IMAGES), blocks)


@pytest.fixture
def place(cache_folder):
    return cache_folder / "images" / f"mine-{'0' * 32}"


def test_first_and_second_time(place, monkeypatch):
    first = store()
    monkeypatch.setattr(image_store, "_write", None)  # a second writing would fail
    for stored in (first, store()):
        assert isinstance(stored.images, np.memmap)
        np.testing.assert_array_equal(stored.images, IMAGES)
        np.testing.assert_array_equal(stored.moments, moments(IMAGES))
    assert sorted(path.name for path in place.parent.iterdir()) == [f"{place.name}.npy", f"{place.name}.npz"]


def test_any_name_will_do(cache_folder):
    stored = stored_images("../a folder's name/" * 20, "0" * 64, 50, blocks)
    assert isinstance(stored.images, np.memmap)
    assert len(list((cache_folder / "images").iterdir())) == 2


def test_keys_are_apart(place):
    store()
    other = stored_images("mine", "1" * 64, 20, lambda: iter([IMAGES[:20]]))
    assert len(other.images) == 20
    assert len(store().images) == 50


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npy", flip),
        (".npy", lambda content: content[:-5]),
        (".npy", lambda content: b""),
        (".npy", lambda content: b"\x80\x04N."),  # a pickle
        (".npz", lambda content: content[:-30]),
        (".npz", lambda content: None),
    ],
)
def test_damaged_files_are_made_anew(place, suffix, damage):
    store()
    path = place.with_suffix(suffix)
    content = damage(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    np.testing.assert_array_equal(store().images, IMAGES)
    np.testing.assert_array_equal(np.load(place.with_suffix(".npy"), allow_pickle=False), IMAGES)


def test_large_files_are_checked_by_length_only(place, monkeypatch):
    store()
    path = place.with_suffix(".npy")
    path.write_bytes(flip(path.read_bytes()))
    monkeypatch.setattr(image_store, "CHECKED_BYTES", 100)
    assert (store().images != IMAGES).sum() == 1
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(store().images, IMAGES)


def test_cache_that_cannot_be_written_costs_only_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path / "file"))
    stored = store()
    assert not isinstance(stored.images, np.memmap)
    np.testing.assert_array_equal(stored.images, IMAGES)
    np.testing.assert_array_equal(stored.moments, moments(IMAGES))


def test_failure_in_the_middle_leaves_nothing(place):
    def failing():
        yield IMAGES[:20]
        raise DataError("a damaged image")

    with pytest.raises(DataError, match="a damaged image"):
        stored_images("mine", "0" * 64, 50, failing)
    assert not list(place.parent.iterdir())


def test_progress(cache_folder):
    calls = []
    stored_images("mine", "0" * 64, 50, blocks, lambda now: calls.append((now.done, now.total)))
    assert calls == [(20, 50), (50, 50)]


def test_mean_and_std_are_of_the_rows_asked_for():
    rows = np.array([3, 30, 31])
    mean, std = mean_and_std(moments(IMAGES), rows, 36)
    np.testing.assert_allclose(mean, (IMAGES[rows] / 255).mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, (IMAGES[rows] / 255).std((0, 2, 3)), rtol=1e-13)


def test_moments_do_not_overflow():
    white = np.full((2, 1, 300, 300), 255, np.uint8)
    assert moments(white).tolist() == [[[255 * 90000, 255 * 255 * 90000]]] * 2


def test_sources_on_a_mapped_file_are_the_same(toy, tmp_path):
    np.save(tmp_path / "images.npy", toy.images)
    mapped = replace(toy, images=np.load(tmp_path / "images.npy", mmap_mode="r", allow_pickle=False))
    assert mapped.content_sha256 == toy.content_sha256
    sampler, other = (EpisodeSampler(source, "train", 6, (1, 3), 4) for source in (toy, mapped))
    batch, same = (one.sample(Key.from_seed(0), 5) for one in (sampler, other))
    assert (batch.support_images == same.support_images).all()
    assert (batch.query_images == same.query_images).all()


def test_digest_of_many_images_does_not_depend_on_how_they_lie(toy):
    many = np.tile(toy.images, (10, 1, 1, 1))  # more than are hashed at once
    source = replace(toy, images=many, variety=None)
    turned = np.asfortranarray(many)
    assert replace(source, images=turned).content_sha256 == source.content_sha256
    changed = many.copy()
    changed[1500, 1, 2, 3] ^= 1
    assert replace(source, images=changed).content_sha256 != source.content_sha256
