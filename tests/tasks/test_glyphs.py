"""The built-in source: exact drawing, no script in two splits, no look-alikes, a cache that heals itself."""

from __future__ import annotations

import subprocess
import sys
import warnings
from itertools import combinations
from time import perf_counter

import numpy as np
import pytest

from metadarts.core.rng import Key
from metadarts.store.files import default_cache
from metadarts.tasks import EpisodeSampler, nearest_class_mean, open_source
from metadarts.tasks.glyph.jitter import SIZE
from metadarts.tasks.glyph.lookalikes import AS_PRINTED, close_pairs, likeness, plain_drawings
from metadarts.tasks.glyph.outlines import FONTS, FontReader, fonts_sha256
from metadarts.tasks.glyph.scripts import SCRIPTS, characters
from metadarts.tasks.sources.glyphs import (
    FONTS_SHA256,
    GLYPHS_SHA256,
    GLYPHS_VERSION,
    build,
    copies_per_font,
    glyphs,
    without_lookalikes,
)

STEP = 40  # the tests' own small building takes every 40th candidate


@pytest.fixture(scope="module")
def reader():
    return FontReader()


@pytest.fixture(scope="module")
def small():
    return build(step=STEP)


def code_of(entry):
    return int(entry.name.rpartition("U+")[2], 16)


def test_whole_source_has_the_recorded_digest(built_in):
    if fonts_sha256() != FONTS_SHA256:
        pytest.skip("matplotlib's fonts here are not those that the digest was recorded with")
    assert built_in.content_sha256 == GLYPHS_SHA256


def test_class_counts(built_in):
    counts = {split: len(numbers) for split, numbers in built_in.split.items()}
    assert counts == {"train": 1111, "val": 246, "test": 233}
    assert min(len(entry.rows) for entry in built_in.classes) >= 20
    assert built_in.images.shape[1:] == (1, SIZE, SIZE)


def test_ink_is_bright_and_no_image_is_blank(built_in):
    assert built_in.images.mean() < 64
    assert built_in.images.max(axis=(1, 2, 3)).min() > 100


def test_no_script_is_in_two_splits():
    spans = [(split, script, *span) for split, of in SCRIPTS.items() for script, spans in of.items() for span in spans]
    for (split, script, low, high), (other, rival, first, last) in combinations(spans, 2):
        if split != other and {script, rival} != {"Greek", "Coptic"}:
            assert high < first or last < low, (script, rival)
    codes = [{code for _, code in characters(split)} for split in SCRIPTS]
    assert not any(one & other for one, other in combinations(codes, 2))
    assert all(len(set(of)) == len(of) for of in [[code for _, code in characters(split)] for split in SCRIPTS])


def test_every_class_is_of_its_splits_scripts(built_in):
    for split, numbers in built_in.split.items():
        assert {code_of(built_in.classes[number]) for number in numbers} <= {code for _, code in characters(split)}


def test_every_class_has_two_fonts_and_can_keep_them_apart(built_in):
    plan = EpisodeSampler(built_in, "test", 5, 5, 15).plan(Key.from_seed(0), 60)
    for support, query in zip(plan.support_rows.reshape(-1, 5), plan.query_rows.reshape(-1, 15), strict=True):
        assert not set(built_in.variety[support]) & set(built_in.variety[query])
    assert min(len(set(built_in.variety[entry.rows])) for entry in built_in.classes) >= 2


