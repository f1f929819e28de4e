"""``metadarts predict`` and ``metadarts export``: a task folder and its files answer alike."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from metadarts.cli import main
from metadarts.export import SUFFIXES

COUNTS = {"ant": 4, "bee": 5}


@pytest.fixture(scope="session")
def cases():
    """What the tests of the Python interface are made of."""
    path = Path(__file__).parents[1] / "fewshot" / "cases.py"
    spec = importlib.util.spec_from_file_location("api_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def spoken(one_thread):
    """(words) -> what the program says of them, in this process and for as long as the session."""

    def call(*words):
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
            patch.setattr(sys, "argv", ["metadarts", *map(str, words)])
            patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        return said.getvalue()

    return call


@pytest.fixture(scope="session")
def images(cases, tmp_path_factory):
    return cases.save_pictures(tmp_path_factory.mktemp("images") / "zoo", COUNTS)


@pytest.fixture(scope="session")
def task(cases, spoken, images, tmp_path_factory):
    """A discrete network and the supernet, of one node, quick to export."""
    folder = tmp_path_factory.mktemp("task")
    start = cases.save_start(cases.make_start(1, model__nodes=1), folder)
    spoken("adapt", start, "--images", images, "--out", folder / "mine", "--steps", 1, "--finish", "inherited")
    return folder / "mine"


@pytest.fixture(scope="session")
def shipped(spoken, task, tmp_path_factory):
    """format -> a file of the task's first network, and what was said on the way."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("shipped")
    made = {}
    for format, suffix in SUFFIXES.items():
        path = folder / format / f"model{suffix}"
        made[format] = path, spoken("export", task, "--format", format, "--out", path)
    return made


def predictions(answer):
    assert answer.code == 0, answer.err
    return re.findall(r"^(.*): (ant|bee) \(([\d.]+)%\)$", answer.out, re.M)


@pytest.mark.parametrize("format", list(SUFFIXES))
def test_a_file_predicts_what_the_task_does(metadarts, task, shipped, images, format):
    path, said = shipped[format]
    assert f"{format}, {sum(f.stat().st_size for f in path.parent.iterdir()):,} bytes" in said
    assert "the largest difference from its source is" in said
    assert "latency, median" in said
    own, other = (predictions(metadarts("predict", asked, images)) for asked in (task, path))
    assert [found[:2] for found in own] == [found[:2] for found in other]
    assert all(abs(float(one[2]) - float(two[2])) <= 0.1 for one, two in zip(own, other, strict=True))
    assert [found[0] for found in own] == [str(found) for found in sorted(images.rglob("*.png"))]


@pytest.mark.parametrize("format", list(SUFFIXES))
def test_a_file_is_verified(metadarts, shipped, format):
    answer = metadarts("export", "--verify", shipped[format][0])
    assert answer.code == 0, answer.err
    assert "2 classes: ant, bee" in answer.out
    assert "the largest difference from the logits that it carries is" in answer.out


def test_accuracy_where_folders_are_named_as_classes(metadarts, task, images, tmp_path):
    answer = metadarts("predict", task, images)
    right = sum(Path(path).parent.name == found for path, found, _ in predictions(answer))
    assert f"accuracy {right / 9:.2%} ({right} of 9 images in folders named as a class;" in answer.out
    shutil.copy(images / "ant" / "00.png", tmp_path / "unknown.png")
    answer = metadarts("predict", task, tmp_path / "unknown.png", tmp_path / "unknown.png")
    assert len(predictions(answer)) == 2
    assert "images in folders" not in answer.out


def test_another_finish_of_the_folder(metadarts, refused, task, shipped, images, tmp_path):
    image = images / "ant" / "00.png"
    first, same, other = (
        predictions(metadarts("predict", task, image, *more))
        for more in ((), ("--finish", "inherited"), ("--finish", "supernet"))
    )
    assert first == same
    assert other != first or other[0][0] == str(image)
    assert "was not finished as 'retrained'" in refused("predict", task, image, "--finish", "retrained")
    assert "--finish chooses among" in refused("predict", shipped["onnx"][0], image, "--finish", "supernet")
    assert "not finished as" in refused("export", task, "--out", tmp_path / "a.onnx", "--finish", "retrained")
    assert not list(tmp_path.iterdir())


