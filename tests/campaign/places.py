"""Cases of folders that are read, destinations that are written, names, and files that are not what they were."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metadarts.core.text import visible
from metadarts.fewshot.labelled import hold_out, read_labelled

from .forms import Draw, pictures
from .stage import UNFINISHED, Answer, Stage, require

Junk = Callable[[Draw, Path], None]


def save(draw: Draw, path: Path, side: int | None = None) -> None:
    """Write a picture of a class of its own."""
    (image,) = pictures(draw, 1, False, side)
    Image.fromarray(image).save(path)


# --- folders that are read ---


def _hidden(draw: Draw, folder: Path) -> None:
    save(draw, folder / f".hidden{draw.integers(9)}.png")


def _apple(draw: Draw, folder: Path) -> None:
    (folder / "._0.png").write_bytes(b"Mac OS X")


def _notebook(draw: Draw, folder: Path) -> None:
    (folder / ".ipynb_checkpoints").mkdir()
    save(draw, folder / ".ipynb_checkpoints" / "0-checkpoint.png")


def _text(draw: Draw, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def _empty_folder(draw: Draw, folder: Path) -> None:
    (folder / "later").mkdir()


def _thumbs(draw: Draw, folder: Path) -> None:
    (folder / "Thumbs.db").write_bytes(b"\0\1")


def _unread(draw: Draw, folder: Path) -> None:
    (folder / f"photo{draw.choice(['.heic', '.HEIF', '.nef', '.svg'])}").write_bytes(b"\0" * 100)


def _torn(draw: Draw, folder: Path) -> None:
    path = folder / "torn.png"
    save(draw, path)
    path.write_bytes(path.read_bytes()[: int(draw.integers(1, 60))])


def _nothing(draw: Draw, folder: Path) -> None:
    (folder / "nothing.jpg").touch()


def _no_image(draw: Draw, folder: Path) -> None:
    (folder / "text.png").write_text("not an image")


def _pipe(draw: Draw, folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


def _circle(draw: Draw, folder: Path) -> None:
    (folder / "circle").symlink_to(folder, target_is_directory=True)


def _nowhere(draw: Draw, folder: Path) -> None:
    (folder / "nowhere.png").symlink_to(folder / "gone.png")


PASSED_OVER: tuple[Junk, ...] = (_hidden, _apple, _notebook, _text, _empty_folder, _thumbs)
"""What is in people's folders and is no image of theirs."""
TOLD: dict[Junk, str] = {
    _unread: "photo", _torn: "torn.png", _nothing: "nothing.jpg", _no_image: "text.png", _pipe: "pipe.png",
    _circle: "circle", _nowhere: "nowhere.png",
}  # fmt: skip
"""What must not be passed over without a word -> the name that the words must have."""


def class_folders(draw: Draw, root: Path, names: Sequence[str], fewest: int = 2) -> dict[str, int]:
    """Folders of images, some of them in folders inside; how many each class has."""
    counts = {}
    for name in names:
        inner = root / name / "more" if draw.integers(4) == 0 else root / name
        inner.mkdir(parents=True)
        counts[name] = int(draw.integers(fewest, fewest + 4))
        for number in range(counts[name]):
            suffix = str(draw.choice([".png", ".PNG", ".bmp", ".jpg", ".webp", ".gif"]))
            save(draw, inner / f"{number}{suffix}")
    return counts


