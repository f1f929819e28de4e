"""``metadarts archive`` end to end: add, ls, merge, verify; and a person's own task recorded by ``adapt --archive``."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3

import pytest
import typer

from metadarts.cli.main import app
from metadarts.predictor.archive import Archive
from metadarts.predictor.task_record import FOLDER
from metadarts.training import RunFolder
from tests.fewshot import cases

COUNTS = {"ant": 4, "bee": 6}


@pytest.fixture(scope="module")
def archive(installed, run, tmp_path_factory):
    """Four training tasks of the run, recorded by the installed program."""
    path = tmp_path_factory.mktemp("archive") / "a.sqlite"
    answer = installed("archive", "add", path, "--run", run, "--tasks", 4, "--device", "cpu", "--threads", 1)
    assert answer.code == 0, answer.err
    return path, answer


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    return cases.save_start(cases.make_start(1), tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return cases.save_pictures(tmp_path_factory.mktemp("images") / "zoo", COUNTS)


def test_every_verb_explains_itself(metadarts):
    group = typer.main.get_command(app).commands["archive"]
    assert set(group.commands) == {"add", "ls", "merge", "verify"}
    for name, command in group.commands.items():
        answer = metadarts("archive", name, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert command.help
        assert all(parameter.help for parameter in command.params)


def test_add_says_what_it_records_and_goes_on(metadarts, archive, run, tmp_path):
    path, answer = archive
    assert "adapt 4 train tasks" in answer.out
    assert "100%  4 tasks" in answer.out
    assert "tasks recorded: 4, accuracy " in answer.out
    assert answer.out.endswith(f"{path}: 4 records\n")
    own = tmp_path / "a.sqlite"
    shutil.copy(path, own)
    again = metadarts("archive", "add", own, "--run", run, "--tasks", 5, "--device", "cpu")
    assert again.code == 0, again.err
    assert "tasks recorded: 1, accuracy " in again.out
    assert "; there already: 4" in again.out
    checkpoint = RunFolder.open(run).load("best")
    with Archive.open(own) as opened:
        assert {record.run for record in opened} == {checkpoint.facts["sha256"]}
        assert {len(record.origin.facts["classes"]) for record in opened} == {3}


def test_steps_seed_and_split_are_those_asked_for(metadarts, run, tmp_path):
    path = tmp_path / "a.sqlite"
    words = ["--run", run, "--tasks", 2, "--steps", 1, "--seed", 7, "--split", "test", "--device", "cpu"]
    assert metadarts("archive", "add", path, *words).code == 0
    with Archive.open(path) as opened:
        assert [(e.settings["steps"], e.seed, e.origin.facts["split"]) for e in opened] == [(1, 7, "test")] * 2


def test_ls_counts(metadarts, archive):
    path, _ = archive
    with Archive.open(path) as opened:
        digest, first = opened.sha256, next(iter(opened))
    answer = metadarts("archive", "ls", path, "--limit", 1)
    assert answer.code == 0, answer.err
    head, group, line = answer.out.splitlines()
    assert head == f"{path}: 4 records, sha256 {digest}"
    assert group.startswith("  omniglot train: 4 adapted in space darts of 2 nodes, 4 tasks, ")
    assert group.endswith(f"run {first.run[:12]}")
    assert line.startswith(f"task {first.origin.sha256[:12]}  adapted  ")
    assert line.endswith(str(first.genotype))


def test_merge_adds_once(metadarts, archive, tmp_path):
    path, _ = archive
    into = tmp_path / "b.sqlite"
    for added in (4, 0):
        answer = metadarts("archive", "merge", into, path)
        assert answer.code == 0, answer.err
        assert f"{path}: {added} added, {4 - added} were there already" in answer.out
        assert answer.out.endswith(f"{into}: 4 records\n")


def test_verify_finds_the_archive_whole_and_builds_its_tasks(metadarts, archive, data):
    path, _ = archive
    answer = metadarts("archive", "verify", path, "--data-root", data)
    assert answer.code == 0, answer.err
    assert f"{path}: 4 records are whole" in answer.out
    assert f"{path}: 4 episodes can be built again" in answer.out


def test_verify_names_what_is_wrong(refused, metadarts, archive, tmp_path, zoo):
    path, _ = archive
    own = tmp_path / "a.sqlite"
    shutil.copy(path, own)
    answer = metadarts("archive", "verify", own, "--data-root", zoo)
    assert "4 tasks of omniglot cannot be built: " in answer.out
    assert "found faulty: 1, see above; give the data that they were recorded on" in refused(
        "archive", "verify", own, "--data-root", zoo
    )
    connection = sqlite3.connect(own)
    with connection:
        connection.execute("UPDATE experience SET run = 'x' WHERE rowid = 2")
    connection.close()
    assert "found faulty: 1, see above; restore it" in refused("archive", "verify", own)
    assert "is damaged: it hashes to" in metadarts("archive", "verify", own).out
    assert "is damaged: it hashes to" in refused("archive", "merge", tmp_path / "b.sqlite", own)
    assert not (tmp_path / "b.sqlite").exists()


def test_what_is_wrong_is_one_line(refused, archive, run, tmp_path, data):
    path, _ = archive
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "finished.json").unlink()
    new = tmp_path / "new.sqlite"
    add = ("archive", "add", new, "--tasks", 2, "--device", "cpu")
    assert "its search has not ended" in refused(*add, "--run", unfinished)
    assert "is not a run folder" in refused(*add, "--run", tmp_path)
    assert "--split 'tset': did you mean 'test'" in refused(*add, "--run", run, "--split", "tset")
    assert not new.exists()
    assert "not an archive of task records" in refused("archive", "add", data, "--run", run, "--tasks", 2)
    assert "there is no archive" in refused("archive", "ls", new)
    assert "there is no archive" in refused("archive", "merge", new, tmp_path / "other")
    assert "is the archive to add to" in refused("archive", "merge", path, path)
    assert "there is nothing at that place" in refused("archive", "verify", path, "--data-root", new)
    assert not new.exists()


def test_a_persons_own_task_is_recorded(metadarts, grey, zoo, tmp_path):
    path, out = tmp_path / "a.sqlite", tmp_path / "task"
    words = ["--images", zoo, "--steps", 2, "--threads", 1, "--seed", 3, "--archive", path]
    answer = metadarts("adapt", grey, "--out", out, *words)
    assert answer.code == 0, answer.err
    assert f"recorded in {path} as " in answer.out
    assert ", of 1 records" in answer.out
    with Archive.open(path) as opened:
        (found,) = opened
    told = json.loads((out / "task.json").read_text())
    history, kept = told["solutions"]["supernet"]["history"], told["solutions"]["supernet"]["kept"]
    assert (found.before, found.after) == (history[0]["accuracy"], history[kept]["accuracy"])
    assert (found.seed, found.settings["steps"], found.settings["kept"]) == (3, 2, kept)
    origin = found.origin
    assert (origin.kind, origin.facts["source"], origin.facts["classes"]) == (FOLDER, "zoo", list(COUNTS))
    images = origin.facts["images"]
    assert {image["path"] for image in images} == {file.relative_to(zoo).as_posix() for file in zoo.rglob("*.png")}
    for image in images:
        assert image["sha256"] == hashlib.sha256((zoo / image["path"]).read_bytes()).hexdigest()
        assert list(COUNTS)[image["label"]] == image["path"].split("/")[0]
    assert sum(image["held_out"] for image in images) == 3
    assert str(tmp_path) not in origin.to_json()
    assert metadarts("adapt", grey, "--out", tmp_path / "again", *words).code == 0
    with Archive.open(path) as opened:
        assert len(opened) == 1, "the same task, adapted in the same way"
    assert (
        "not looked at, as they are of no source: 1 tasks"
        in metadarts("archive", "verify", path, "--data-root", zoo).out
    )


def test_a_csv_file_and_an_npz_file_are_recorded_too(metadarts, grey, zoo, tmp_path):
    import numpy as np

    (tmp_path / "list.csv").write_text("\n".join(f"{file},{file.parent.name}" for file in sorted(zoo.rglob("*.png"))))
    pixels, labels = cases.images((4, 5))
    np.savez(tmp_path / "mine.npz", images=pixels, label=labels)
    path = tmp_path / "a.sqlite"
    for name in ("list.csv", "mine.npz"):
        words = ["--images", tmp_path / name, "--out", tmp_path / f"task {name}", "--steps", 1, "--archive", path]
        answer = metadarts("adapt", grey, *words)
        assert answer.code == 0, answer.err
    with Archive.open(path) as opened:
        found = {record.origin.facts["source"]: record.origin.facts["images"] for record in opened}
    assert {len(images) for images in found.values()} == {9, 10}
    assert all(image["path"].startswith("../") for image in found["list.csv"])
    assert {image["path"] for image in found["mine.npz"]} == {f"image {number}" for number in range(9)}
    assert all(len(image["sha256"]) == 64 for image in found["mine.npz"])


def test_nothing_held_out_is_nothing_to_record(refused, grey, zoo, tmp_path):
    words = ("--images", zoo, "--out", tmp_path / "task", "--held-out", 0, "--archive", tmp_path / "a.sqlite")
    assert "hold some out, or leave out --archive" in refused("adapt", grey, *words)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_cannot_be_written_is_known_before_adapting(refused, grey, zoo, data, tmp_path):
    out = tmp_path / "task"
    assert "not an archive" in refused("adapt", grey, "--images", zoo, "--out", out, "--archive", data)
    assert not out.exists()
