"""Task folders: what `metadarts adapt` and `FewShotClassifier.save` leave on disk.

task.json         classes, form of the images, start, network, histories, what was measured; vouches for the tensors
task.safetensors  the solutions' parameters, and the support images whose statistics are frozen, in the network's form
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metadarts.core.errors import MetadartsError, RunError
from metadarts.core.types import Params, group_of
from metadarts.networks import Image, Network
from metadarts.spaces import Genotype
from metadarts.store.drafts import drafted
from metadarts.store.fields import Digest, Number
from metadarts.store.files import cannot_write, write_atomically
from metadarts.store.migration import migrated_task
from metadarts.store.schema import Schema, content
from metadarts.store.tensors import MOST_BYTES, require_tensors
from metadarts.training import Config, RunFolder
from metadarts.training.catalogue import load_plugins
from metadarts.training.config import config_of, to_settings

from .input_spec import InputSpec, require_agreement
from .learn import MOST_CLASSES
from .task import FINISHES, Solution, Step, Support, Task

FORMAT, VERSION = "metadarts.task", 2
FACTS, TENSORS = "task.json", "task.safetensors"
NETWORK = ("space", "macro", "relaxation", "model", "plugins")
"""Groups of a configuration that say which network a task has."""

StepNumber = Annotated[int, Meta(ge=0, le=2**53)]


@dataclass(frozen=True)
class StepFacts:
    """A `Step` in JSON, which has no numbers that are not finite: such a loss is null."""

    step: StepNumber
    loss: Number | None
    seconds: Number
    accuracy: Number | None


@dataclass(frozen=True)
class SolutionFacts:
    """A `Solution` but for its parameters; ``genotype`` is null where its network is the supernet."""

    genotype: str | None
    kept: StepNumber
    history: Annotated[tuple[StepFacts, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class TaskFacts:
    """task.json: of a `Support`, its solutions and their networks, and the tensors' hash; ``more`` is `Task.facts`.

    Args:
        network: the groups `NETWORK` of the start's configuration.
    """

    sha256: Digest
    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    form: InputSpec
    seed: int
    network: dict[str, dict[str, Any]]
    solutions: Annotated[dict[str, SolutionFacts], Meta(min_length=1)]
    more: dict[str, Any]


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
    groups = to_settings(task.config)
    told = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "classes": list(support.classes),
        "form": dataclasses.asdict(support.form),
        "seed": support.seed,
        "network": {name: groups[name] for name in NETWORK if name in groups},
        "solutions": {finish: _solution_facts(solution) for finish, solution in task.solutions.items()},
        **task.facts,
    }
    try:
        text = json.dumps(told, indent=2, allow_nan=False) + "\n"
        with drafted(path) as draft:
            draft.mkdir()
            write_atomically(draft / TENSORS, content)
            write_atomically(draft / FACTS, text.encode())
            for name, picture in (pictures or {}).items():
                write_atomically(draft / name, picture)
            draft.rename(path)
    except MetadartsError as error:
        raise RunError(str(error).replace(str(draft), str(path))) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    except (TypeError, ValueError) as error:  # facts that are not JSON, a name with a zero byte
        raise RunError(f"cannot write {str(path)!r}: {error}") from error


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


def load_task(path: Path, plugins: Sequence[str] = ()) -> Task:
    """Read a task folder.

    Args:
        plugins: with the user's entries that its network names, see `metadarts.training.load_config`.

    Raises:
        RunError: when it is none, or damaged.
        ConfigError: when a plug-in is missing.
    """
    found, renamed = migrated_task(TASK.loads(path / FACTS))
    told = TASK.convert(found, str(path / FACTS))
    load_plugins(plugins).require(told.network.get("plugins", {}), str(path))  # before anything is called damaged
    with TASK.refusing(str(path / TENSORS)):
        stored = content(path / TENSORS, MOST_BYTES)
        if hashlib.sha256(stored).hexdigest() != told.sha256:
            raise ValueError(f"it is damaged: its hash is not the one in {FACTS}")
        try:
            tensors = renamed(load_tensors(stored))
        except Exception as error:  # the library's own, and those of types that torch lacks
            raise ValueError(f"not a safetensors file ({error})") from error
    with TASK.refusing(f"{path} is damaged"):
        return _task(told, tensors, config_of(told.network, plugins))


def _check(told: TaskFacts) -> None:
    """Require parts that agree. Raises ValueError."""
    require_agreement(told.form)
    if len(set(told.classes)) < len(told.classes):
        raise ValueError("classes: expected each name once")
    if odd := sorted(told.solutions.keys() - set(FINISHES)):
        raise ValueError(f"solutions: expected some of {', '.join(FINISHES)}, got {odd[0][:40]!r}")
    for finish, facts in told.solutions.items():
        if facts.kept > facts.history[-1].step:
            raise ValueError(f"solutions.{finish}.kept: expected a step of its history, got {facts.kept}")
    for name, kind in (("notes", list), ("start", dict), ("measured", dict)):
        if not isinstance(told.more.get(name, kind()), kind):
            raise ValueError(f"{name}: expected a {kind.__name__}")


TASK = Schema(TaskFacts, RunError, "give what `adapt --out` named", (FORMAT, VERSION), check=_check)


def _task(told: TaskFacts, tensors: Params, config: Config) -> Task:
    form = told.form
    network = config.build_network(Image(form.channels, form.height, form.width))
    pixels, labels = (tensors.get(f"support/{name}", torch.empty(0)) for name in ("pixels", "labels"))
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (form.channels, form.height, form.width):
        raise ValueError(f"support images {pixels.dtype} {list(pixels.shape)}")
    numbers = set(labels.tolist()) if labels.dtype == torch.int64 and labels.dim() == 1 else set()
    if labels.shape != pixels.shape[:1] or numbers != set(range(len(told.classes))):
        raise ValueError(f"support labels {labels.dtype} {list(labels.shape)}")
    solutions = {
        finish: Solution(finish, *_trained(finish, facts, told, network, tensors), _history(facts), facts.kept)
        for finish, facts in told.solutions.items()
    }
    return Task(Support(form, told.classes, pixels, labels, told.seed), solutions, told.more, config)


def _history(facts: SolutionFacts) -> tuple[Step, ...]:
    return tuple(
        Step(step.step, math.nan if step.loss is None else step.loss, step.seconds, step.accuracy)
        for step in facts.history
    )


def _trained(
    finish: str, facts: SolutionFacts, told: TaskFacts, network: Network, tensors: Params
) -> tuple[Network, Params]:
    """The network of a solution, and its parameters. Raises ValueError where they do not fit."""
    if facts.genotype is not None:
        network = network.discrete(Genotype.parse(facts.genotype))
    params = {name[len(finish) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{finish}/")}
    network = network.fitting(params)
    shapes = {name: shape for name, shape in network.shapes().items() if group_of(name) not in ("head", "start")}
    head = {"head.weight": (len(told.classes), network.features), "head.bias": (len(told.classes),)}
    require_tensors(params, shapes | head)
    return network, params