def folders(draw: Draw, stage: Stage) -> None:
    """A folder of classes with other things in it: the classes and counts are right, or the thing is named."""
    root = stage.place / "mine"
    names = [str(name) for name in draw.choice(["ant", "bee", "Cat", "dog 2", "été", "日本"], 3, replace=False)]
    counts = class_folders(draw, root, names)
    places = [root, *(root / name for name in names)]
    for junk in draw.permutation(np.array(PASSED_OVER, dtype=object))[: int(draw.integers(4))]:
        junk(draw, places[int(draw.integers(len(places)))])
    told = None
    if draw.integers(3) == 0:
        junk = list(TOLD)[int(draw.integers(len(TOLD)))]
        junk(draw, places[int(draw.integers(1, len(places)))])
        told = TOLD[junk]
    verb = str(draw.choice(["adapt", "adapt", "predict", "metamodel predict", "search"]))
    words: dict[str, list[object]] = {
        "adapt": [
            "adapt", stage.shared / "grey.safetensors", "--images", root, "--out", stage.place / "out", "--steps", 0,
            "--held-out", 0,
        ],
        "predict": ["predict", stage.shared / "task-grey", root],
        "metamodel predict": [
            "metamodel", "predict", stage.shared / "m.safetensors", "--images", root, "--start", stage.shared / "run",
        ],
        "search": ["search", "--data", root, "--out", stage.place / "out", "--ways", 2, "--meta-steps", 1],
    }  # fmt: skip
    answer = stage.call(*words[verb], writes=(stage.place / "out",))
    if told is not None:
        require(told in answer.out + answer.err, "passed over without a word", verb, told, answer)
        return
    if verb == "search":  # three classes are too few for three splits of tasks
        require(answer.code == 2, "an answer", answer)
        return
    require(answer.code == 0, "refused", verb, answer)
    if verb == "adapt":
        (line,) = [line for line in answer.out.splitlines() if line.startswith("images to learn from: ")]
        expected = ", ".join(f"{name} {counts[name]}" for name in sorted(counts))
        require(line.removeprefix("images to learn from: ") == expected, "counts", line, expected)
    elif verb == "predict":
        lines = [line for line in answer.out.splitlines() if re.search(r": \w+ \([\d.]+%\)$", line)]
        require(len(lines) == sum(counts.values()), "images", len(lines), counts, answer.out)


def copies(draw: Draw, stage: Stage) -> None:
    """Copies of images: within a class all learnt from or all held out, across classes told of."""
    root = stage.place / "mine"
    class_folders(draw, root, ["ant", "bee"], 3)
    across = bool(draw.integers(2))
    source = next(path for path in sorted((root / "ant").rglob("*")) if path.is_file())
    for number in range(int(draw.integers(1, 4))):
        (root / ("bee" if across else "ant") / f"copy{number}{source.suffix}").write_bytes(source.read_bytes())
    out = stage.place / "out"
    answer = stage.call(
        "adapt", stage.shared / "grey.safetensors", "--images", root, "--out", out, "--steps", 0, "--threads", 1,
        "--held-out", str(draw.choice(["0.25", "0.5"])), "--seed", int(draw.integers(100)), writes=(out,), codes=(0,),
    )  # fmt: skip
    require(("belong to several classes" in answer.out) == across, "copies across classes", across, answer.out)
    if not across:
        require("copies of another of their class" in answer.out, "copies within a class", answer.out)
    learnt, held = hold_out(read_labelled(root), 0.25, None, int(draw.integers(100)))
    for label in range(2):
        sides = [{one.contents[row] for row in np.flatnonzero(one.labels == label)} for one in (learnt, held)]
        require(not sides[0] & sides[1], "a copy is learnt from and measured on", label)


def splits(draw: Draw, stage: Stage) -> None:
    """Folders of splits in place of classes are told of, whatever they are called."""
    names = [str(name) for name in draw.choice(["train", "val", "Test", "valid", "training"], 2, replace=False)]
    for name in names:
        class_folders(draw, stage.place / "mine" / name, ["ant", "bee"])
    answer = stage.call(
        "adapt", stage.shared / "grey.safetensors", "--images", stage.place / "mine", "--out", stage.place / "out",
    )  # fmt: skip
    require(answer.code == 2 and "look like splits" in answer.err, "splits", names, answer)


# --- destinations ---


def _foreign_file(path: Path) -> None:
    path.write_text("mine")


def _foreign_json(path: Path) -> None:
    path.write_text('{"mine": 1}\n')


def _foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def _empty(path: Path) -> None:
    path.mkdir()


def _link_to_file(path: Path) -> None:
    (path.parent / "target").write_text("mine")
    path.symlink_to("target")


def _link_to_folder(path: Path) -> None:
    _foreign_folder(path.parent / "target")
    path.symlink_to("target")


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("gone/far")


def _there_is_nothing(path: Path) -> None:
    pass


TAKEN: tuple[Callable[[Path], None], ...] = (
    _foreign_file, _foreign_json, _foreign_folder, _empty, _link_to_file, _link_to_folder, _link_to_nothing,
    _there_is_nothing,
)  # fmt: skip


