"""A run knows its data: what is measured later is what it was not trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import DataError, RunError
from metadarts.training import RunFolder, evaluate_run, open_run, search
from metadarts.training.data_record import FILE, LATER, check_data, read_record, record_of
from metadarts.training.search import SearchStopped


@pytest.fixture
def run(finished, tmp_path):
    return RunFolder(shutil.copytree(finished.run.path, tmp_path / "run"))


def moved(source, number, old, new):
    """``source`` with a class in another split."""
    split = {name: tuple(n for n in own if n != number or name != old) for name, own in source.split.items()}
    return replace(source, split=split | {new: (*split[new], number)})


def test_a_run_remembers_its_data(run, source):
    known = read_record(run)
    assert known == record_of(source)
    assert known.sha256 == source.content_sha256
    assert {split: len(names) for split, names in known.split.items()} == {"train": 5, "val": 5, "test": 5}
    assert known.form["channels"] == 1


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, later in LATER.items() for new in later])
def test_a_class_that_was_seen_is_not_measured_on(run, source, old, new):
    number = source.split[old][2]
    changed = moved(source, number, old, new)
    with pytest.raises(DataError, match=f"class 'class {number}' was in {old} and is in {new}, so that measuring"):
        open_run(run.path).experiment(changed)


def renamed(source, name):
    """``source`` whose classes have other names."""
    entries = tuple(replace(entry, name=f"{name} {number}") for number, entry in enumerate(source.classes))
    return replace(source, classes=entries)


def test_a_class_that_was_renamed_is_known_by_its_images(run, source):
    changed = renamed(moved(source, 1, "train", "test"), "other")
    with pytest.raises(DataError, match="class 'other 1', then 'class 1', was in train and is in test"):
        check_data(run, changed)


def test_a_class_that_lost_and_won_images_is_known(run, source):
    changed = moved(source, 1, "train", "test")
    entries = list(changed.classes)
    entries[1] = replace(entries[1], rows=np.concatenate([entries[1].rows[:-1], entries[14].rows[:1]]))
    with pytest.raises(DataError, match="'class 1' was in train"):
        check_data(run, replace(changed, classes=tuple(entries)))


def test_other_images_under_the_same_names_are_other_classes(run, source, caplog):
    """Files without names have class 0, class 1 and so on."""
    other = replace(moved(source, 1, "train", "test"), images=255 - source.images)
    check_data(run, other)
    assert "not what they were" in caplog.text


def test_a_search_does_not_go_on_with_other_data(make, tiny, source, tmp_path):
    told = []
    experiment = make()
    run = RunFolder.create(tmp_path / "run", experiment.config, {})
    with pytest.raises(SearchStopped):
        search(experiment, run, told.append, stop=lambda: len(told) == 1)
    with pytest.raises(RunError, match="its data are not what they were when it began"):
        search(make(source=replace(source, images=255 - source.images)), run)
    search(experiment, run)


def test_means_may_be_numbers_of_numpy(source):
    told = record_of(replace(source, mean=(np.float32(0.5),), std=(np.float64(0.25),)))
    assert json.loads(json.dumps(told.form))["mean"] == [0.5]


def test_many_are_counted(run, source):
    both = (*source.split["train"], *source.split["val"])
    turned = replace(source, split={"train": source.split["test"], "val": (), "test": both})
    with pytest.raises(DataError, match="'class 4' was in train and is in test and 5 more, so that"):
        check_data(run, turned)


def test_other_data_without_harm_are_told(run, source, caplog):
    changed = moved(source, source.split["test"][0], "test", "train")
    opened = open_run(run.path)
    report = evaluate_run(opened.experiment(changed), opened.checkpoint, "test", 2)
    assert "its data are not what they were when it began" in caplog.text
    assert report.facts["data_sha256"] == changed.content_sha256 != source.content_sha256


def test_the_same_data_are_opened_without_a_word(run, source, caplog):
    open_run(run.path).experiment(source)
    assert caplog.text == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": 1}', None])
def test_a_run_without_a_record_is_opened_as_before(run, source, text):
    if text is None:
        (run.path / FILE).unlink()
    else:
        (run.path / FILE).write_text(text)
    assert read_record(run) is None
    check_data(run, moved(source, source.split["train"][0], "train", "test"))
