"""Freeze what the command line computes, to the bit, and compare it with what was frozen before.

    python -m benchmarks.frozen --out frozen.json                    # every part but `small`
    python -m benchmarks.frozen --against frozen.json                # all that frozen.json holds
    python -m benchmarks.frozen --against frozen.json --only quick,auto-grey

A change of layout must not change a result. metadarts is driven by its verbs alone, in processes of their own, so the
same script measures any version: the one that PYTHONPATH names first, else the checkout that this file lies in.
`--against` prints every difference with its size and ends with exit code 1 when there is one.

Parts (`--only`):

    quick, omniglot, cifar   20 meta-steps of the preset on its data, `evaluate`, `derive`, `evaluate --genotype`; after
                             quick also `adapt` from that run and `predict`
    auto-grey, auto-colour   `adapt` of a bundled supernet on made images, `predict` and `export`
    tiny                     from the search of a tiny network to a meta-model (`archive add`, `metamodel train` and
                             `predict`), `adapt --start predicted`, and exports of the soft and of the discrete solution
                             to every format
    paths                    2 meta-steps of tiny networks, for what the presets leave out: engines, first order, inner
                             rules, learned rates, recomputation, bf16, networks without alphas, class folders as data
    small                    seconds of each verb on built-in data, for tests/frozen

To keep all of it near six minutes of one slow thread, a meta-step of quick has 2 tasks (its preset: 8), a look at
validation has 2 tasks, held-out tasks have 3 queries a class (else 15) and are learnt in 3 steps (else 5 or 10), and
`adapt` takes few steps. The 20 meta-steps and all else are the presets'. Memory is not planned for
(training.memory_gb=.inf): the plan depends on what the machine has free, and fewer tasks at once round otherwise.

A tensor of a preset's checkpoint is recorded by the SHA-256 of its type, shape and bytes under its name; one that was
only renamed is said to be so. All tensors of another file have one digest together, names included. Descriptions that
may be renamed (JSON beside the tensors, metadata) are left out, as are times. A search records a step only if the last
record is two seconds old, so of its training records only the first is frozen, which is always there; the last
checkpoint has the moments of all gradients. The final weights, and the logits of exported files, also go into
OUT.tensors/PART.safetensors: where these lie beside the frozen file, a difference of bits is given a size.

Bits are those of a machine: a frozen file says of which. Data sets lie where --data-root says, $METADARTS_DATA_DIR, or
shared/data beside the checkout. Built-in characters are drawn, and kernels compiled, once per cache folder; an empty
folder in $METADARTS_CACHE has both done anew (two minutes more).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.mixtures import write_mixture

CHECKOUT = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "METADARTS_DATA_DIR"

# ------------------------------------------------------------------------------------------------- the command line

SEPARATOR = "\x1e"
CALLS = f"""
import json, sys
try:
    from metadarts.cli import main
except ImportError:
    from metadarts.__main__ import main