def _writers(stage: Stage, out: Path) -> dict[str, list[object]]:
    """Every verb that writes -> its words with the destination ``out``."""
    shared = stage.shared
    return {
        "adapt": [
            "adapt", shared / "grey.safetensors", "--images", shared / "zoo-grey", "--out", out, "--steps", 0,
        ],
        "archive add": ["archive", "add", out, "--run", shared / "run", "--tasks", 1, "--device", "cpu"],
        "archive merge": ["archive", "merge", out, shared / "a.sqlite"],
        "diagnose": ["diagnose", shared / "run", "--out", out, "--tasks", 2],
        "evaluate": ["evaluate", shared / "run", "--tasks", 2, "--json", out],
        "export": ["export", shared / "task-grey", "--out", out],
        "metamodel train": [
            "metamodel", "train", shared / "a.sqlite", "--out", out, "--start", shared / "run", "--epochs", 1,
            "--data-root", shared / "photos",
        ],
        "metamodel predict": [
            "metamodel", "predict", shared / "m.safetensors", "--images", shared / "zoo-grey", "--start",
            shared / "run", "--json", out,
        ],
        "report": ["report", shared / "run", "--out", out],
        "reproduce": ["reproduce", "glyphs", "--out", out, "--stop-after", 0.01, "--device", "cpu"],
        "results": ["results", shared / "run", "--out", out],
        "search": [
            "search", "--data", shared / "photos", "--ways", 2, "--out", out, "--meta-steps", 1, "--preset",
            "quick-supernet", "--set", "macro.channels=4", "--set", "space.nodes=2", "--set", "model.stem=[4, 6]",
            "--set", "training.validation_tasks=2", "--set", "tasks.queries=2", "--set", "evaluate.queries=2",
            "--set", "inner.steps=1", "--set", "training.tasks=1", "--order", "first", "--device", "cpu",
        ],
    }  # fmt: skip


NAMES = ("out", "out.json", "out.onnx", "out.safetensors", "out.py", "out.html", "out.sqlite", "out.md", "été 日本")


def destinations(draw: Draw, stage: Stage) -> None:
    """A destination in any state: what is not metadarts' own is not changed, also where a link leads to it."""
    name = str(draw.choice(NAMES))
    below = int(draw.integers(6))
    out = stage.place / name if below else stage.place / "file" / name
    (stage.place / "file").write_text("mine")
    state = TAKEN[int(draw.integers(len(TAKEN)))]
    if below:
        state(out)
    writers = _writers(stage, out)
    verb = str(draw.choice(list(writers)))
    if verb == "reproduce" and below and state in (_empty, _there_is_nothing):
        verb = "search"  # the other would train for minutes
    shared = [stage.shared / "run", stage.shared / "task-grey"]
    before = [sorted(path.name for path in folder.iterdir()) for folder in shared]
    answer = stage.call(*writers[verb], writes=_written(out, verb), codes=(0, 2, UNFINISHED))
    require(below > 0 or answer.code == 2, "written below a file", verb, answer)
    require(before == [sorted(path.name for path in folder.iterdir()) for folder in shared], "written elsewhere", verb)


def _written(out: Path, verb: str) -> tuple[Path, ...]:
    """The files and folders that a verb may make for the destination ``out``."""
    beside = {
        "archive add": (f"{out.name}-wal", f"{out.name}-shm"),
        "archive merge": (f"{out.name}-wal", f"{out.name}-shm"),
        "diagnose": (f"{out.stem}.md", f"{out.stem}.png", f"{out.stem}.json"),
        "export": (f"{out.stem}.safetensors",),
        "results": (f"{out.stem}.md", f"{out.stem}.json", f"{out.stem}.png"),
    }
    return (out, *(out.with_name(name) for name in beside.get(verb, ())))


# --- names ---

NASTY = (
    "a\x1b[31mred", "a\x07bell", "two\nlines", "tab\there", "over\rwritten", "\x1b]0;owned\x07", "turned\u202egnp.",
    "zero\u200bwidth", "[bold]markup[/bold]", "%s %d {0}", "-rf", "--out", "=1+1", "'; drop table", "<b>b</b>", "$(id)",
    "é" * 100, "a" * 200, "日本語", "😀", "\udcff\udcfe", "COM1", " spaces ", "a:b", "a,b", 'quo"ted', "…",
)  # fmt: skip
"""Names that a file system takes."""


