"""A run knows its data: what is measured later is what it was not trained on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from metadarts.core.errors import DataError
from metadarts.training import RunFolder, evaluate_run, open_run
from metadarts.training.data_record import FILE, LATER, check_data, read_record, record_of


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
