"""Each bad input gives one clear line and exit code 2; nothing half-written, no traceback."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from metadarts.core.rng import Key
from metadarts.training import RunFolder

SMALL = {"tasks.queries": 2, "evaluate.queries": 3}


@pytest.fixture
def photos(tmp_path):
    """Nine classes of six coloured JPEG and PNG images of different sizes."""
    draw = Key(("tests", "bad inputs")).numpy()
    for number in range(9):
        folder = tmp_path / "photos" / f"class {number}"
        folder.mkdir(parents=True)
        for image in range(6):
            pixels = draw.integers(0, 256, (*draw.integers(20, 50, 2), 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.{'png' if image % 2 else 'jpg'}")
    return tmp_path / "photos"


@pytest.fixture
def search_photos(photos, search_words, tmp_path):
    def words(*more):
        return search_words(tmp_path / "out", "--data", str(photos), "--ways", "2", *more)

    return words


def test_the_photos_themselves_are_fine(metadarts, search_photos, tmp_path):
    assert metadarts(*search_photos()).code == 0
    assert RunFolder.open(tmp_path / "out").is_finished


def test_too_few_images_names_the_class_and_the_counts(refused, search_photos, photos, tmp_path):
    for image in ("2.jpg", "3.png", "4.jpg", "5.png"):
        (photos / "class 4" / image).unlink()
    line = refused(*search_photos())
    assert "'class 4' has 2 images, but 1 shots and " in line
    assert "lower shots or queries" in line
    assert not (tmp_path / "out").exists()


def test_too_few_classes(refused, search_photos, tmp_path):
    assert "7-way tasks need as many classes" in refused(*search_photos("--ways", "7"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["2.jpg", "3.png"])
@pytest.mark.parametrize("how", ["corrupt", "truncated", "empty"])
def test_an_image_that_cannot_be_read_is_named(refused, search_photos, photos, tmp_path, name, how):
    path = photos / "class 4" / name
    content = path.read_bytes()
    path.write_bytes({"corrupt": b"no image at all" * 9, "truncated": content[: len(content) // 2], "empty": b""}[how])
    assert str(path) in refused(*search_photos())
    assert not (tmp_path / "out").exists()


def test_mixed_channels_name_one_file_of_each_and_the_way_out(metadarts, refused, search_photos, photos, tmp_path):
    Image.open(photos / "class 4" / "2.jpg").convert("L").save(photos / "class 4" / "2.jpg")
    line = refused(*search_photos())
    assert "class 4/2.jpg is grey and class 1/0.jpg is in colour" in line
    assert "--set tasks.channels=1 or --set tasks.channels=3 converts" in line
    assert not (tmp_path / "out").exists()
    assert metadarts(*search_photos("--set", "tasks.channels=3")).code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Genotype(normal=[('sep_conv_9x9', 0)", "genotype"),
        (None, "operation 'sep_conv_9x9' is unknown, did you mean 'sep_conv_"),
        ("", "genotype"),
    ],
    ids=["cut short", "unknown operation", "empty"],
)
def test_a_genotype_that_is_none(metadarts, refused, run, tmp_path, text, words):
    if text is None:
        copy = shutil.copytree(run, tmp_path / "run")
        assert metadarts("derive", copy).code == 0
        text = (copy / "genotype.txt").read_text()
        known = text.split("('")[1].split("'")[0]
        text = text.replace(known, "sep_conv_9x9", 1)
    (tmp_path / "genotype.txt").write_text(text)
    line = refused("evaluate", run, "--tasks", 2, "--genotype", tmp_path / "genotype.txt")
    assert words in line.lower() if words == "genotype" else words in line


def test_an_unknown_field_in_a_config_file_names_the_nearest(refused, search_words, tmp_path):
    (tmp_path / "mine.yaml").write_text("inner:\n  stepz: 3\ntraning:\n  minutes: 1\n")
    line = refused("search", "--data", "glyphs", "--out", tmp_path / "out", "--config", tmp_path / "mine.yaml")
    assert "unknown setting 'inner.stepz': did you mean 'steps'?" in line
    assert "unknown setting 'traning.minutes': did you mean 'training.minutes'?" in line
    assert not (tmp_path / "out").exists()


LIMITED = """
import resource, sys
from metadarts.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


