"""A shipped model: its description and its tensors, in one .safetensors file that vouches for itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from safetensors.torch import save as save_tensors
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.store.fields import Digest, Number
from metadarts.store.files import write_atomically
from metadarts.store.schema import Schema
from metadarts.store.tensors import read_described, require_tensors

from .plain import OPERATIONS, Classifier, build

FORMAT, VERSION = "metadarts.model", 1
DIGEST = "tensors_sha256"
"""Where the description keeps the hash of the tensors."""

KEY = "metadarts"
"""Where each format keeps the description, as JSON."""

LIMIT = 1e-5
"""The largest difference from the source with which a model is shipped, relative to an image's largest logit."""

PROBES = 16
"""Images of noise whose logits a model carries, so that a damaged copy is told from a whole one."""

MOST_CLASSES, MOST_SIDE, MOST_CHANNELS, MOST_CELLS, MOST_NODES, MOST_EDGES = 1000, 1024, 4096, 64, 16, 4096
MOST_BYTES, MOST_TEXT = 2**28, 2**22
"""Of a file, and of a description."""

MOST_VALUES, MOST_WORK = 2**24, 2**27
"""Numbers in the largest map of an image, and in the maps of all operations: a short description asks for little."""


@dataclass(frozen=True)
class ShippedModel:
    """What is shipped.

    Args:
        facts: JSON: "classes", "image" (channels, height, width, invert), "stem" and "cells" (see `plain`), "probes"
            (the logits of `probes`), and what else is worth knowing of its origin.
        tensors: of `plain.Classifier`.
    """

    facts: dict[str, Any]
    tensors: Params

    def module(self) -> Classifier:
        """The classifier: uint8 pixels [N, C, H, W] in, logits out."""
        return build(self.facts, self.tensors)

    def logits(self, pixels: Tensor) -> Tensor:
        """[N, classes] of uint8 pixels [N, C, H, W]."""
        with torch.no_grad():
            result: Tensor = self.module()(pixels)
        return result

    def to_bytes(self) -> bytes:
        """The content of a .safetensors file."""
        apart = {name: tensor.detach().clone().contiguous() for name, tensor in self.tensors.items()}  # share no memory
        return save_tensors(apart, metadata={KEY: json.dumps(self.facts, allow_nan=False)})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises RunError."""
        write_atomically(path, self.to_bytes())


def make_model(structure: Mapping[str, Any], tensors: Params, facts: Mapping[str, Any]) -> ShippedModel:
    """A model of what `freeze` returned.

    Args:
        structure: "stem" and "cells".
        tensors: with "mean" and "std" [C, 1, 1].
        facts: "classes", "image", and what else is to be kept.
    """
    told = {"format": FORMAT, "version": VERSION, **facts, **structure, DIGEST: digest(tensors)}
    model = ShippedModel(told, tensors)
    logits = model.logits(probes(told["image"]))
    return ShippedModel(told | {"probes": logits.double().tolist()}, tensors)


def digest(tensors: Params) -> str:
    """The hash of tensors by name, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def probes(image: Mapping[str, Any]) -> Tensor:
    """The images whose logits a model carries: uint8 noise [PROBES, C, H, W], the same everywhere."""
    shape = (PROBES, image["channels"], image["height"], image["width"])
    raw = Key.from_seed(0).child("probes", *shape[1:]).bits().random_raw((math.prod(shape) + 7) // 8)
    return torch.frombuffer(bytearray(raw.astype("<u8").tobytes()), dtype=torch.uint8)[: math.prod(shape)].view(shape)


Side = Annotated[int, Meta(ge=4, le=MOST_SIDE)]
Channels = Annotated[int, Meta(ge=1, le=MOST_CHANNELS)]
State = Annotated[int, Meta(ge=0, le=MOST_NODES + 1)]


@dataclass(frozen=True)
class Image:
    """The images that a model takes."""

    channels: Literal[1, 3]
    height: Side
    width: Side
    invert: bool


@dataclass(frozen=True)
class Cell:
    """One cell, see `plain.Cell`; an edge is (node, source state, operation, stride)."""

    channels: Annotated[int, Meta(ge=2, le=MOST_CHANNELS, multiple_of=2)]
    inputs: tuple[Channels, Channels]
    concat: Annotated[tuple[State, ...], Meta(min_length=1, max_length=MOST_NODES + 2)]
    edges: Annotated[tuple[tuple[State, State, str, Literal[1, 2]], ...], Meta(min_length=1, max_length=MOST_EDGES)]
    kind: str = ""


@dataclass(frozen=True)
class Description:
    """What a file says of its model, see `ShippedModel`; ``more`` is what is worth knowing of its origin."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    image: Image
    stem: tuple[Channels, Channels]
    cells: Annotated[tuple[Cell, ...], Meta(min_length=1, max_length=MOST_CELLS)]
    probes: Annotated[tuple[tuple[Number, ...], ...], Meta(min_length=PROBES, max_length=PROBES)]
    tensors_sha256: Digest
    more: dict[str, Any]


def read_model(path: Path) -> ShippedModel:
    """Read a .safetensors file. Nothing in it is executed. Raises ModelError."""
    text, tensors = read_described(path, KEY, MODEL, MOST_BYTES)
    model = ShippedModel(read_facts(text, path), tensors)
    check_tensors(model, path)
    return model


def read_facts(text: str, path: Path) -> dict[str, Any]:
    """A model's description, checked. Raises ModelError saying what is wrong with it."""
    facts: dict[str, Any] = MODEL.loads(text, str(path))
    told = MODEL.convert(facts, str(path))
    return facts | {"probes": [list(row) for row in told.probes]}  # whole numbers among them are floats now


def shapes_of(facts: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Names and shapes of the tensors that a description asks for."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Classifier(facts).state_dict().items()}


def check_tensors(model: ShippedModel, path: Path) -> None:
    """Require that the tensors are those the description asks for, and finite. Raises ModelError."""
    with MODEL.refusing(str(path)):
        require_tensors(model.tensors, shapes_of(model.facts))
    if digest(model.tensors) != model.facts.get(DIGEST):
        raise ModelError(f"{path} is damaged: the hash of its tensors is not the one that it carries; export it anew")


def first_line(error: Exception) -> str:
    """The gist of an error of a library's."""
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:300] if lines else type(error).__name__


def _check(told: Description) -> None:
    """Require numbers that agree, and operations that there are. Raises ValueError."""
    if fault := next(_faults(told), ""):
        raise ValueError(fault)


def _faults(told: Description) -> Iterator[str]:
    if any(len(row) != len(told.classes) for row in told.probes):
        yield "probes: expected a logit of each class"
    before = last = told.stem[1]
    for place, cell in enumerate(told.cells):
        if cell.inputs != (before, last):
            yield f"cells[{place}].inputs: expected {[before, last]}, the channels of the states before it"
        yield from (f"cells[{place}].{fault}" for fault in _cell_faults(cell))
        before, last = last, cell.channels * len(cell.concat)
        if last > MOST_CHANNELS:
            yield f"cells[{place}]: more than {MOST_CHANNELS} channels"
    if sum(len(cell.edges) for cell in told.cells) > MOST_EDGES:
        yield f"cells: more than {MOST_EDGES} operations"
    yield from _work_faults(told)


def _cell_faults(cell: Cell) -> Iterator[str]:
    nodes = {node for node, _, _, _ in cell.edges}
    for place, (node, source, name, stride) in enumerate(cell.edges):
        if source > node + 1:
            yield f"edges[{place}]: an edge to node {node} from state {source}"
        if name not in OPERATIONS:
            yield f"edges[{place}]: unknown operation {name[:40]!r}"
        if stride > 1 and source > 1:
            yield f"edges[{place}]: stride {stride} from state {source}"
    if len({stride for _, source, _, stride in cell.edges if source < 2}) > 1:
        yield "edges: of two strides"
    if nodes != set(range(len(nodes))) or len(nodes) > MOST_NODES:
        yield "edges: a node without an edge, or too many nodes"
    if max(cell.concat) > len(nodes) + 1:
        yield "concat: names states that are not there"
    if min(cell.concat) < 2 and _is_strided(cell):
        yield "concat: joins maps of two sizes"


def _is_strided(cell: Cell) -> bool:
    return any(stride == 2 for _, _, _, stride in cell.edges)


def _work_faults(told: Description) -> Iterator[str]:
    """A few numbers can describe a network that no machine can run."""
    height, width = told.image.height, told.image.width
    maps = [told.stem[0] * height * width, told.stem[1] * (height // 2) * (width // 2)]
    height, width = height // 4, width // 4
    for cell in told.cells:
        maps += [max(cell.inputs) * height * width] * 4  # the states before it may be twice as high and wide
        if _is_strided(cell):
            height, width = (height + 1) // 2, (width + 1) // 2
        maps += [cell.channels * height * width] * len(cell.edges)
    if max(maps) > MOST_VALUES or sum(maps) > MOST_WORK:
        yield f"maps of {max(maps)} numbers and {sum(maps)} in all for one image, more than a model of ours has"


MODEL = Schema(
    Description, ModelError, "give a file that `export` wrote, or export it anew", (FORMAT, VERSION), MOST_TEXT,
    check=_check,
)  # fmt: skip
