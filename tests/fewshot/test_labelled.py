"""Labelled images from folders, .csv and .npz files; and which of them are held out."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.fewshot.input_spec import to_pixels
from metadarts.fewshot.labelled import Labelled, hold_out, notes_on_copies, read_labelled

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NOISE = Key(("tests", "api", "labelled")).numpy().integers(0, 256, (5, 9, 9)).astype(np.uint8)
FILES = ("cat/a.png", "cat/b.png", "dog/a b.png", "dog/deep/c,d.png", "dog/e.png")


@pytest.fixture
def root(tmp_path):
    """cat: two images; dog: three, one of them in a folder of its own."""
    for name, image in zip(FILES, NOISE, strict=True):
        (tmp_path / "zoo" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "zoo" / name)
    (tmp_path / "zoo" / "notes.txt").touch()
    (tmp_path / "zoo" / "empty").mkdir()
    return tmp_path / "zoo"


def content(found):
    return {name: (found.classes[label], to_pixels([image], 1, 9)[0][0, 0].tobytes())
            for name, image, label in zip(found.names, found.images, found.labels, strict=True)}  # fmt: skip


WANTED = {name: (name[:3], image.tobytes()) for name, image in zip(FILES, NOISE, strict=True)}


def test_a_folder_of_class_folders(root):
    found = read_labelled(root)
    assert found.classes == ("cat", "dog")
    assert found.labels.dtype == np.int64
    assert content(found) == {name: WANTED[name] for name in FILES}


LINES = ["cat/a.png,cat", "cat/b.png,cat", "dog/a b.png,dog", '"dog/deep/c,d.png",dog', "dog/e.png,dog"]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "path,label\n" + "\n".join(LINES) + "\n",
        "\ufeffpath,label\n" + "\n".join(LINES),
        " Path , LABEL \r\n" + "\r\n".join(LINES) + "\r\n",
        "\n\n" + "\n\n , \n".join(LINES) + "\n\n",
        "\n".join(line.replace(",cat", ", cat ").replace(",dog", ',"dog"') for line in LINES),
    ],
    ids=["plain", "header", "mark", "windows", "blank lines", "spaces and quotes"],
)
def test_a_csv_file_of_paths_from_where_it_lies(root, text):
    (root / "mine.csv").write_bytes(text.encode())
    assert content(read_labelled(root / "mine.csv")) == WANTED


def test_whole_paths_and_upper_case_endings(root):
    (root.parent / "mine.CSV").write_text("\n".join(f"{root / name},{name[:3]}" for name in FILES if "," not in name))
    assert len(read_labelled(root.parent / "mine.CSV").labels) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no image"),
        ("path,label\n", "names no image"),
        ("\n \n", "names no image"),
        ("a.png\n", "image 1 is the line 'a.png'; expected path,label"),
        ("path,label\na.png,x\nb.png,x,y\n", "image 2 is the line"),
        ("a.png,\n", "expected path,label"),
        (",cat\n", "expected path,label"),
        ('a.png,"cat\n', "cannot read"),
        ("a.png,cat\ndeep/../a.png,dog\n", "names the image a.png twice"),
        (f"{'x' * 200_000},cat\n", "cannot read"),
    ],
)
def test_a_csv_file_of_something_else(tmp_path, text, words):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError) as raised:
        read_labelled(tmp_path / "mine.csv")
    assert words in str(raised.value)


def test_a_csv_file_that_is_no_text(tmp_path):
    (tmp_path / "mine.csv").write_bytes(b"a.png,\xff\xfe\n")
    with pytest.raises(DataError, match="cannot read"):
        read_labelled(tmp_path / "mine.csv")


@pytest.mark.parametrize("named", [False, True])
def test_an_npz_file(tmp_path, named):
    label = np.array([7, 3, 3, 7, 3]) if not named else np.array([2, 0, 0, 2, 0])
    more = {"class_names": np.array(["ant", "bee", "cat"])} if named else {}
    np.savez(tmp_path / "mine.npz", images=NOISE, label=label, **more)
    found = read_labelled(tmp_path / "mine.npz")
    assert found.classes == (("ant", "cat") if named else ("class 3", "class 7")), "only those that have images"
    assert found.labels.tolist() == [1, 0, 0, 1, 0]
    assert list(found.names) == [f"image {number}" for number in range(5)]
    np.testing.assert_array_equal(np.stack(found.images), NOISE)


@pytest.mark.parametrize("name", ["gone", "gone.csv", "a\0b", "x" * 300, "text.txt", "none"])
def test_what_is_none_of_the_three(tmp_path, name):
    (tmp_path / "text.txt").touch()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError) as raised:
        read_labelled(tmp_path / name)
    assert "\n" not in str(raised.value)


def read(path):
    """What becomes of a file of anything: labelled images, or a DataError."""
    try:
        found = read_labelled(path)
    except DataError as error:
        return str(error)
    assert len(found.images) == len(found.names) == len(found.labels) > 0
    assert set(found.labels.tolist()) == set(range(len(found.classes)))
    return ""


@FUZZ
@given(text=st.text(st.sampled_from('ab,"\n\r \0\ufeff/.;'), max_size=40) | st.text(max_size=40))
def test_any_text_as_csv(tmp_path, text):
    (tmp_path / "any.csv").write_bytes(text.encode(errors="surrogatepass"))
    read(tmp_path / "any.csv")


@FUZZ
@given(found=st.binary(max_size=200))
def test_any_bytes_as_csv_and_npz(tmp_path, found):
    for name in ("any.csv", "any.npz"):
        (tmp_path / name).write_bytes(found)
        said = read(tmp_path / name)
        assert said or name == "any.csv"


@FUZZ
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_npz_file(tmp_path, place, bit, cut):
    np.savez(tmp_path / "mine.npz", images=NOISE, label=np.array([0, 1, 0, 1, 1]))
    whole = bytearray((tmp_path / "mine.npz").read_bytes())
    place %= len(whole)
    if cut:
        whole = whole[:place]
    else:
        whole[place] ^= 1 << bit
    (tmp_path / "mine.npz").write_bytes(whole)
    assert read(tmp_path / "mine.npz") or not cut


def labelled(*counts):
    names = [f"{label}-{place}" for label, count in enumerate(counts) for place in range(count)]
    labels = np.repeat(np.arange(len(counts)), counts)
    return Labelled(names, names, tuple("abcdefgh"[: len(counts)]), labels)


@pytest.mark.parametrize(
    ("share", "shots", "learnt", "held"),
    [
        (0.25, None, [3, 6, 2], [1, 2, 1]),
        (0.5, None, [2, 4, 2], [2, 4, 1]),
        (0.9, None, [1, 1, 1], [3, 7, 2]),
        (0.0, None, [4, 8, 3], [0, 0, 0]),
        (0.25, 1, [1, 1, 1], [3, 7, 2]),
        (0.0, 2, [2, 2, 2], [2, 6, 1]),
    ],
)
def test_so_many_of_each_class_are_held_out(share, shots, learnt, held):
    own, other = hold_out(labelled(4, 8, 3), share, shots, seed=0)
    assert np.bincount(own.labels, minlength=3).tolist() == learnt
    assert np.bincount(other.labels, minlength=3).tolist() == held
    assert own.classes == other.classes == ("a", "b", "c")
    assert not set(own.names) & set(other.names)
    assert set(own.names) | set(other.names) == set(labelled(4, 8, 3).names)
    for part in (own, other):
        assert all(name.startswith(str(label)) for name, label in zip(part.names, part.labels, strict=True))
        assert list(part.names) == list(part.images)


@FUZZ
@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=8), share=st.floats(0.0, 0.9), seed=st.integers())
def test_the_draw_is_fair_and_the_same_again(counts, share, seed):
    try:
        own, other = hold_out(labelled(*counts), share, None, seed)
    except DataError:
        return
    again, _ = hold_out(labelled(*counts), share, None, seed)
    assert list(own.names) == list(again.names)
    assert not set(own.names) & set(other.names)
    assert len(own.names) + len(other.names) == sum(counts)
    assert np.bincount(own.labels, minlength=len(counts)).min() >= 1


def test_seeds_and_other_classes():
    drawn = {tuple(hold_out(labelled(8, 8), 0.5, None, seed)[0].names) for seed in range(6)}
    assert len(drawn) == 6
    first, more = (hold_out(labelled(*counts), 0.5, None, 0)[0].names for counts in ((8, 8), (8, 8, 8)))
    assert list(first) == [name for name in more if name[0] in "01"], "a class more changes nothing for the others"


def test_a_class_of_one_image_is_learnt_and_not_measured_and_one_of_two_gives_one():
    own, other = hold_out(labelled(4, 1, 2), 0.25, None, 0)
    assert np.bincount(own.labels, minlength=3).tolist() == [3, 1, 1]
    assert np.bincount(other.labels, minlength=3).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="every class has one image"):
        hold_out(labelled(1, 1), 0.25, None, 0)


@pytest.mark.parametrize(
    ("share", "shots", "words"),
    [
        (0.25, 1, "class 'b' has 1 image(s): with 1 to learn from none is left"),
        (0.0, 9, "lower --shots"),
        (float("nan"), None, "expected a share from 0"),
        (1.0, None, "expected a share from 0"),
    ],
)
def test_a_class_too_small_to_hold_out_from(share, shots, words):
    with pytest.raises(DataError) as raised:
        hold_out(labelled(4, 1), share, shots, 0)
    assert words in str(raised.value)


def copied(*groups):
    """Labelled arrays: for each class the numbers of its images, equal ones copies."""
    images = [np.full((4, 4), number, np.uint8) for own in groups for number in own]
    labels = np.repeat(np.arange(len(groups)), [len(own) for own in groups])
    names = [f"image {place}" for place in range(len(images))]
    return Labelled(images, names, tuple("abcdefgh"[: len(groups)]), labels)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "shots"), [(0.25, None), (0.5, None), (0.0, 2)])
def test_copies_of_an_image_are_never_on_both_sides(seed, share, shots):
    given = copied([1, 1, 1, 2, 3, 4], [5, 5, 6, 6, 7, 7], [8, 9, 10, 11])
    learnt, held = hold_out(given, share, shots, seed)
    for label in range(3):
        own, other = (
            {bytes(image) for image, of in zip(part.images, part.labels, strict=True) if of == label}
            for part in (learnt, held)
        )
        assert own
        assert other
        assert not own & other
    assert len(learnt.labels) + len(held.labels) == 16
    if shots is not None:
        assert np.bincount(learnt.labels).min() >= shots


def test_a_class_of_copies_alone_is_not_measured():
    _, held = hold_out(copied([1, 1, 1, 1], [2, 3, 4, 5]), 0.25, None, 0)
    assert set(held.labels.tolist()) == {1}
    with pytest.raises(DataError, match="one image, copies aside"):
        hold_out(copied([1, 1, 1, 1], [2, 2]), 0.25, None, 0)


def test_copies_are_told():
    assert notes_on_copies(copied([1, 2], [3, 4])) == []
    (within,) = notes_on_copies(copied([1, 1, 1, 2], [3, 4]))
    assert within == "2 of 6 images are copies of another of their class: never on both sides"
    (across,) = notes_on_copies(copied([1, 2], [1, 3]))
    assert across.startswith("1 image(s) belong to several classes, the first is image 0 (in a, b)")
    assert len(notes_on_copies(copied([1, 1], [1, 3]))) == 2


def test_copies_of_files_are_found(tmp_path):
    for name in ("a/1", "a/2", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    assert len(notes_on_copies(read_labelled(tmp_path))) == 2


@pytest.mark.parametrize("header", ["path,label", "filename,label", "File_Name,Class", "image,category"])
def test_the_header_of_a_table_may_have_other_words(tmp_path, header):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "one.png")
    (tmp_path / "table.csv").write_text(f"{header}\none.png,cat\n")
    assert read_labelled(tmp_path / "table.csv").classes == ("cat",)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "test"), ("Training", "Validation")])
def test_a_folder_of_splits_is_refused(tmp_path, splits):
    for split in splits:
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / split / name / "1.png")
    with pytest.raises(DataError, match="look like splits, not classes: give one of them"):
        read_labelled(tmp_path)
    assert read_labelled(tmp_path / splits[0]).classes == ("cat", "dog")


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    for name in ("test", "train"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "1.png")
    assert read_labelled(tmp_path).classes == ("test", "train")


def test_a_pipe_is_no_image(tmp_path):
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "table.csv").write_text("path,label\npipe.png,cat\n")
    given = read_labelled(tmp_path / "table.csv")
    assert notes_on_copies(given) == []
    for images in ([tmp_path / "pipe.png"], given.images):
        with pytest.raises(DataError, match=r"pipe\.png: it is no plain file"):
            to_pixels(images, 1, 8)
