"""The split that MAML and T-NAS describe, 1,200 random characters against the rest; and the published test episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metadarts.core.errors import DataError, MetadartsError
from metadarts.core.rng import Key
from metadarts.papers.reproduction import TABLES
from metadarts.papers.reproduction.tables import QUERIES, TASKS, WAYS
from metadarts.tasks import EpisodeSampler, Source, open_source
from metadarts.tasks.sources.omniglot import FILE, omniglot, omniglot_random

CHARACTERS, DRAWINGS = 1230, 3


def write(folder: Path, characters: int) -> Path:
    """Omniglot's documented .npz, its characters in a shuffled order, each drawing of one grey."""
    character = Key(("tests", "characters")).permutation(characters * DRAWINGS) % characters
    path = folder / FILE
    np.savez(
        path,
        images=np.broadcast_to((character % 251).astype(np.uint8)[:, None, None], (len(character), 28, 28)),
        character=character,
        drawer=np.arange(len(character)) % DRAWINGS,
        character_vinyals=np.arange(characters) % 3,
    )
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("made"), CHARACTERS)


@pytest.fixture(scope="module")
def source(made) -> Source:
    return omniglot_random(made)


def characters_of(source: Source, split: str) -> set[str]:
    return {source.classes[number].name.rpartition(" ")[0] for number in source.split[split]}


def test_no_character_is_in_two_splits(source):
    parts = [characters_of(source, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1100, 100, CHARACTERS - 1200]
    assert len(set.union(*parts)) == CHARACTERS
    drawings = [
        {row for number in source.split[split] for row in source.classes[number].rows.tolist()}
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, drawings)) == len(set.union(*drawings)) == CHARACTERS * DRAWINGS


def test_all_four_rotations_go_together(source):
    for split, numbers in source.split.items():
        turns: dict[str, list[int]] = {}
        for number in numbers:
            entry = source.classes[number]
            turns.setdefault(entry.name.rpartition(" ")[0], []).append(entry.quarter_turns)
        assert all(found == [0, 1, 2, 3] for found in turns.values()), split


def test_the_split_is_the_same_on_every_call_and_not_that_of_vinyals(made, source):
    again, plain = omniglot_random(made), omniglot(made)
    assert again.split == source.split
    assert again.content_sha256 == source.content_sha256
    assert (source.name, plain.name) == ("omniglot-1200", "omniglot")
    assert source.split != plain.split
    assert source.content_sha256 != plain.content_sha256, "a run of one split never passes for one of the other"
    np.testing.assert_array_equal(source.images, plain.images)


def test_the_split_is_drawn_and_not_the_first_characters(source):
    """Characters come by alphabet: the first 1,200 would leave whole alphabets to the test."""
    numbers = sorted(number // 4 for number in source.split["test"][::4])
    assert numbers != list(range(1200, CHARACTERS))
    assert numbers[0] < CHARACTERS / 3


def test_it_opens_by_name(made, source):
    assert open_source("omniglot-1200", made).content_sha256 == source.content_sha256


@pytest.mark.parametrize("characters", [3, 1200])
def test_too_few_characters_are_refused(tmp_path, characters):
    with pytest.raises(DataError, match=f"expected more than 1200 characters to split, found {characters}"):
        omniglot_random(write(tmp_path, characters))


def test_one_test_character_is_the_least(tmp_path):
    assert len(omniglot_random(write(tmp_path, 1201)).split["test"]) == 4


def test_real_counts(data_dir):
    if not (data_dir / FILE).is_file():
        pytest.skip(f"no {FILE} in {data_dir}")
    source = omniglot_random(data_dir / FILE)
    assert {split: len(numbers) for split, numbers in source.split.items()} == {"train": 4400, "val": 400, "test": 1692}


PUBLISHED = [(name, split, shots) for name, spec in TABLES.items() for split, shots in spec.episodes]


def opened(cache: dict[str, Source], name: str, folder: Path, place: str) -> Source:
    if name not in cache:
        try:
            cache[name] = open_source(name, Path(place))
        except MetadartsError as error:
            pytest.skip(f"no {name} in {folder}: {error}")
    return cache[name]


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "split", "shots"), PUBLISHED)
def test_the_published_test_episodes_are_had_again(data_dir, sources, name, split, shots):
    """Hashes of 600 tasks, pixels included. They are of these files' images; another decoder may give others."""
    spec = TABLES[name]
    folder = Path(spec.place(data_dir))
    if not (folder / FILE).is_file() and "omniglot" in name:
        pytest.skip(f"no {FILE} in {data_dir}")
    if spec.folders and folder == data_dir.resolve():
        pytest.skip(f"none of the folders {spec.folders} in {data_dir}")
    source = opened(sources, spec.sources[split], data_dir, str(folder))
    sampler = EpisodeSampler(source, "test", WAYS, shots, QUERIES)
    assert sampler.sha256(Key.from_seed(0).child("held out", "test"), TASKS) == spec.episodes[split, shots]