def _ordinary(name: str) -> bool:
    """Whether a class name holds no half of a letter, as a file name that is not UTF-8 does."""
    return all(unicodedata.category(letter) != "Cs" for letter in name)


def names(draw: Draw, stage: Stage) -> None:
    """Class and file names of any kind, through adapt, predict and export."""
    root, out = stage.place / "mine", stage.place / "out"
    chosen = [str(name).replace("/", "|") for name in draw.choice(NASTY, 2, replace=False)] + ["ant"]
    for name in chosen:
        (root / name).mkdir(parents=True)
        for number in range(2):
            file = str(draw.choice(NASTY)).replace("/", "|") if draw.integers(3) == 0 else f"{number}"
            save(draw, root / name / f"{file[:60]}{number}.png")
    answer = stage.call(
        "adapt", stage.shared / "grey.safetensors", "--images", root, "--out", out, "--steps", 0, "--held-out",
        int(draw.integers(2)) * 0.5, writes=(out,),
    )  # fmt: skip
    if answer.code == 2:
        require(not all(map(_ordinary, chosen)), "refused", chosen, answer)
        return
    said = stage.call("predict", out, root, codes=(0,)).out
    require(len(re.findall(r"\([\d.]+%\)$", said, re.M)) == 6, "images", said)
    suffix = str(draw.choice([".safetensors"] * 4 + [".onnx"] + [".py"] * 3))  # ONNX takes seconds
    model = stage.place / f"model{suffix}"
    written = (model, model.with_suffix(".safetensors")) if suffix == ".py" else (model,)
    stage.call("export", out, "--out", model, writes=written, codes=(0,))
    again = stage.call("predict", model, root, codes=(0,)).out
    require(again == said, "the exported file answers otherwise", suffix, said, again)


def labels(draw: Draw, stage: Stage) -> None:
    """Labels of any kind in a table of files and in an .npz."""
    chosen = [str(name).replace("\udcff\udcfe", "x") for name in draw.choice(NASTY, 3, replace=False)]
    label = np.array([0, 1, 2, 0, 1, 2])
    np.savez(stage.place / "a.npz", images=pictures(draw, 6, False), label=label, class_names=np.array(chosen))
    out = stage.place / "out"
    answer = stage.call(
        "adapt", stage.shared / "grey.safetensors", "--images", stage.place / "a.npz", "--out", out, "--steps", 0,
        "--held-out", 0, writes=(out,),
    )  # fmt: skip
    require(answer.code == 0 or not all(map(_ordinary, chosen)), "refused", chosen, answer)
    if answer.code == 0:
        told = json.loads((out / "task.json").read_text(encoding="utf-8"))
        require(told["classes"] == sorted(chosen), "classes", told["classes"], chosen)
        require(all(visible(name) in answer.out for name in chosen), "not named", chosen, answer.out)


def wrong_words(draw: Draw, stage: Stage) -> None:
    """Nasty names in place of paths, presets and settings."""
    name = str(draw.choice(NASTY)).removeprefix("-").removeprefix("-")
    run, task = stage.shared / "run", stage.shared / "task-grey"
    options: list[list[object]] = [
        ["evaluate", name], ["predict", name, "x.png"], ["predict", task, stage.place / name], ["report", name],
        ["evaluate", run, "--split", name], ["evaluate", run, "--data", name], ["derive", run, "--rule", name],
        ["search", "--out", stage.place / "out", "--data", name],
        ["search", "--out", stage.place / "out", "--preset", name],
        ["search", "--out", stage.place / "out", "--set", f"{name}=1"],
        ["search", "--out", stage.place / "out", "--set", f"tasks.source={name}"],
        ["export", task, "--out", stage.place / "x.onnx", "--finish", name],
        ["export", task, "--out", stage.place / "x", "--format", name],
        ["adapt", name, "--images", stage.shared / "zoo-grey", "--out", stage.place / "out"],
        ["adapt", "auto", "--images", name, "--out", stage.place / "out"],
        ["archive", "ls", name], ["archive", "merge", stage.place / "x", name], ["metamodel", "predict", name],
        ["reproduce", name], ["metamodel", "evaluate", name], ["diagnose", name], ["results", name],
        ["reproduce", "glyphs", "--out", stage.place / "out", "--budget", name],
    ]  # fmt: skip
    words = options[int(draw.integers(len(options)))]
    if words[:2] == ["metamodel", "predict"]:
        words += ["--images", stage.shared / "zoo-grey"]
    stage.call(*words, codes=(2,))