for words in json.load(sys.stdin):
    sys.argv = ["metadarts", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            print("failed:", *sys.argv, file=sys.stderr)
            raise
    print({SEPARATOR!r}, flush=True)
"""
"""Runs command lines one after another: starting Python and importing torch takes longer than most of them."""

Words = list[str]


def environment() -> dict[str, str]:
    """One thread; the package of $PYTHONPATH, else of this checkout, wherever the process runs."""
    paths = [path for path in (os.environ.get("PYTHONPATH"), str(CHECKOUT)) if path]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def call(folder: Path, *lines: Words) -> list[str]:
    """Run command lines in ``folder``; what each printed. Raises RuntimeError when one fails."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS],
        cwd=folder,
        env=environment(),
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout.split(f"{SEPARATOR}\n")[:-1]


def package() -> tuple[str, str]:
    """Version and file of the package that is measured."""
    code = "import metadarts; print(metadarts.__version__, metadarts.__file__)"
    with tempfile.TemporaryDirectory() as empty:
        words = [sys.executable, "-c", code]
        said = subprocess.run(words, cwd=empty, env=environment(), capture_output=True, text=True, check=True)
    version, _, file = said.stdout.strip().partition(" ")
    return version, file


def sets(settings: Mapping[str, object]) -> Words:
    """Settings as options."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


# --------------------------------------------------------------------------------------------------- what is recorded


@dataclass
class Found:
    """What a part came to.

    Args:
        facts: name -> what is compared: numbers, texts, lists of them; of a tensor its digest.
        tensors: name of a digest -> the tensor, of those worth keeping.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, facts: Mapping[str, Any]) -> None:
        """Record ``facts`` under ``name``."""
        self.facts |= {f"{name}/{key}": value for key, value in facts.items()}

    def add_whole(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Record one digest of all ``tensors`` and their names, and how many there are."""
        self.add(name, {"digest": joint(tensors), "tensors": len(tensors)})

    def add_tensors(self, name: str, tensors: Mapping[str, Tensor], kept: str | None = None) -> None:
        """Record digests of ``tensors`` under ``name``; keep those whose own names match the pattern ``kept``."""
        for key, tensor in sorted(tensors.items()):
            self.facts[f"{name}/{key}"] = digest(tensor)
            if kept is not None and re.match(kept, key):
                self.tensors[f"{name}/{key}"] = tensor.contiguous()


def digest(tensor: Tensor) -> str:
    """SHA-256 of type, shape and bytes."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    described = f"{tensor.dtype} {list(tensor.shape)} ".encode()
    return hashlib.sha256(described + content).hexdigest()


def joint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names and digests."""
    lines = "".join(f"{name} {digest(tensor)}\n" for name, tensor in sorted(tensors.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def add_run(found: Found, name: str, run: Path, apart: bool = True) -> None:
    """Checkpoints, looks at validation, the first training record and the digest of the data of a run folder.

    Args:
        apart: whether each tensor has a digest of its own; else all of a checkpoint have one, and none is kept.
    """
    for checkpoint in ("best", "last"):
        (file,) = (run / "checkpoints").glob(f"{checkpoint}*.safetensors")
        if apart:
            kept = "(param|log_rate)/" if checkpoint == "last" else None
            found.add_tensors(f"{name}/{checkpoint}", load_file(file), kept)
        else:
            found.add_whole(f"{name}/{checkpoint}", load_file(file))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first = next(record for record in records if record["kind"] == "train")
    found.add(f"{name}/first step", _timeless(first))
    for look in (record for record in records if record["kind"] == "validate"):
        found.add(f"{name}/look after {look['step']}", _timeless(look))
    found.facts[f"{name}/data"] = read_json(run / "env.json").get("data_sha256")


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("kind", "seconds")}


MEASURED = ("accuracy", "interval95", "curve", "curve_tasks", "finite_tasks", "validation_accuracy", "checkpoint_step")
IDENTITY = ("tasks", "ways", "shots", "queries", "steps", "bn", "split", "source", "episodes_sha256", "genotype")


def add_evaluation(found: Found, name: str, path: Path) -> None:
    """What `evaluate --json` wrote."""
    told = read_json(path)
    found.add(name, {key: told.get(key) for key in (*MEASURED, *IDENTITY)})


FIRST_NAMES = {"supernet": "soft", "retrained": "scratch"}
"""Finishes -> what version 0.1 called them, and frozen files call them."""


def with_first_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors FINISH/NAME of a task folder, under the finishes' names of version 0.1."""
    parts = {name: name.partition("/") for name in tensors}
    return {FIRST_NAMES.get(part[0], part[0]) + "".join(part[1:]): tensors[name] for name, part in parts.items()}


def add_task(found: Found, name: str, task: Path) -> None:
    """Tensors, histories and measurements of a task folder; finishes have their names of version 0.1."""
    told = read_json(task / "task.json")
    found.add(name, {key: told.get(key) for key in ("classes", "baselines", "notes")})
    found.add(f"{name}/start", {key: told["start"].get(key) for key in ("name", "source", "meta_steps", "bn")})
    for finish, solution in told["solutions"].items():
        history = solution["history"]
        facts = {"genotype": solution["genotype"], "kept": solution["kept"]}
        curves = {key: [step[key] for step in history] for key in ("step", "loss", "accuracy")}
        first = FIRST_NAMES.get(finish, finish)
        found.add(f"{name}/{first}", facts | curves | {"measured": told["measured"].get(finish)})
    found.add_whole(f"{name}/tensors", with_first_names(load_file(task / "task.safetensors")))


ANSWER = re.compile(r"(?P<file>.+): (?P<label>\S+) \((?P<share>[\d.]+)%\)")


def add_answers(found: Found, name: str, said: str) -> None:
    """Class and printed probability of each image, from what `predict` printed."""
    answers = [match for line in said.splitlines() if (match := ANSWER.fullmatch(line))]
    found.add(name, {match["file"]: [match["label"], float(match["share"])] for match in answers})
    found.facts[f"{name}/images"] = len(answers)


# ------------------------------------------------------------------------------------------------------ exported files

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "python": ".py"}
BATCH = 8


