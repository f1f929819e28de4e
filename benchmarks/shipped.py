"""Do shipped files answer as their source does? 1,000 images, every format, alone and in batches, accuracy included.

    python -m benchmarks.shipped --draws FOLDER --out ROWS.jsonl --start NAME=START ... --bare-python ENV/bin/python

For each start one task of FOLDER (what `benchmarks.new_task.draws` wrote) is learnt, finished as the supernet and as
the inherited network, saved, loaded again, and exported in every format. Each file answers 1,000 images: the task's,
and noise. The python file is run by ``--bare-python``, the interpreter of an environment that has torch and
safetensors and nothing else (`python -m venv ENV && ENV/bin/pip install torch safetensors`); without it, by this one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from metadarts.core.machine import commit, version
from metadarts.export import SUFFIXES, difference, export_model, open_model
from metadarts.export.check import noise
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.task import Task, hits
from metadarts.store.files import append_line

from .new_task.ours import read

IMAGES, BATCH = 1000, 64
RUN = """
import importlib.util, sys, json, torch
from safetensors.torch import load_file
spec = importlib.util.spec_from_file_location("shipped", sys.argv[1])
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
model, facts = shipped.load(sys.argv[2])
pixels = load_file(sys.argv[3])["pixels"]
logits = [model(part) for part in pixels.split(64)]
torch.save(torch.cat(logits), sys.argv[4])  # safetensors would want numpy to write
there = [name for name in ("numpy", "metadarts", "PIL", "onnx") if importlib.util.find_spec(name)]
print(json.dumps({"torch": torch.__version__, "also there": there}))
"""


def bare_answers(python: str, path: Path, pixels: Tensor, folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """The logits by the python file at ``path``, run by another interpreter, and what that interpreter has."""
    asked, told = folder / "pixels.safetensors", folder / "logits.pt"
    save_file({"pixels": pixels.contiguous()}, asked)
    words = [python, "-I", "-c", RUN, str(path), str(path.with_suffix(".safetensors")), str(asked), str(told)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder)
    answers: Tensor = torch.load(told, weights_only=True)
    return answers, json.loads(done.stdout.splitlines()[-1])


def rows(name: str, start: str, draw: Path, bare_python: str) -> list[dict[str, Any]]:
    """One row for each finish and format."""
    arrays, found = read(draw), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fitted = FewShotClassifier(start).fit(arrays["support"], arrays["support_labels"])
        fitted.discretise().save(folder / "task")
        task = FewShotClassifier.load(folder / "task").task_
        held = fitted._pixels(arrays["held_out"])
        pixels = torch.cat([held, noise(fitted.model_.facts["image"], IMAGES - len(held))])
        labels = torch.from_numpy(arrays["held_out_labels"])
        for finish in ("supernet", "inherited"):
            for format, suffix in SUFFIXES.items():
                path = folder / f"{finish}-{format}{suffix}"
                row = _row(task, finish, format, path, (pixels, labels), bare_python, folder)
                found.append({"start": name, "draw": draw.stem, "finish": finish, "format": format, **row})
    return found


def _row(
    task: Task, finish: str, format: str, path: Path, asked: tuple[Tensor, Tensor], bare_python: str, folder: Path
) -> dict[str, Any]:
    pixels, labels = asked
    wanted = task.source(finish)(pixels)
    check = export_model(task.model(finish), path, format, task.source(finish), pixels[:BATCH])
    extra: dict[str, Any] = {}
    if format == "python":
        answers, extra = bare_answers(bare_python, path, pixels, folder)
    else:
        opened = open_model(path)
        answers = torch.cat([opened.logits(part) for part in pixels.split(BATCH)])
    mixed = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    opened = open_model(path)
    shuffled = torch.empty_like(answers)
    for part in mixed.split(BATCH):  # the same images among others
        shuffled[part] = opened.logits(pixels[part])
    alone = torch.cat([opened.logits(image) for image in pixels[:100].split(1)])
    return {
        "images": len(pixels),
        "from source": difference(answers, wanted),
        "in another batch": difference(shuffled, answers),
        "alone": difference(alone, answers[:100]),
        "accuracy of the source": float(hits(wanted[: len(labels)], labels).mean()),
        "accuracy": float(hits(answers[: len(labels)], labels).mean()),
        "bytes": check.size,
        "milliseconds": {str(count): value for count, value in check.milliseconds.items()},
        "threads": check.threads,
        "versions": {package: version(package) for package in ("torch", "onnxruntime", "onnx")},
        "commit": commit(),
        **extra,
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", action="append", required=True, help="DRAW=START, as often as needed")
    parser.add_argument("--bare-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for pair in options.start:
        draw, start = pair.split("=", 1)
        for row in rows(Path(start).name, start, options.draws / f"{draw}.npz", options.bare_python):
            append_line(options.out, json.dumps(row))
            print(
                f"{row['start']} {row['finish']} {row['format']}: from source {row['from source']:.1e}, "
                f"in another batch {row['in another batch']:.1e}, alone {row['alone']:.1e}, "
                f"accuracy {row['accuracy']:.2%} (source {row['accuracy of the source']:.2%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