def test_a_device_is_for_task_folders(metadarts, refused, task, shipped, images):
    image = images / "ant" / "00.png"
    assert metadarts("predict", task, image, "--device", "auto").code == 0
    assert metadarts("predict", shipped["onnx"][0], image, "--device", "auto").code == 0
    assert "unknown device 'tpu'" in refused("predict", task, image, "--device", "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(refused, task, images):
    assert "sees no CUDA device" in refused("predict", task, images / "ant" / "00.png", "--device", "cuda")


def test_images_in_colour_of_other_sizes(metadarts, task, tmp_path):
    Image.new("RGB", (70, 30), "red").save(tmp_path / "a photo.jpg")
    assert len(predictions(metadarts("predict", task, tmp_path / "a photo.jpg"))) == 1


def test_a_file_whose_name_is_not_utf_8(metadarts, task, tmp_path):
    path = tmp_path / "b\udcff.png"
    try:
        Image.new("L", (16, 16)).save(path)
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    assert "b\\udcff.png: " in metadarts("predict", task, path).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "{task}", "/nowhere.png"), "there is no image /nowhere.png"),
        (("predict", "{task}", "{tmp}"), "there is no image in"),
        (("predict", "{task}", "{task}/task.json"), "cannot decode the image"),
        (("predict", "{tmp}", "{image}"), "expected a name ending in|there is no file"),
        (("predict", "/nowhere", "{image}"), "there is no file /nowhere"),
        (("predict", "{image}", "{image}"), "expected a name ending in"),
        (("predict", "x" * 300, "{image}"), "cannot open|there is no file"),
        (("export",), "export needs a task folder and --out FILE, or --verify FILE"),
        (("export", "{task}"), "export needs a task folder and --out FILE"),
        (("export", "--verify", "{image}", "--out", "{tmp}/a.onnx"), "--verify FILE checks a file and writes none"),
        (("export", "--verify", "{image}"), "expected a name ending in"),
        (("export", "--verify", "/nowhere.onnx"), "there is no file"),
        (("export", "{tmp}", "--out", "{tmp}/a.onnx"), "cannot be read"),
        (("export", "{task}", "--out", "{tmp}/a.onnx", "--format", "onxx"), "did you mean 'onnx'?"),
        (("export", "{task}", "--out", "{tmp}/a.pt2", "--format", "onnx"), "a onnx file's name ends in .onnx"),
        (("export", "--verify", "{image}", "--finish", "supernet"), "leave out the task and the other options"),
        (("export", "{task}", "--out", "{task}/task.json/a.onnx"), "cannot write"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(refused, task, images, tmp_path, words, said):
    places = {"task": task, "tmp": tmp_path, "image": images / "ant" / "00.png"}
    line = refused(*[word.format(**places) for word in words])
    assert any(part in line for part in said.split("|")), line
    assert not list(tmp_path.iterdir())


def test_a_damaged_task_folder(refused, task, images, tmp_path):
    copy = shutil.copytree(task, tmp_path / "copy")
    tensors = copy / "task.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    for words in (("predict", copy, images), ("export", copy, "--out", tmp_path / "a.onnx")):
        assert "is damaged: its hash is not the one in task.json" in refused(*words)
    (copy / "task.json").write_text("{}")
    assert "format: expected 'metadarts.task'" in refused("predict", copy, images)


def test_a_damaged_file(refused, shipped, images, tmp_path):
    for format in ("safetensors", "onnx"):
        path = shipped[format][0]
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-50])
        refused("predict", tmp_path / path.name, images)
        refused("export", "--verify", tmp_path / path.name)