def exported_name(task: str, finish: str, form: str) -> str:
    """The file of an export."""
    return f"{task}-{finish}-{form}{FORMATS[form]}"


def exports(task: str, wanted: Mapping[str, Iterable[str]]) -> list[Words]:
    """The command lines that export a task folder; ``wanted``: finish -> formats."""
    return [
        ["export", task, "--finish", finish, "--format", form, "--out", exported_name(task, finish, form), *THREADS]
        for finish, formats in wanted.items()
        for form in formats
    ]


def add_exports(found: Found, folder: Path, task: str, wanted: Mapping[str, Iterable[str]]) -> None:
    """Tensors of what was exported to .safetensors; of the other formats the logits of a fixed batch."""
    image = read_json(folder / task / "task.json")["form"]
    pixels = fixed_batch(image["channels"], image["height"])
    for finish, formats in wanted.items():
        for form in formats:
            file, name = folder / exported_name(task, finish, form), f"export {task} {finish} {form}"
            if form in ("safetensors", "python"):
                found.add_whole(name, load_file(file.with_suffix(".safetensors")))
            if form != "safetensors":
                logits = logits_of(file, pixels)
                found.add_tensors(name, {"logits": logits}, "logits")
                found.facts[f"{name}/values"] = logits.double().tolist()


def fixed_batch(channels: int, side: int) -> Tensor:
    """uint8 noise [BATCH, channels, side, side], the same everywhere."""
    draw = np.random.default_rng(7)
    return torch.from_numpy(draw.integers(0, 256, (BATCH, channels, side, side), dtype=np.uint8))


