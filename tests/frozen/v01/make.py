"""Make the files of version 0.1 in this folder, and expected.json: what version 0.1 itself says of them.

    export PYTHONPATH=CHECKOUT_OF_V0.1  # then, in this checkout:
    python -c 'import runpy; runpy.run_path("tests/frozen/v01/make.py", run_name="__main__")' FOLDER

Only for the record: a later version cannot make files of version 0.1. It prints every command that it runs.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from benchmarks.frozen import (
    FORMATS,
    Words,
    add_answers,
    add_evaluation,
    call,
    digest,
    environment,
    fixed_batch,
    joint,
    logits_of,
    machine,
    package,
    read_json,
)
from benchmarks.frozen import Found as Facts

CPU = ["--device", "cpu", "--threads", "1"]
TINY = {
    "model.channels": 2,
    "model.nodes": 2,
    "model.stem": "[4, 8]",
    "model.head": "prototype",
    "training.engine": "task_axis",
    "training.tasks": 2,
    "training.validations": 2,
    "training.validation_tasks": 4,
    "tasks.queries": 2,
    "inner.order": "second",
    "inner.steps": 1,
    "inner.learn_rates": "true",
    "inner.granularity": "group",
    "outer.alpha_decay": 0.001,
    "evaluate.steps": 2,
    "evaluate.queries": 3,
}
CLASSES = ("ash", "birch", "cedar")
DROPPED = ("*.png", "*.svg", "events.out.tfevents.*", ".lock")
"""What is taken out of run and task folders, to keep them small: pictures, and what TensorBoard draws."""


def make_images(folder: Path) -> None:
    """Three classes of six grey 28x28 images; image 1 of each shows the next class."""
    draw = np.random.default_rng(1)
    patterns = [draw.integers(0, 16, (7, 7)).repeat(4, 0).repeat(4, 1) for _ in CLASSES]
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = patterns[(label + (number == 1)) % len(CLASSES)] + draw.integers(0, 8, (28, 28))
            Image.fromarray((8 * pixels).astype(np.uint8)).save(folder / name / f"{number}.png", optimize=True)


def sets(**more: object) -> Words:
    """Settings as options; in keywords, `__` stands for a dot."""
    settings = TINY | {name.replace("__", "."): value for name, value in more.items()}
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def say(words: Words) -> Words:
    """Print a command."""
    print("metadarts", shlex.join(words), flush=True)
    return words


def run(folder: Path, *lines: Words) -> list[str]:
    """Print and run commands; what each printed."""
    return call(folder, *map(say, lines))


def interrupt(folder: Path, words: Words, run: Path) -> None:
    """Search, and send SIGINT once a step after the first look at validation is written down."""
    code = "from metadarts.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *say(words)], cwd=folder, env=environment())
    while not re.search('"validate".*"train"', records_text(run), re.DOTALL):
        time.sleep(0.05)
        if process.poll() is not None:
            raise RuntimeError("the search ended before it could be interrupted")
    process.send_signal(signal.SIGINT)
    print("kill -INT, after the first look at validation: exit code", process.wait(), flush=True)


def records_text(run: Path) -> str:
    """metrics.jsonl, empty before it is there."""
    path = run / "metrics.jsonl"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def make(folder: Path) -> None:
    """All files."""
    make_images(folder / "images")
    search = ["search", "--data", "glyphs", "--ways", "3", "--seed", "0", *CPU]
    interrupt(folder, [*search, "--out", "interrupted", *sets(training__meta_steps=40)], folder / "interrupted")
    task = ["--images", "images", "--steps", "2", "--finish", "all", "--more-steps", "2"]
    train = ["archive.sqlite", "--start", "finished", "--epochs", "2", "--out", "metamodel.safetensors"]
    run(
        folder,
        [*search, "--out", "finished", *sets(training__meta_steps=4)],
        ["derive", "finished"],
        ["evaluate", "finished", "--tasks", "6", *CPU],
        ["evaluate", "finished", "--tasks", "4", "--genotype", "finished/genotype.txt", *CPU],
        ["archive", "add", "archive.sqlite", "--run", "finished", "--tasks", "4", *CPU],
        ["adapt", "finished", *task, "--archive", "archive.sqlite", "--out", "task", "--threads", "1"],
        ["metamodel", "train", *train, "--threads", "1"],
        *(
            ["export", "task", "--finish", finish, "--format", form, "--out", place(finish, form), "--threads", "1"]
            for finish, form in exported()
        ),
    )
    shutil.copy(folder / "finished" / "genotype.txt", folder / "genotype.txt")
    shutil.copy(folder / "finished" / "genotype.json", folder / "genotype.json")
    for pattern in DROPPED:
        for path in sorted(folder.rglob(pattern)):
            if not path.is_relative_to(folder / "images"):
                path.unlink()


def place(finish: str, form: str) -> str:
    """Where an exported file lies."""
    return f"exported/{finish}-{form}{FORMATS[form]}"


def exported() -> Iterator[tuple[str, str]]:
    """Finish and format of each exported file."""
    yield from (("inherited", form) for form in FORMATS)
    yield "soft", "safetensors"


# -------------------------------------------------------------------------------------------------- what v0.1 says


def run_facts(run: Path) -> dict[str, Any]:
    """Checkpoints and looks of a run folder. The optimiser's memory has one digest."""
    records = [json.loads(line) for line in records_text(run).splitlines()]
    looks = [record for record in records if record["kind"] == "validate"]
    found: dict[str, Any] = {"looks": [{k: v for k, v in look.items() if k != "seconds"} for look in looks]}
    for name in ("best", "last"):
        (file,) = (run / "checkpoints").glob(f"{name}*.safetensors")
        tensors = load_file(file)
        memory = {key: tensor for key, tensor in tensors.items() if key.startswith("memory/")}
        found[name] = {
            "step": read_json(run / "checkpoints" / f"{name}.json")["step"],
            "tensors": {key: digest(tensor) for key, tensor in sorted(tensors.items()) if key not in memory},
            "memory": joint(memory),
        }
    return found