def limited(size, words):
    """The program in a process that may write files of ``size`` bytes at most.

    With -B: Python itself would leave half-written .pyc files behind and trip over them later. Matplotlib's cache of
    fonts is made before, without the limit.
    """
    import matplotlib.font_manager  # noqa: F401 - for the cache that it writes

    return subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, str(size), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.sampled(2)
@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY, reason="limited already")
@pytest.mark.parametrize("size", [100, 4000, 20000, 60000], ids=["config", "events", "pictures", "tensors"])
def test_a_file_size_limit_reached_while_saving(search_words, tmp_path, size):
    """The system refuses at different files: config.yaml, TensorBoard's events, their pictures, the checkpoints."""
    done = limited(size, search_words(tmp_path / "out"))
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.partial"))
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out"]), "no scaffold is left"
    if (tmp_path / "out").exists():
        run = RunFolder.open(tmp_path / "out")
        run.config().check()
        run.records("train")
        for name in ("best", "last"):
            assert not run.has(name) or run.load(name).facts["step"] >= 0


def test_a_full_folder_later_goes_on_when_there_is_space_again(metadarts, search_words, tmp_path):
    assert limited(20000, search_words(tmp_path / "out")).returncode == 2
    answer = metadarts("search", "--resume", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert RunFolder.open(tmp_path / "out").is_finished


@pytest.mark.parametrize("verb", ["derive", "report"])
def test_a_limit_reached_while_drawing(run, tmp_path, verb):
    copy = shutil.copytree(run, tmp_path / "run")
    before = {path.name for path in copy.iterdir()}
    done = limited(8000, [verb, copy])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "File too large" in done.stderr
    left = {path.name for path in copy.iterdir()} - before
    assert left <= {"genotype.txt", "genotype.json"}, "each whole"


TOO_MUCH = """
import resource, sys
from metadarts.cli import main
import metadarts.training
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)) * 2**30,) * 2)
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's address space as Linux does")
def test_memory_that_runs_out_before_the_first_step(search_words, tmp_path):
    words = search_words(tmp_path / "out", "--set", "macro.channels=40000")
    done = subprocess.run(
        [sys.executable, "-c", TOO_MUCH, "8", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "memory ran out" in done.stderr
    assert not (tmp_path / "out").exists()


def test_images_too_small_for_the_network_are_refused_before_there_is_a_run(refused, search_words, tmp_path):
    images = Key(("tests", "tiny images")).numpy().integers(0, 256, (120, 2, 2)).astype(np.uint8)
    np.savez(tmp_path / "tiny.npz", images=images, label=np.repeat(np.arange(12), 10))
    refused(*search_words(tmp_path / "out", "--data", str(tmp_path / "tiny.npz"), "--ways", "2"))
    assert not (tmp_path / "out").exists()


def test_names_too_long_for_the_system(refused, search_words, tmp_path):
    name = "x" * 300
    refused(*search_words(tmp_path / name))
    refused("derive", tmp_path / name)
    refused("search", "--resume", tmp_path / name)
    refused(*search_words(tmp_path / "out", "--data", name))
    refused(*search_words(tmp_path / "out", "--data", "glyphs", "--data-root", name))


def test_a_data_root_alone_is_where_the_data_of_the_run_lie_now(metadarts, refused, run, data, tmp_path):
    (tmp_path / "moved").mkdir()
    shutil.copy(data, tmp_path / "moved" / "omniglot_28_u8.npz")
    words = ("evaluate", run, "--tasks", 2, "--steps", 0, "--json", tmp_path / "a.json", "--data-root")
    assert metadarts(*words, tmp_path / "moved").code == 0
    assert "nothing at that place" in refused(*words, tmp_path / "gone")