def logits_of(path: Path, pixels: Tensor) -> Tensor:
    """What an exported file answers, opened by its own runtime, without metadarts."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # remarks of the runtimes
        if path.suffix == ".onnx":
            return _onnx_logits(path, pixels)
        if path.suffix == ".pt2":
            answer: Tensor = torch.export.load(path).module()(pixels)
            return answer
        return _python_logits(path, pixels)


def _onnx_logits(path: Path, pixels: Tensor) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])


def _python_logits(path: Path, pixels: Tensor) -> Tensor:
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem.replace('-', '_')}", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is no Python file")
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    model, _ = shipped.load(path.with_name(shipped.WEIGHTS))
    logits: Tensor = model(pixels)
    return logits


# --------------------------------------------------------------------------------------------------------- made images

CLASSES = ("ash", "birch", "cedar", "elm")


def make_images(folder: Path, channels: int, classes: Sequence[str] = CLASSES, seed: int = 0) -> None:
    """A folder of class folders: a coarse pattern of the class under noise, in sizes about 36 x 40, as PNG.

    Image 1 of each class shows the next class: without these the tasks would be learnt to losses of exactly 0.
    """
    draw = np.random.default_rng([seed, channels])
    patterns = [draw.integers(0, 70, (10, 11, channels)).repeat(4, 0).repeat(4, 1) for _ in classes]
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            height, width = 36 + number % 3, 40 + number % 4
            pattern = patterns[(label + (number == 1)) % len(classes)]
            pixels = (pattern[:height, :width] + draw.integers(0, 186, (height, width, channels))).astype(np.uint8)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(folder / name / f"{number}.png")


# -------------------------------------------------------------------------------------------------------------- parts

THREADS = ["--threads", "1"]
COMMON = {
    "training.minutes": 0,
    "outer.alpha_decay": 0.001,  # the default may change
    "training.memory_gb": ".inf",
    "training.tasks": 2,
    "training.validations": 2,
    "training.validation_tasks": 2,
    "evaluate.queries": 3,
    "evaluate.steps": 3,
}
TINY = {"model.channels": 4, "model.nodes": 2, "model.stem": "[4, 8]", "tasks.queries": 2}
PRESETS = {"quick": ("glyphs", ""), "omniglot": ("omniglot", "omniglot_28_u8.npz"), "cifar": ("cifar-fs", "cifar100")}
"""Preset -> source, and where its data lie below the root."""

CPU = ["--device", "cpu", *THREADS]


def search(out: str, settings: Mapping[str, object], *more: str) -> Words:
    """The command line of a search into ``out``, seed 0."""
    return ["search", "--out", out, "--seed", "0", *CPU, *more, *sets(COMMON | dict(settings))]


def evaluate(run: str, out: str, *more: str, tasks: int = 20) -> Words:
    """The command line that measures ``run`` and writes ``out``."""
    return ["evaluate", run, "--tasks", str(tasks), "--json", out, *CPU, *more]


def adapt(start: str, images: str, out: str, *more: str, steps: int = 5) -> Words:
    """The command line that adapts ``start`` to ``images``."""
    return ["adapt", start, "--images", images, "--steps", str(steps), "--out", out, *THREADS, *more]


def settings_of(preset: str, folder: Path) -> Words:
    """The words that choose the settings of version 0.1's ``preset``."""
    return ["--config", str(write_mixture(preset, folder / f"{preset}.yaml"))]


def preset_part(preset: str, folder: Path, data: Path) -> Found:
    """Search by a preset, measure, derive, measure what was derived."""
    found, (source, below) = Found(), PRESETS[preset]
    place = ["--data", source, *(["--data-root", str(data / below)] if below else [])]
    call(
        folder,
        search("run", {"training.meta_steps": 20}, *place, *settings_of(preset, folder)),
        evaluate("run", "soft.json"),
        ["derive", "run", *THREADS],
        evaluate("run", "cell.json", "--genotype", "run/genotype.txt", tasks=4),
    )
    add_run(found, "search", folder / "run")
    add_evaluation(found, "evaluate", folder / "soft.json")
    add_evaluation(found, "evaluate cell", folder / "cell.json")
    found.facts["derive/genotype"] = (folder / "run" / "genotype.txt").read_text(encoding="utf-8").strip()
    return found


def quick_part(folder: Path, data: Path) -> Found:
    """The preset quick, and a task adapted from its run."""
    found = preset_part("quick", folder, data)
    make_images(folder / "images", channels=1)
    _, said = call(folder, adapt("run", "images", "task", steps=3), ["predict", "task", "images", *THREADS])
    add_task(found, "adapt run", folder / "task")
    add_answers(found, "predict", said)
    return found


def auto_part(channels: int, wanted: Mapping[str, Sequence[str]], folder: Path) -> Found:
    """Adapt the bundled start that suits made images, ask it, export both solutions."""
    found = Found()
    make_images(folder / "images", channels)
    _, soft, cell, *_ = call(
        folder,
        adapt("glyphs" if channels == 1 else "cifar-fs", "images", "task", "--finish", "inherited"),
        ["predict", "task", "images", "--finish", "soft", *THREADS],
        ["predict", "task", "images", *THREADS],
        *exports("task", wanted),
    )
    add_task(found, "adapt auto", folder / "task")
    add_answers(found, "predict soft", soft)
    add_answers(found, "predict inherited", cell)
    add_exports(found, folder, "task", wanted)
    return found