# --- files that are not what they were ---


def damaged(draw: Draw, stage: Stage) -> None:
    """A file of a task, a model, a run, an archive or a meta-model with bytes changed, lost or added: refused, or the
    answer of the whole one.
    """
    readers: dict[str, tuple[str, list[object]]] = {
        "task": ("task-grey", ["predict", "{}", stage.shared / "zoo-grey"]),
        "onnx": ("model-grey.onnx", ["predict", "{}", stage.shared / "zoo-grey"]),
        "safetensors": ("model-grey.safetensors", ["predict", "{}", stage.shared / "zoo-grey"]),
        "pt2": ("model-grey.pt2", ["predict", "{}", stage.shared / "zoo-grey"]),
        "run": ("run", ["evaluate", "{}", "--tasks", 2, "--device", "cpu", "--json", stage.place / "out"]),
        "start": (
            "grey.safetensors",
            ["adapt", "{}", "--images", stage.shared / "zoo-grey", "--out", stage.place / "out", "--steps", 0],
        ),
        "archive": ("a.sqlite", ["archive", "ls", "{}", "--limit", 3]),
        "model": (
            "m.safetensors",
            [
                "metamodel", "predict", "{}", "--images", stage.shared / "zoo-grey", "--start", stage.shared / "run",
            ],
        ),
    }  # fmt: skip
    name, words = readers[str(draw.choice(list(readers)))]
    copy = stage.copy(name)
    called = [copy if word == "{}" else word for word in words]
    out = stage.place / "out"
    whole = stage.call(*called, writes=(out,), codes=(0,))
    if out.exists():
        out.rename(stage.place / "whole")
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()] if copy.is_dir() else [copy]
    file = files[int(draw.integers(len(files)))]
    _spoil(draw, file)
    answer = stage.call(*called, writes=(out,))
    if answer.code == 0 and file.suffix not in (".png", ".svg", ".yaml", ".jsonl"):
        require(_results(answer) == _results(whole), "another answer", file.name, _results(whole), _results(answer))


def _results(answer: Answer) -> list[str]:
    """The lines of an answer that do not depend on the clock."""
    return [line for line in answer.out.splitlines() if not re.search(r"\d s\b|second|steps/s|tasks/s|warning", line)]


def _spoil(draw: Draw, file: Path) -> None:
    content = bytearray(file.read_bytes())
    how = int(draw.integers(4))
    place = int(draw.integers(len(content))) if content else 0
    if how == 0:
        content = content[:place]
    elif how == 1 and content:
        content[place] ^= 1 << int(draw.integers(8))
    elif how == 2:
        content[place:place] = draw.bytes(int(draw.integers(1, 9)))
    else:
        content[place : place + 64] = draw.bytes(64)
    file.write_bytes(bytes(content))


FOREIGN = (
    "create trigger t after insert on {table} begin delete from {table}; end",
    "create view v as select 1",
    "create table t (a)",
    "create index i on {table} (source)",
    "alter table {table} add column more",
    "create trigger t before update on {table} begin select load_extension('x'); end",
    "drop table {table}",
    "pragma user_version = 77",
    "pragma application_id = 77",
)


def archives(draw: Draw, stage: Stage) -> None:
    """An SQLite file of somebody else, or one whose schema was changed, is refused by all verbs that read archives."""
    file = stage.copy("a.sqlite")
    statement = str(draw.choice(FOREIGN))
    database = sqlite3.connect(file)
    database.execute(statement.format(table="experience"))
    database.commit()
    database.close()
    words: list[list[object]] = [
        ["archive", "ls", file], ["archive", "verify", file], ["archive", "merge", stage.place / "into", file],
        ["archive", "merge", file, stage.shared / "a.sqlite"],
        ["archive", "add", file, "--run", stage.shared / "run", "--tasks", 4, "--device", "cpu"],
        ["metamodel", "train", file, "--out", stage.place / "m.safetensors", "--start", stage.shared / "run"],
    ]  # fmt: skip
    answer = stage.call(*words[int(draw.integers(len(words)))], codes=(2,))
    reasons = ("restore it", "is not an archive", "this metadarts reads version")
    require(any(reason in answer.err for reason in reasons), "refused for another reason", answer)
