"""``metadarts adapt`` end to end on a few made-up images and a start that no training made."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metadarts.cli.signals import StopRequest
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.folder import load_task
from metadarts.networks import Learner

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
COUNTS = {"ant": 4, "bee": 6, "cat": 9}


@pytest.fixture(scope="session")
def cases():
    """What the tests of the Python interface are made of."""
    path = Path(__file__).parents[1] / "fewshot" / "cases.py"
    spec = importlib.util.spec_from_file_location("api_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def grey(cases, tmp_path_factory):
    return cases.save_start(cases.make_start(1), tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="session")
def zoo(cases, tmp_path_factory):
    """Three classes of 4, 6 and 9 images of different sizes."""
    return cases.save_pictures(tmp_path_factory.mktemp("images") / "zoo", COUNTS)


def test_a_folder_and_all_finishes(metadarts, grey, zoo, tmp_path):
    out = tmp_path / "deep" / "task"
    answer = metadarts(
        "adapt", grey, "--images", zoo, "--out", out, "--steps", 2, "--finish", "all", "--more-steps", 1, "--threads", 1
    )
    assert answer.code == 0, answer.err
    assert (
        "3 classes, 3 to 7 images each to learn from (14 in all), 5 held out; start tiny1.safetensors: 16x16, grey"
        in (answer.out)
    )
    assert "were brought to 16x16 pixels, the middle square of each" in answer.out
    assert len(re.findall(r"^  step +\d  support loss +[\d.]+  held-out accuracy +[\d.]+%", answer.out, re.M)) == 3
    for name, gaps in (("supernet", 0), ("inherited", 1), ("retrained", 1)):
        (line,) = re.findall(rf"^  {name} +[\d.]+% \([\d.]+% to [\d.]+%\).*$", answer.out, re.M)
        assert len(re.findall(r"gap to supernet [+-][\d.]+%", line)) == gaps
        assert re.search(r"[\d,]+ weights, [\d.]+ MFLOPs an image", line)
    assert "with batch statistics of the held-out images" in answer.out
    assert "logistic regression on pixels" in answer.out
    assert "nearest class mean on pixels" in answer.out
    assert sorted(path.name for path in out.iterdir()) == [
        "cells.png", "cells.svg", "predictions.png", "task.json", "task.safetensors",
    ]  # fmt: skip
    for name in ("cells.png", "predictions.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
    assert b"<svg" in (out / "cells.svg").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["task"]
    told = json.loads((out / "task.json").read_text())
    assert told["classes"] == list(COUNTS)
    assert list(told["solutions"]) == ["supernet", "inherited", "retrained"]
    assert [len(told["solutions"][name]["history"]) for name in told["solutions"]] == [3, 2, 2]
    assert set(told["measured"]) == {"supernet", "inherited", "retrained"}
    assert set(told["baselines"]) == {"logistic regression on pixels", "nearest class mean on pixels"}
    assert str(tmp_path) not in (out / "task.json").read_text()
    assert FewShotClassifier.load(out).finish_ == "supernet"


def test_one_finish_is_what_the_folder_answers_first(metadarts, grey, zoo, tmp_path):
    answer = metadarts("adapt", grey, "--images", zoo, "--out", tmp_path / "a", "--steps", 1, "--finish", "inherited")
    assert answer.code == 0, answer.err
    task = load_task(tmp_path / "a")
    assert list(task.solutions) == ["inherited", "supernet"]
    loaded = FewShotClassifier.load(tmp_path / "a")
    assert loaded.finish_ == "inherited"
    assert loaded.genotype_ == task.solution("inherited").network.genotype


@pytest.mark.parametrize("finish", ["inherited", "retrained"])
def test_the_command_line_and_the_estimator_learn_the_same_to_the_bit(metadarts, cases, grey, tmp_path, finish):
    pixels, labels = cases.images((4, 5))
    np.savez(tmp_path / "mine.npz", images=pixels, label=labels)
    words = ("adapt", grey, "--images", tmp_path / "mine.npz", "--held-out", 0, "--steps", 2, "--seed", 5)
    answer = metadarts(*words, "--finish", finish, "--more-steps", 3, "--out", tmp_path / "a")
    assert answer.code == 0, answer.err
    fitted = FewShotClassifier(grey, steps=2, random_state=5).fit(pixels, labels).discretise(finish, 3)
    ours, theirs = load_task(tmp_path / "a"), fitted.task_
    assert list(ours.solutions) == list(theirs.solutions) == [finish, "supernet"]
    for name, solution in ours.solutions.items():
        own = theirs.solution(name)
        assert [step.loss for step in own.history] == [step.loss for step in solution.history]
        assert all(torch.equal(own.params[key], solution.params[key]) for key in own.params | solution.params)
    assert torch.equal(ours.support.pixels, theirs.support.pixels)
    assert ours.facts["start"] == theirs.facts["start"]


def test_finishes_under_the_names_of_version_0_1(metadarts, grey, zoo, tmp_path):
    words = ("adapt", grey, "--images", zoo, "--steps", 1, "--more-steps", 1, "--held-out", 0)
    assert metadarts(*words, "--out", tmp_path / "a", "--finish", "scratch").code == 0
    assert list(load_task(tmp_path / "a").solutions) == ["retrained", "supernet"]
    assert metadarts("predict", tmp_path / "a", zoo / "ant", "--finish", "soft").code == 0


def test_the_same_seed_gives_the_same_task(metadarts, grey, zoo, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            metadarts("adapt", grey, "--images", zoo, "--out", tmp_path / name, "--steps", 1, "--seed", seed).code == 0
        )
    contents = [(tmp_path / name / "task.safetensors").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_a_csv_file_and_an_npz_file(metadarts, cases, grey, zoo, tmp_path):
    lines = [f'"{path}",{path.parent.name}' for path in sorted(zoo.rglob("*.png"))]
    (tmp_path / "my list.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    pixels, labels = cases.images((4, 5))
    np.savez(tmp_path / "mine.npz", images=pixels, label=labels)
    for name, said in (("my list.csv", "3 classes, 2 images each"), ("mine.npz", "2 classes, 2 images each")):
        out = tmp_path / f"task of {name}"
        answer = metadarts("adapt", grey, "--images", tmp_path / name, "--out", out, "--steps", 1, "--shots", 2)
        assert answer.code == 0, answer.err
        assert said in answer.out
        assert (out / "predictions.png").is_file()


def test_the_images_of_a_csv_file_are_those_of_the_folder(metadarts, grey, zoo, tmp_path):
    lines = [f"{path},{path.parent.name}" for path in sorted(zoo.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for images, name in ((zoo, "a"), (tmp_path / "list.csv", "b")):
        assert metadarts("adapt", grey, "--images", images, "--out", tmp_path / name, "--steps", 1).code == 0
    tensors = [(tmp_path / name / "task.safetensors").read_bytes() for name in "ab"]
    assert tensors[0] == tensors[1]


def test_nothing_held_out_and_nothing_measured(metadarts, grey, zoo, tmp_path):
    answer = metadarts("adapt", grey, "--images", zoo, "--out", tmp_path / "a", "--steps", 1, "--held-out", 0)
    assert answer.code == 0, answer.err
    assert "4 to 9 images each to learn from (19 in all), 0 held out" in answer.out
    assert "held-out accuracy" not in answer.out
    assert re.search(r"supernet +support loss [\d.]+ +[\d,]+ weights, [\d.]+ MFLOPs an image", answer.out)
    assert not (tmp_path / "a" / "predictions.png").exists()
    assert set(json.loads((tmp_path / "a" / "task.json").read_text())["measured"]["supernet"]) == {"weights", "flops"}


def test_time_that_is_up(metadarts, grey, zoo, tmp_path):
    answer = metadarts("adapt", grey, "--images", zoo, "--out", tmp_path / "a", "--steps", 100000, "--seconds", 0.3)
    assert answer.code == 0, answer.err
    assert re.search(r"stopped after \d+ of 100000 steps: time is up", answer.out)


def test_a_loss_that_explodes_is_told_from_time_that_is_up(metadarts, grey, zoo, tmp_path, monkeypatch):
    losses, support_loss = iter([1.0, 2.0, math.nan]), Learner.support_loss
    monkeypatch.setattr(
        Learner,
        "support_loss",
        lambda *given: support_loss(*given) if torch.is_grad_enabled() else torch.tensor([next(losses)]),
    )
    words = ("adapt", grey, "--images", zoo, "--steps", 5, "--seconds", 100)
    answer = metadarts(*words, "--out", tmp_path / "a")
    assert answer.code == 0, answer.err
    assert "stopped after 2 of 5 steps: the loss left the finite numbers" in answer.out
    assert "kept: the state after step 0, whose support loss is the lowest" in answer.out
    assert load_task(tmp_path / "a").solution().kept == 0


def test_flat_colours_need_no_search(metadarts, grey, tmp_path):
    for number, name in enumerate(("black", "grey", "white")):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for place in range(4):
            Image.new("L", (16, 16), 120 * number + place).save(tmp_path / "flat" / name / f"{place}.png")
    answer = metadarts("adapt", grey, "--images", tmp_path / "flat", "--out", tmp_path / "a", "--steps", 1)
    assert answer.code == 0, answer.err
    assert re.search(r"on pixels does as well \(100\.0% against [\d.]+%\): this task needs no search", answer.out)


def test_more_than_64_images(metadarts, cases, grey, tmp_path):
    pixels, labels = cases.images((50, 50))
    np.savez(tmp_path / "many.npz", images=pixels, label=labels)
    answer = metadarts("adapt", grey, "--images", tmp_path / "many.npz", "--out", tmp_path / "a", "--steps", 2)
    assert answer.code == 0, answer.err
    assert "(76 in all), 24 held out" in answer.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--finish", "suprnet"), "finish 'suprnet' is unknown; did you mean 'supernet'?"),
        pytest.param(("--device", "cuda"), "sees no CUDA device; use --device cpu or auto", marks=NO_CUDA),
        (("--precision", "bf16"), "leave out --precision"),
        (("--device", "tpu"), "unknown device 'tpu': valid names: auto, cpu, cuda"),
        (("--more-steps", "2"), "--more-steps are those of a derived cell"),
        (("--shots", "2", "--held-out", "0.5"), "give --held-out or --shots, not both"),
        (("--shots", "4"), "class 'ant' has 4 image(s): with 4 to learn from none is left to measure on"),
        (("--images", "/nowhere"), "/nowhere: there is nothing; expected a folder of class folders"),
        (("--out", "x" * 300), "cannot write"),
    ],
)
def test_options_that_cannot_be(refused, grey, zoo, tmp_path, more, words):
    assert words in refused("adapt", grey, "--images", zoo, "--out", tmp_path / "a", "--steps", 1, *more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--seconds", "--held-out"])
def test_numbers_that_are_none(metadarts, grey, zoo, tmp_path, option):
    answer = metadarts("adapt", grey, "--images", zoo, "--out", tmp_path / "a", option, "nan")
    assert (answer.code, "Traceback" in answer.err) == (2, False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", ["glyps", "/nowhere/start", ""])
def test_a_start_that_is_none(refused, zoo, tmp_path, start):
    refused("adapt", start, "--images", zoo, "--out", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_before_images_are_read(refused, grey, tmp_path):
    (tmp_path / "a").mkdir()
    assert f"{tmp_path / 'a'} exists" in refused("adapt", grey, "--images", tmp_path, "--out", tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("held_out", [0, 0.5])
@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_a_broken_image_is_named_and_nothing_is_written(refused, cases, grey, tmp_path, how, held_out):
    images = cases.save_pictures(tmp_path / "images", {"a": 2, "b": 2})
    broken = [images / "a" / "00.png", images / "a" / "01.png"]  # one of the two is held out
    content = broken[0].read_bytes()
    for path in broken:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no image"}[how])
    line = refused("adapt", grey, "--images", images, "--out", tmp_path / "out" / "a", "--held-out", held_out)
    assert "cannot decode the image" in line
    assert any(str(path) in line for path in broken)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_broken_image_among_the_held_out_ones(refused, cases, grey, tmp_path):
    images = cases.save_pictures(tmp_path / "images", {"a": 4, "b": 4})
    for path in images.rglob("*.png"):
        whole = path.read_bytes()
        path.write_bytes(b"")
        assert str(path) in refused("adapt", grey, "--images", images, "--out", tmp_path / "out")
        path.write_bytes(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("count", "words"), [(1, "expected 2 to 20 classes, got 1"), (21, "expected 2 to 20 classes, got 21")]
)
def test_too_few_and_too_many_classes(refused, grey, tmp_path, count, words):
    for number in range(count):
        (tmp_path / "images" / f"class {number}").mkdir(parents=True)
        for place in range(2):
            Image.new("L", (16, 16), 10 * number + place).save(tmp_path / "images" / f"class {number}" / f"{place}.png")
    assert words in refused("adapt", grey, "--images", tmp_path / "images", "--out", tmp_path / "a", "--shots", 1)
    assert not (tmp_path / "a").exists()


def test_a_class_whose_name_cannot_be_printed(refused, cases, grey, tmp_path):
    images = cases.save_pictures(tmp_path / "images", {"a": 2, "b": 2})
    try:
        (images / "b").rename(images / "b\udcff")
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    assert "half a letter" in refused("adapt", grey, "--images", images, "--out", tmp_path / "out", "--shots", 1)


def test_names_that_markup_and_formulas_would_trip_over(metadarts, cases, grey, tmp_path):
    names = {"[red]a[bold]": 3, "$x_1$": 3, "Größe 猫": 3}
    images = cases.save_pictures(tmp_path / "images", names)
    answer = metadarts("adapt", grey, "--images", images, "--out", tmp_path / "a", "--steps", 1)
    assert answer.code == 0, answer.err
    assert set(load_task(tmp_path / "a").support.classes) == set(names)


def test_the_installed_program_on_light_drawings(installed, cases, tmp_path):
    dark = cases.save_start(cases.make_start(1, "dark"), tmp_path)
    for number, name in enumerate(("line", "block")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place in range(3):
            pixels = np.full((16, 16, 3), 255, np.uint8)
            pixels[4 + place : 6 + place + 4 * number, 4:12] = 0
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{place}.png")
    answer = installed("adapt", dark, "--images", tmp_path / "images", "--out", tmp_path / "a", "--steps", 1)
    assert (answer.code, answer.err) == (0, "")
    assert "note: 4 of 4 images in colour were made grey" in answer.out
    assert "light background, the start knows a dark one: they are inverted" in answer.out
    assert load_task(tmp_path / "a").support.form.invert


def test_ctrl_c_keeps_what_was_learnt_so_far(metadarts, monkeypatch, grey, zoo, tmp_path):
    class Scripted(StopRequest):
        polls = iter([False, True])

        def __call__(self):
            if self.signal is None and next(self.polls):
                self.signal = signal.SIGINT
            return self.signal is not None

    monkeypatch.setattr(sys.modules["metadarts.cli.adapt"], "stop_on_signals", lambda: nullcontext(Scripted()))
    out = tmp_path / "task"
    answer = metadarts("adapt", grey, "--images", zoo, "--steps", 5, "--finish", "all", "--out", out)
    assert answer.code == 130, answer.err
    assert "stopped after 1 of 5 steps: asked to stop" in answer.out
    assert metadarts("predict", out, zoo).code == 0
    assert list(load_task(out).solutions) == ["supernet"]