@pytest.mark.parametrize("fonts", range(1, len(FONTS) + 1))
def test_copies_suffice_for_five_shots_and_fifteen_queries(fonts):
    copies = copies_per_font(fonts)
    assert fonts * copies >= 20
    if fonts > 1:
        support_fonts = -(-5 // copies)
        assert (fonts - support_fonts) * copies >= 15


@pytest.mark.parametrize(("split", "low", "high"), [("train", 0.43, 0.55), ("val", 0.43, 0.56), ("test", 0.40, 0.50)])
def test_nearest_class_mean_is_neither_lost_nor_done(built_in, split, low, high, record_property):
    batch = EpisodeSampler(built_in, split, 5, 1, 15).sample(Key.from_seed(1), 150)
    accuracy = nearest_class_mean(batch).mean().item()
    record_property(f"nearest class mean, {split}, 150 episodes of 5-way 1-shot", round(accuracy, 3))
    assert low < accuracy < high


def test_two_buildings_agree_bit_for_bit(small):
    assert build(step=STEP).content_sha256 == small.content_sha256


def test_another_process_agrees_bit_for_bit(small):
    script = f"from metadarts.tasks.sources.glyphs import build; print(build(step={STEP}).content_sha256)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == small.content_sha256


def test_a_character_is_drawn_alike_in_any_company(small, built_in):
    whole = {code_of(entry): entry for entry in built_in.classes}
    both = [entry for entry in small.classes if code_of(entry) in whole]
    assert len(both) > 15
    for entry in both:
        assert np.array_equal(small.images[entry.rows], built_in.images[whole[code_of(entry)].rows])


def test_cached_is_built(tmp_path, monkeypatch, small):
    monkeypatch.setitem(glyphs.__globals__, "build", lambda progress=None: build(STEP, progress))
    first = glyphs(tmp_path)
    assert first.content_sha256 == small.content_sha256
    assert [path.name for path in tmp_path.iterdir()] == [f"glyphs-v{GLYPHS_VERSION}.npz"]
    monkeypatch.setitem(glyphs.__globals__, "build", None)  # from here on only the cache can serve
    again = glyphs(tmp_path)
    assert again.content_sha256 == small.content_sha256
    assert [entry.name for entry in again.classes] == [entry.name for entry in small.classes]
    assert open_source("glyphs", tmp_path).content_sha256 == small.content_sha256


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"", lambda content: b"text"])
def test_damaged_cache_is_built_anew_without_warning(tmp_path, monkeypatch, small, damage, caplog):
    monkeypatch.setitem(glyphs.__globals__, "build", lambda progress=None: small)
    glyphs(tmp_path)
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with warnings.catch_warnings(), caplog.at_level("INFO"):
        warnings.simplefilter("error")
        assert glyphs(tmp_path) is small
    assert "is damaged" in caplog.text
    assert max(record.levelname for record in caplog.records) == "INFO"
    assert glyphs(tmp_path).content_sha256 == small.content_sha256
    assert list(tmp_path.iterdir()) == [path]


def test_cache_of_other_content_is_built_anew(tmp_path, monkeypatch, small):
    monkeypatch.setitem(glyphs.__globals__, "build", lambda progress=None: small)
    glyphs(tmp_path)
    path = next(tmp_path.iterdir())
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    arrays["images"] = arrays["images"] ^ 1
    np.savez_compressed(path, **arrays)
    assert glyphs(tmp_path) is small


def test_unwritable_cache_costs_nothing_else(tmp_path, monkeypatch, small):
    monkeypatch.setitem(glyphs.__globals__, "build", lambda progress=None: small)
    (tmp_path / "file").write_text("in the way of the folder")
    assert glyphs(tmp_path / "file") is small


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "a"
    monkeypatch.delenv("METADARTS_CACHE")
    assert default_cache() == tmp_path / "b" / "metadarts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache().parts[-2:] == (".cache", "metadarts")


def test_progress_runs_to_the_end():
    told = []
    build(step=STEP, progress=lambda now: told.append((now.done, now.total)))
    assert told == sorted(told)
    assert told[-1] == (100, 100)


def drawn_in_all_fonts(reader, letter):
    return [reader.outline(font, ord(letter)) for font in reader.fonts_of(ord(letter))]


def test_no_class_looks_like_another(small, reader):
    characters = [drawn_in_all_fonts(reader, chr(code_of(entry))) for entry in small.classes]
    split_of = {number: split for split, numbers in small.split.items() for number in numbers}
    split = np.array([split_of[number] for number in range(len(characters))])
    assert (close_pairs(characters, split) == np.eye(len(characters), dtype=bool)).all()
    drawings = plain_drawings(characters)
    assert (likeness(drawings, drawings) - 2 * np.eye(len(characters))).max() < AS_PRINTED


def test_selection_keeps_the_order_of_the_candidates(reader):
    from metadarts.tasks.sources.glyphs import candidates

    found = candidates(reader, "test", step=STEP)
    kept = without_lookalikes(found)
    assert [character.code for character in kept] == sorted(
        (character.code for character in kept), key=[character.code for character in found].index
    )


def test_loading_is_quick(built_in, record_property):
    """Reported, not asserted: a busy machine must not fail it. Four 5-way tasks of 1 + 15 images take 2 ms."""
    sampler = EpisodeSampler(built_in, "train", 5, 1, 15)
    sampler.sample(Key.from_seed(0), 4)
    times = []
    for step in range(10):
        start = perf_counter()
        batch = sampler.sample(Key.from_seed(1).child(step), 4)
        times.append(perf_counter() - start)
    assert batch.query_images.shape == (4, 75, 1, SIZE, SIZE)
    record_property("seconds to load four 5-way tasks of glyphs", round(float(np.median(times)), 4))