CELL = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 0), ('max_pool_3x3', 2)], "
    "normal_concat=[2, 3], "
    "reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('dil_conv_3x3', 2), ('skip_connect', 0)], "
    "reduce_concat=[2, 3])"
)
PATHS: dict[str, dict[str, object]] = {
    "first order": {"inner.order": "first", "inner.steps": 2, "tasks.shots": 2},
    "loop": {"training.engine": "loop", "inner.steps": 2},
    "higher": {"training.engine": "higher", "inner.steps": 1},
    "momentum": {"inner.rule": "momentum", "inner.steps": 2, "inner.clip": 1.0},
    "adam": {"inner.rule": "adam", "inner.steps": 2, "inner.weight_rate": 0.01, "inner.alpha_rate": 0.01},
    "learned rates": {"inner.learn_rates": "true", "inner.granularity": "tensor-step", "inner.steps": 2},
    "recomputed": {"inner.steps": 2, "inner.checkpoint": 2, "training.micro_batch": 1},
    "support": {"model.bn": "support", "model.head": "prototype", "model.affine": "true", "inner.steps": 1},
    "bf16": {"model.precision": "bf16", "inner.steps": 1},
    "conv4": {"model.network": "conv4", "inner.steps": 2},
    "cell": {"model.network": "cell", "model.genotype": CELL, "inner.steps": 2},
    "folder": {"inner.steps": 1, "tasks.ways": 4, "tasks.size": 24},
}
"""Name -> settings on top of `TINY`."""


def paths_part(folder: Path, data: Path) -> Found:
    """Tiny searches along the paths that the presets do not take."""
    found = Found()
    for seed, split in enumerate(("train", "val", "test")):
        make_images(folder / "classes" / split, 3, [f"{split} {name}" for name in CLASSES], seed)
    usual = {"training.meta_steps": 2, "training.validations": 1, **TINY}
    lines = [
        search(name, usual | settings, "--data", "classes" if name == "folder" else "glyphs")
        for name, settings in PATHS.items()
    ]
    call(folder, *lines)
    for name in PATHS:
        add_run(found, name, folder / name, apart=False)
    return found


def tiny_part(folder: Path, data: Path) -> Found:
    """A tiny run's tasks in an archive, a meta-model learnt from them, a task that begins where it says, exports."""
    found, wanted = Found(), {"soft": list(FORMATS), "inherited": list(FORMATS)}
    make_images(folder / "images", channels=1)
    settings = {"training.meta_steps": 3, "model.head": "prototype", "inner.steps": 1, **TINY}
    train = ["train", "tasks.sqlite", "--start", "run", "--epochs", "3", "--out", "meta.safetensors", *THREADS]
    places = ["--images", "images", "--start", "run"]
    predicted = ["--start", "predicted", "--metamodel", "meta.safetensors", "--finish", "inherited"]
    call(
        folder,
        search("run", settings, "--data", "glyphs"),
        ["archive", "add", "tasks.sqlite", "--run", "run", "--tasks", "8", *CPU],
        ["metamodel", *train],
        ["metamodel", "predict", "meta.safetensors", *places, "--json", "predicted.json", *THREADS],
        adapt("run", "images", "task", *predicted, steps=2),
        *exports("task", wanted),
    )
    add_run(found, "search", folder / "run", apart=False)
    found.add_whole("metamodel train", load_file(folder / "meta.safetensors"))
    found.add("metamodel predict", read_json(folder / "predicted.json"))
    add_task(found, "adapt --start predicted", folder / "task")
    add_exports(found, folder, "task", wanted)
    return found


def small_part(folder: Path, data: Path) -> Found:
    """What tests/frozen repeats."""
    found, wanted = Found(), {"soft": ["safetensors"], "inherited": ["onnx", "torch-export", "python"]}
    make_images(folder / "images", channels=1)
    settings = {"training.meta_steps": 3, "training.validations": 1}
    _, _, _, _, said, *_ = call(
        folder,
        search("run", settings, "--data", "glyphs", *settings_of("quick", folder)),
        evaluate("run", "soft.json", "--steps", "2", tasks=4),
        ["derive", "run", *THREADS],
        adapt("glyphs", "images", "task", "--finish", "inherited", steps=2),
        ["predict", "task", "images", *THREADS],
        *exports("task", wanted),
    )
    add_run(found, "search", folder / "run")
    add_evaluation(found, "evaluate", folder / "soft.json")
    found.facts["derive/genotype"] = (folder / "run" / "genotype.txt").read_text(encoding="utf-8").strip()
    add_task(found, "adapt auto", folder / "task")
    add_answers(found, "predict", said)
    add_exports(found, folder, "task", wanted)
    return found


