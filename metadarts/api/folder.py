"""Task folders: what `metadarts adapt` and `FewShotClassifier.save` leave on disk.

task.json         classes, form of the images, start, network, histories, what was measured; vouches for the tensors
task.safetensors  the solutions' parameters, and the support images whose statistics are frozen, in the network's form
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metadarts.core.errors import MetadartsError, RunError
from metadarts.core.files import cannot_write, write_atomically
from metadarts.core.types import Params
from metadarts.experiments import RunFolder
from metadarts.nn import Network, NetworkSpec, discrete_network, supernet
from metadarts.spaces import Genotype, darts

from .form import Form
from .task import FINISHES, Solution, Step, Support, Task

FORMAT, VERSION = "metadarts.task", 1
FACTS, TENSORS = "task.json", "task.safetensors"


def save_task(task: Task, path: Path, pictures: dict[str, bytes] | None = None) -> None:
    """Write a new task folder, whole or not at all. Raises RunError when ``path`` exists or cannot be made."""
    RunFolder.require_new(path)
    support = task.support
    tensors = {
        "support/pixels": support.pixels[support.frozen].contiguous(),
        "support/labels": support.labels[support.frozen].contiguous(),
    }
    for finish, solution in task.solutions.items():
        tensors |= {f"{finish}/{name}": tensor.contiguous() for name, tensor in solution.params.items()}
    content = save_tensors(tensors)
    spec = next(iter(task.solutions.values())).network.spec
    told = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "classes": list(support.classes),
        "form": dataclasses.asdict(support.form),
        "seed": support.seed,
        "nodes": task.solution().network.space.nodes,
        "network": dataclasses.asdict(spec),
        "solutions": {finish: _solution_facts(solution) for finish, solution in task.solutions.items()},
        **task.facts,
    }
    scaffold = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        scaffold.mkdir(parents=True)
        write_atomically(scaffold / TENSORS, content)
        write_atomically(scaffold / FACTS, (json.dumps(told, indent=2) + "\n").encode())
        for name, picture in (pictures or {}).items():
            write_atomically(scaffold / name, picture)
        scaffold.rename(path)
    except (OSError, MetadartsError) as error:
        shutil.rmtree(scaffold, ignore_errors=True)
        if isinstance(error, MetadartsError):
            raise RunError(str(error).replace(str(scaffold), str(path))) from error
        raise cannot_write(path, error) from error


def _solution_facts(solution: Solution) -> dict[str, Any]:
    genotype = solution.network.genotype
    return {
        "genotype": None if genotype is None else str(genotype),
        "kept": solution.kept,
        "history": [dataclasses.asdict(step) for step in solution.history],
    }


def is_task(path: Path) -> bool:
    """Whether a task folder is at ``path``."""
    try:
        return (path / FACTS).is_file()
    except OSError:
        return False


def load_task(path: Path) -> Task:
    """Read a task folder. Raises RunError when it is none, or damaged."""
    try:
        told = json.loads((path / FACTS).read_text(encoding="utf-8"))
        content = (path / TENSORS).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is no task folder that can be read ({error}); give what `adapt --out` named") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
        raise RunError(f"{path / FACTS}: expected format {FORMAT!r}, version {VERSION}; give what `adapt --out` named")
    if hashlib.sha256(content).hexdigest() != told.get("sha256"):
        raise RunError(f"{path / TENSORS} is damaged: its hash is not the one in {FACTS}")
    try:
        return _task(told, load_tensors(content))
    except SafetensorError as error:
        raise RunError(f"{path / TENSORS} is not a safetensors file ({error})") from error
    except MetadartsError as error:
        raise RunError(f"{path / FACTS} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise RunError(f"{path / FACTS} is damaged ({type(error).__name__}: {error})") from error


READ = ("format", "version", "sha256", "classes", "form", "seed", "nodes", "network", "solutions")


def _task(told: dict[str, Any], tensors: Params) -> Task:
    form, network = dict(told["form"]), dict(told["network"])
    form |= {name: None if form[name] is None else tuple(form[name]) for name in ("mean", "std")}
    network |= {name: tuple(network[name]) for name in ("stem", "cells")}
    classes = tuple(told["classes"])
    if not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: expected names")
    shape = Form(**form)
    pixels, labels = tensors["support/pixels"], tensors["support/labels"]
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (shape.channels, shape.height, shape.width):
        raise ValueError(f"support images {pixels.dtype} {list(pixels.shape)}")
    if (
        labels.dtype != torch.int64
        or labels.shape != pixels.shape[:1]
        or not 0 <= int(labels.min()) <= int(labels.max()) < len(classes)
    ):
        raise ValueError(f"support labels {labels.dtype} {list(labels.shape)}")
    solutions = {
        finish: _solution(finish, facts, NetworkSpec(**network), int(told["nodes"]), tensors, len(classes))
        for finish, facts in told["solutions"].items()
    }
    if not solutions or not set(solutions) <= set(FINISHES):
        raise ValueError(f"solutions: expected some of {', '.join(FINISHES)}")
    support = Support(shape, classes, pixels, labels, int(told["seed"]))
    return Task(support, solutions, {name: value for name, value in told.items() if name not in READ})


def _solution(
    finish: str, facts: dict[str, Any], spec: NetworkSpec, nodes: int, tensors: Params, ways: int
) -> Solution:
    if not 1 <= nodes <= 16:
        raise ValueError(f"nodes: {nodes}")
    space, text = darts(nodes), facts["genotype"]
    network = supernet(space, spec) if text is None else discrete_network(Genotype.parse(text), space, spec)
    params = {name[len(finish) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{finish}/")}
    _require_task_params(network, params, ways)
    history = tuple(Step(**step) for step in facts["history"])
    return Solution(finish, network, params, history, int(facts["kept"]))


def _require_task_params(network: Network, params: Params, ways: int) -> None:
    shapes = {name: shape for name, shape in network.shapes().items() if not name.startswith("head.")}
    shapes |= {"head.weight": (ways, network.features), "head.bias": (ways,)}
    if {name: tuple(tensor.shape) for name, tensor in params.items()} != shapes:
        odd = sorted(set(params) ^ set(shapes))[:1] or ["shapes"]
        raise ValueError(f"its parameters are not those of its network ({odd[0]})")
    for name, tensor in params.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name!r} must hold finite float32 numbers")