def answers(said: str) -> dict[str, Any]:
    """What `predict` said of each image."""
    found = Facts()
    add_answers(found, "", said)
    return {name.removeprefix("/"): value for name, value in found.facts.items()}


def evaluation(path: Path) -> dict[str, Any]:
    """What `evaluate` measured."""
    found = Facts()
    add_evaluation(found, "", path)
    return {name.removeprefix("/"): value for name, value in found.facts.items()}


def task_facts(task: Path) -> dict[str, Any]:
    """Tensors and histories of a task folder."""
    told = read_json(task / "task.json")
    solutions = {
        finish: {
            "genotype": solution["genotype"],
            "kept": solution["kept"],
            "loss": [step["loss"] for step in solution["history"]],
            "accuracy": [step["accuracy"] for step in solution["history"]],
            "measured": told["measured"].get(finish),
        }
        for finish, solution in told["solutions"].items()
    }
    return {"classes": told["classes"], "solutions": solutions, "tensors": joint(load_file(task / "task.safetensors"))}


def expected(folder: Path) -> dict[str, Any]:
    """What version 0.1 says of the files in ``folder``, asked on a copy of it."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(folder, copy)
        version, _ = package()
        print("\n# asked of a copy, for expected.json:", flush=True)
        return {
            "metadarts": version,
            "machine": machine(),
            "finished": finished_facts(copy),
            "interrupted": interrupted_facts(copy),
            "task": task_facts(copy / "task") | task_answers(copy),
            "exported": exported_facts(copy),
            "archive": archive_facts(copy),
            "metamodel": metamodel_facts(copy),
        }


def finished_facts(folder: Path) -> dict[str, Any]:
    """The finished run: its files, and what is derived, measured and adapted anew from it."""
    found = run_facts(folder / "finished")
    files = sorted((folder / "finished").glob("evaluation-*.json"))
    found["evaluations"] = {path.name: evaluation(path) for path in files}
    run(
        folder,
        ["derive", "finished"],
        ["evaluate", "finished", "--split", "val", "--tasks", "4", "--json", "val.json", *CPU],
        ["evaluate", "finished", "--tasks", "4", "--genotype", "genotype.json", "--json", "cell.json", *CPU],
        ["adapt", "finished", "--images", "images", "--steps", "2", "--out", "again", "--threads", "1"],
    )
    found["genotype"] = (folder / "finished" / "genotype.txt").read_text(encoding="utf-8").strip()
    found["genotype.json"] = read_json(folder / "finished" / "genotype.json")
    found["evaluate --split val --tasks 4"] = evaluation(folder / "val.json")
    found["evaluate --tasks 4 --genotype genotype.json"] = evaluation(folder / "cell.json")
    found["adapt --images images --steps 2"] = task_facts(folder / "again")
    return found


def interrupted_facts(folder: Path) -> dict[str, Any]:
    """The interrupted run as it lies there, and at its end after `search --resume`."""
    found = {"stopped": run_facts(folder / "interrupted")}
    run(folder, ["search", "--resume", "interrupted", *CPU])
    return found | {"search --resume": run_facts(folder / "interrupted")}


def task_answers(folder: Path) -> dict[str, Any]:
    """What the task folder answers about the images."""
    names = list(read_json(folder / "task" / "task.json")["solutions"])
    said = run(folder, *(["predict", "task", "images", "--finish", name, "--threads", "1"] for name in names))
    return {"predict": {name: answers(text) for name, text in zip(names, said, strict=True)}}


def exported_facts(folder: Path) -> dict[str, Any]:
    """Each exported file: tensors or logits, answers, and that it passes `export --verify`."""
    image = read_json(folder / "task" / "task.json")["form"]
    pixels, found = fixed_batch(image["channels"], image["height"]), {}
    for name in [place(finish, form) for finish, form in exported()]:
        file = folder / name
        facts: dict[str, Any] = {}
        if file.suffix in (".safetensors", ".py"):
            facts["tensors"] = joint(load_file(file.with_suffix(".safetensors")))
        if file.suffix != ".safetensors":
            facts["logits"] = logits_of(file, pixels).double().tolist()
        verify, predict = ["export", "--verify", name, "--threads", "1"], ["predict", name, "images", "--threads", "1"]
        verified, said = run(folder, verify, predict)
        facts["classes"] = re.findall(r"classes: (.*)", verified)[0].split(", ")
        found[name] = facts | {"predict": answers(said)}
    return found


def archive_facts(folder: Path) -> dict[str, Any]:
    """What `archive ls` and `archive verify` say."""
    listed, verified = run(
        folder, ["archive", "ls", "archive.sqlite", "--limit", "20"], ["archive", "verify", "archive.sqlite"]
    )
    return {"ls --limit 20": listed.splitlines(), "verify": verified.splitlines()[-1]}


def metamodel_facts(folder: Path) -> dict[str, Any]:
    """Tensors, and what it predicts for the images."""
    model, images = "metamodel.safetensors", ["--images", "images", "--threads", "1"]
    start = ["--start", "predicted", "--metamodel", model, "--steps", "1", "--out", "predicted"]
    run(
        folder,
        ["metamodel", "predict", model, *images, "--start", "finished", "--json", "predicted.json"],
        ["adapt", "finished", *images, *start],
    )
    return {
        "tensors": joint(load_file(folder / model)),
        "predict": read_json(folder / "predicted.json"),
        "adapt --start predicted --steps 1": task_facts(folder / "predicted"),
    }


def main() -> None:
    """Make the files and expected.json in the folder named on the command line."""
    folder = Path(sys.argv[1]).resolve()
    print("# metadarts {} at {}".format(*package()), flush=True)
    make(folder)
    text = json.dumps(expected(folder), indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"# {size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