Part = Callable[[Path, Path], Found]
PARTS: dict[str, Part] = {
    "quick": quick_part,
    "omniglot": lambda folder, data: preset_part("omniglot", folder, data),
    "cifar": lambda folder, data: preset_part("cifar", folder, data),
    "auto-grey": lambda folder, data: auto_part(1, {"soft": ["python"], "inherited": list(FORMATS)}, folder),
    "auto-colour": lambda folder, data: auto_part(3, {"inherited": ["python"]}, folder),
    "tiny": tiny_part,
    "paths": paths_part,
    "small": small_part,
}
"""Name -> (empty folder to work in, root of the data sets) -> what it came to."""

USUAL = tuple(name for name in PARTS if name != "small")


def run_part(name: str, data: Path) -> Found:
    """A part, in a folder that is gone afterwards. Raises RuntimeError when a verb fails."""
    torch.set_num_threads(1)  # the exported files run in this process
    with tempfile.TemporaryDirectory(prefix="frozen-") as folder:
        return PARTS[name](Path(folder), data)


# ------------------------------------------------------------------------------------------------------------ machine


def machine() -> dict[str, Any]:
    """What bits depend on, besides the code."""
    import llvmlite.binding
    from numba import config

    packages = ("torch", "numba", "numpy", "pillow", "matplotlib", "scikit-learn", "onnxruntime")
    return {
        **{name: _version(name) for name in packages},
        "torch cpu capability": torch.backends.cpu.get_cpu_capability(),
        "numba cpu": config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        "threads": 1,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def other_machine(frozen: Mapping[str, Any]) -> list[str]:
    """What is otherwise here than on the machine of a frozen file, as sentences; empty: bits may be compared."""
    ours, theirs = machine(), frozen["machine"]
    return [
        f"{name}: {theirs.get(name)} when frozen, {ours.get(name)} here"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


# --------------------------------------------------------------------------------------------------------- comparison


def differences(frozen: Found, now: Found) -> Iterator[str]:
    """One line for each fact that differs, with the size of the difference where it is known."""
    gone, new = (
        {name: a.facts[name] for name in a.facts.keys() - b.facts.keys()} for a, b in ((frozen, now), (now, frozen))
    )
    by_digest = {value: name for name, value in sorted(new.items()) if _is_digest(value)}
    for name, value in sorted(gone.items()):
        if _is_digest(value) and value in by_digest:
            other = by_digest.pop(value)
            del new[other]
            yield f"{name}: renamed to {other}, the same bits"
        else:
            yield f"{name}: no longer there"
    yield from (f"{name}: not there when frozen" for name in sorted(new))
    for name in sorted(frozen.facts.keys() & now.facts.keys()):
        before, after = frozen.facts[name], now.facts[name]
        if not _same(before, after):
            yield f"{name}: {_apart(before, after, frozen.tensors.get(name), now.tensors.get(name))}"


def _same(before: Any, after: Any) -> bool:
    """Equal as written: signs of zero and NaN included."""
    return json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _apart(before: Any, after: Any, old: Tensor | None, new: Tensor | None) -> str:
    if _is_digest(before) and _is_digest(after):
        if old is None or new is None:
            return "bits differ (neither tensor was kept)" if old is None and new is None else "bits differ"
        if old.shape != new.shape or old.dtype != new.dtype:
            return f"{old.dtype} {list(old.shape)} when frozen, {new.dtype} {list(new.shape)} now"
        return f"bits differ, the largest difference is {float((new.double() - old.double()).abs().max()):.3g}"
    numbers = [list(_numbers(value)) for value in (before, after)]
    shown = f"{_short(before)} when frozen, {_short(after)} now"
    if not numbers[0] or len(numbers[0]) != len(numbers[1]):
        return shown
    largest = max((abs(a - b) for a, b in zip(*numbers, strict=True)), default=0.0)
    return f"{shown}; the largest difference is {largest:.3g}"


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in nested lists and dictionaries, in order."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


# -------------------------------------------------------------------------------------------------------------- files


def tensor_folder(path: Path) -> Path:
    """Where the tensors of a frozen file lie."""
    return path.with_suffix(".tensors")


def write(path: Path, parts: Mapping[str, Found]) -> None:
    """Write a frozen file, and the tensors beside it."""
    version, _ = package()
    told = {"metadarts": version, "machine": machine(), "parts": {name: found.facts for name, found in parts.items()}}
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for name, found in parts.items():
        if found.tensors:
            tensor_folder(path).mkdir(exist_ok=True)
            save_file(found.tensors, tensor_folder(path) / f"{name}.safetensors")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Found]]:
    """A frozen file as it is, and its parts; with their tensors, where these lie beside it."""
    told: dict[str, Any] = read_json(path)
    parts = {}
    for name, facts in told["parts"].items():
        file = tensor_folder(path) / f"{name}.safetensors"
        parts[name] = Found(facts, load_file(file) if file.is_file() else {})
    return told, parts


