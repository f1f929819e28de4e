"""The draws of the new tasks: repeatable, balanced, and nothing held out that is in the support."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.new_task import draws
from benchmarks.new_task.draws import DOMAINS, SHOTS, WAYS, draw, write_draws
from benchmarks.new_task.peer import jobs
from metadarts.core.errors import DataError

ARRAYS = ("support", "support_labels", "held_out", "held_out_labels")
SHAPES = {"cifar100": (32, 32, 3), "omniglot": (28, 28), "glyphs": (28, 28)}
FILES = {"cifar100": "cifar100", "omniglot": draws.OMNIGLOT}
HELD_OUT = {"cifar100": (20, 20), "omniglot": (15, 15), "glyphs": (15, 18)}


@pytest.fixture(params=DOMAINS)
def place(request):
    """A domain and the folder of its files; None for glyphs."""
    if request.param == "glyphs":
        return "glyphs", None
    folder = request.getfixturevalue("data_dir")
    if not (folder / FILES[request.param]).exists():
        pytest.skip(f"no {FILES[request.param]} in {folder}")
    return request.param, folder


@pytest.mark.parametrize("ways", WAYS)
def test_the_same_draw_twice_is_equal_and_its_numbers_are_right(place, ways):
    domain, folder = place
    first, second = draw(domain, ways, 0, folder), draw(domain, ways, 0, folder)
    assert first.classes == second.classes
    assert len(set(first.classes)) == ways
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.support.shape == (SHOTS * ways, *SHAPES[domain])
    assert first.held_out.shape[1:] == SHAPES[domain]
    assert first.support.dtype == first.held_out.dtype == np.uint8
    assert np.bincount(first.support_labels).tolist() == [SHOTS] * ways
    low, high = HELD_OUT[domain]
    counts = np.bincount(first.held_out_labels, minlength=ways)
    assert low <= counts.min() <= counts.max() <= high


@pytest.mark.parametrize("number", [0, 1])
def test_no_image_is_both_fitted_and_held_out(place, number):
    domain, folder = place
    task = draw(domain, 12, number, folder)
    fitted = {image.tobytes() for image in task.support}
    assert not fitted & {image.tobytes() for image in task.held_out}


def test_draws_differ(place):
    domain, folder = place
    tasks = [draw(domain, ways, number, folder) for ways in WAYS for number in range(3)]
    assert len({task.support.tobytes() for task in tasks}) == len(tasks)


def test_glyphs_are_of_one_script_and_other_fonts_are_held_out():
    pool = draws._pool("glyphs", None)
    task = draw("glyphs", 12, 0, None)
    assert len({draws._script(name) for name in task.classes}) == 1
    fonts = {image.tobytes(): font for image, font in zip(pool.images, pool.variety.tolist(), strict=True)}
    for label in range(task.ways):
        fitted = {fonts[image.tobytes()] for image in task.support[task.support_labels == label]}
        assert not fitted & {fonts[image.tobytes()] for image in task.held_out[task.held_out_labels == label]}


def test_omniglot_is_of_one_alphabet_that_is_all_test_classes(data_dir):
    file = data_dir / draws.OMNIGLOT
    if not file.is_file():
        pytest.skip(f"no {file.name} in {data_dir}")
    with np.load(file, allow_pickle=False) as arrays:
        vinyals = dict(zip(arrays["character_names"].tolist(), arrays["character_vinyals"].tolist(), strict=True))
    for number in range(5):
        task = draw("omniglot", 12, number, data_dir)
        assert len({name.split("/")[0] for name in task.classes}) == 1
        assert {vinyals[name] for name in task.classes} == {2}


def test_files_hold_the_draw(tmp_path):
    assert write_draws(tmp_path, None, 1, ["glyphs"]) == len(WAYS)
    task = draw("glyphs", 5, 0, None)
    with np.load(tmp_path / "glyphs-5-0.npz", allow_pickle=False) as arrays:
        for name in ARRAYS:
            np.testing.assert_array_equal(arrays[name], getattr(task, name))
        assert tuple(arrays["classes"].tolist()) == task.classes


def test_what_there_is_not_is_named():
    with pytest.raises(DataError, match="unknown domain 'birds'"):
        draw("birds", 5, 0, None)
    with pytest.raises(DataError, match="cifar100 needs its files"):
        draw("cifar100", 5, 0, None)
    with pytest.raises(DataError, match="expected 2 to 12"):
        draw("glyphs", 13, 0, None)


def test_the_peer_goes_by_number_and_leaves_out_what_is_done():
    names = ["glyphs-12-0", "glyphs-3-1", "cifar100-12-0", "cifar100-5-0", "omniglot-3-0", "cifar100-3-2"]
    ours = [{"draw": name, "seconds": 0.5} for name in names]
    left = jobs(ours, [{"draw": "omniglot-3-0"}], times=60, only=2)
    assert [job.draw for job in left] == ["cifar100-5-0", "cifar100-12-0", "glyphs-12-0", "glyphs-3-1"]
    assert {job.seconds for job in left} == {30.0}
