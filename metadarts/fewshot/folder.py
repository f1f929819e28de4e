"""Task folders: what `metadarts adapt` and `FewShotClassifier.save` leave on disk.

task.json         classes, form of the images, start, network, histories, what was measured; vouches for the tensors
task.safetensors  the solutions' parameters, and the support images whose statistics are frozen, in the network's form
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metadarts.core.errors import MetadartsError, RunError
from metadarts.core.types import Params, group_of
from metadarts.networks import Network, NetworkSpec, discrete_network, supernet
from metadarts.spaces import Genotype, darts
from metadarts.store.described import number, read_json, truth, whole
from metadarts.store.files import cannot_write, write_atomically
from metadarts.store.migration import migrated_task
from metadarts.training import RunFolder

from .input_spec import read_form
from .learn import MOST_CLASSES
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
        text = json.dumps(told, indent=2, allow_nan=False) + "\n"
        scaffold.mkdir(parents=True)
        write_atomically(scaffold / TENSORS, content)
        write_atomically(scaffold / FACTS, text.encode())
        for name, picture in (pictures or {}).items():
            write_atomically(scaffold / name, picture)
        scaffold.rename(path)
    except BaseException as error:  # an interrupt among them
        shutil.rmtree(scaffold, ignore_errors=True)
        if isinstance(error, MetadartsError):
            raise RunError(str(error).replace(str(scaffold), str(path))) from error
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        if isinstance(error, TypeError | ValueError):  # facts that are not JSON, a name with a zero byte
            raise RunError(f"cannot write {str(path)!r}: {error}") from error
        raise


def _solution_facts(solution: Solution) -> dict[str, Any]:
    genotype = solution.network.genotype
    return {
        "genotype": None if genotype is None else str(genotype),
        "kept": solution.kept,
        "history": [dataclasses.asdict(step) | {"loss": _or_none(step.loss)} for step in solution.history],
    }


def _or_none(loss: float) -> float | None:
    """JSON has no numbers that are not finite."""
    return loss if math.isfinite(loss) else None


def is_task(path: Path) -> bool:
    """Whether a task folder is at ``path``."""
    try:
        return (path / FACTS).is_file()
    except OSError:
        return False


def load_task(path: Path) -> Task:
    """Read a task folder. Raises RunError when it is none, or damaged."""
    try:
        told = read_json((path / FACTS).read_text(encoding="utf-8"))
        content = (path / TENSORS).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is no task folder that can be read ({error}); give what `adapt --out` named") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
        raise RunError(f"{path / FACTS}: expected format {FORMAT!r}, version {VERSION}; give what `adapt --out` named")
    if hashlib.sha256(content).hexdigest() != told.get("sha256"):
        raise RunError(f"{path / TENSORS} is damaged: its hash is not the one in {FACTS}")
    try:
        tensors = load_tensors(content)
    except Exception as error:  # the library's own, and those of types that torch lacks
        raise RunError(f"{path / TENSORS} is not a safetensors file ({error})") from error
    try:
        return _task(*migrated_task(told, tensors))
    except MetadartsError as error:
        raise RunError(f"{path / FACTS} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise RunError(f"{path / FACTS} is damaged ({type(error).__name__}: {error})") from error


READ = ("format", "version", "sha256", "classes", "form", "seed", "nodes", "network", "solutions")


def _task(told: dict[str, Any], tensors: Params) -> Task:
    shape, spec = read_form(told["form"]), _spec(told["network"])
    if spec.in_channels != shape.channels:
        raise ValueError(f"a network for {spec.in_channels} channel(s), images of {shape.channels}")
    classes = told["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: expected names")
    if not 2 <= len(set(classes)) == len(classes) <= MOST_CLASSES:
        raise ValueError(f"classes: expected 2 to {MOST_CLASSES}, each with a name of its own")
    pixels, labels = tensors["support/pixels"], tensors["support/labels"]
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (shape.channels, shape.height, shape.width):
        raise ValueError(f"support images {pixels.dtype} {list(pixels.shape)}")
    if (
        labels.dtype != torch.int64
        or labels.shape != pixels.shape[:1]
        or set(labels.tolist()) != set(range(len(classes)))
    ):
        raise ValueError(f"support labels {labels.dtype} {list(labels.shape)}")
    solutions = {
        finish: _solution(finish, facts, spec, told["nodes"], tensors, len(classes))
        for finish, facts in told["solutions"].items()
    }
    if not solutions or not set(solutions) <= set(FINISHES):
        raise ValueError(f"solutions: expected some of {', '.join(FINISHES)}")
    if type(told["seed"]) is not int:
        raise ValueError("seed: expected a whole number")
    support = Support(shape, tuple(classes), pixels, labels, told["seed"])
    facts = {name: value for name, value in told.items() if name not in READ}
    for name, kind in FACT_KINDS.items():
        if not isinstance(facts.get(name, kind()), kind):
            raise ValueError(f"{name}: expected a {kind.__name__}")
    return Task(support, solutions, facts)


FACT_KINDS: dict[str, type[list[Any]] | type[dict[str, Any]]] = {"notes": list, "start": dict, "measured": dict}
"""Of what a task keeps besides what is read, the kinds of what is used."""

MOST_CHANNELS, MOST_CELLS, MOST_NODES = 4096, 64, 16


def _spec(told: dict[str, Any]) -> NetworkSpec:
    stem, cells = told["stem"], told["cells"]
    if len(stem) != 2 or not isinstance(cells, list) or not 1 <= len(cells) <= MOST_CELLS:
        raise ValueError("network: expected two numbers of stem channels, and cells")
    if not set(cells) <= set(darts(1).cell_types):
        raise ValueError(f"network: expected cells of the kinds {', '.join(darts(1).cell_types)}")
    first, second = (whole(channels, 1, MOST_CHANNELS) for channels in stem)
    return NetworkSpec(
        in_channels=whole(told["in_channels"], 1, 3),
        stem=(first, second),
        channels=whole(told["channels"], 2, MOST_CHANNELS),
        cells=tuple(cells),
        affine=truth(told["affine"]),
        pool_norm=truth(told["pool_norm"]),
        head=told["head"],
        logit_scale=number(told["logit_scale"]),
    )


def _step(told: dict[str, Any]) -> Step:
    loss, accuracy = told["loss"], told["accuracy"]
    return Step(
        whole(told["step"], 0, 2**53),
        math.nan if loss is None else number(loss),
        number(told["seconds"]),
        None if accuracy is None else number(accuracy),
    )


def _solution(
    finish: str, facts: dict[str, Any], spec: NetworkSpec, nodes: int, tensors: Params, ways: int
) -> Solution:
    space, text = darts(whole(nodes, 1, MOST_NODES)), facts["genotype"]
    network = supernet(space, spec) if text is None else discrete_network(Genotype.parse(text), space, spec)
    params = {name[len(finish) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{finish}/")}
    _require_task_params(network, params, ways)
    history = tuple(map(_step, facts["history"]))
    if not history:
        raise ValueError("history: expected a step")
    return Solution(finish, network, params, history, whole(facts["kept"], 0, history[-1].step))


def _require_task_params(network: Network, params: Params, ways: int) -> None:
    shapes = {name: shape for name, shape in network.shapes().items() if group_of(name) != "head"}
    shapes |= {"head.weight": (ways, network.features), "head.bias": (ways,)}
    if {name: tuple(tensor.shape) for name, tensor in params.items()} != shapes:
        odd = sorted(set(params) ^ set(shapes))[:1] or ["shapes"]
        raise ValueError(f"its parameters are not those of its network ({odd[0]})")
    for name, tensor in params.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name!r} must hold finite float32 numbers")