# ------------------------------------------------------------------------------------------------------- command line


def chosen(only: str | None, among: Sequence[str]) -> list[str]:
    """The parts of ``--only``, else all of ``among``. Raises SystemExit for a name that is none of theirs."""
    names = list(among) if only is None else only.split(",")
    known = among if only is None else tuple(dict.fromkeys((*among, *PARTS)))
    if wrong := sorted(set(names) - set(known)):
        raise SystemExit(f"unknown parts: {', '.join(wrong)}; there are {', '.join(known)}")
    return names


def measured(name: str, data: Path) -> Found | str:
    """What a part came to, or why it failed; says how long it took."""
    began, used = time.monotonic(), cpu_seconds()
    print(f"{name} ...", flush=True)
    try:
        found = run_part(name, data)
    except RuntimeError as error:
        return f"failed: {error}"
    took = f"{time.monotonic() - began:.0f} s, {cpu_seconds() - used:.0f} s of them computing"
    print(f"{name}: {len(found.facts)} facts in {took}", flush=True)
    return found


def cpu_seconds() -> float:
    """What this process and those that it started have computed."""
    return sum(os.times()[:4])


def compared(name: str, frozen: Mapping[str, Found], now: Found | str) -> list[str]:
    """The differences of a part."""
    if isinstance(now, str):
        return [now]
    if name not in frozen:
        return ["not in the frozen file"]
    return list(differences(frozen[name], now))


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; write or compare. The exit code is 1 when there is a difference or a part failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the results to this .json file")
    parser.add_argument("--against", type=Path, help="compare with this frozen file")
    parser.add_argument("--only", help=f"parts, with commas between them: {', '.join(PARTS)}")
    parser.add_argument("--data-root", type=Path, help=f"the data sets; default ${DATA_VARIABLE}, else shared/data")
    options = parser.parse_args(arguments)
    if options.out is None and options.against is None:
        parser.error("give --out FILE.json, --against FILE.json, or both")
    told, frozen = read(options.against) if options.against else ({}, {})
    data = options.data_root or Path(os.environ.get(DATA_VARIABLE) or CHECKOUT.parent / "shared" / "data")
    print("metadarts {} at {}".format(*package()), flush=True)
    if told and (others := other_machine(told)):
        print("another machine than when frozen, so bits may differ:", *others, sep="\n  ")
    names = chosen(options.only, tuple(frozen) if frozen else USUAL)
    results: dict[str, Found | str] = {}
    faults = 0
    for name in names:
        results[name] = measured(name, data.resolve())
        lines = compared(name, frozen, results[name]) if told else [r for r in (results[name],) if isinstance(r, str)]
        faults += len(lines)
        for line in lines:
            print(f"  {name}: {line}", flush=True)
    if options.out:
        write(options.out, {name: found for name, found in results.items() if isinstance(found, Found)})
        print(f"written to {options.out}")
    if told:
        print("no difference" if not faults else f"{faults} differences")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
