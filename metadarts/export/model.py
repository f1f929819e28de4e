"""A shipped model: its description and its tensors, in one .safetensors file that vouches for itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.store.described import read_json
from metadarts.store.files import write_atomically

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


def read_model(path: Path) -> ShippedModel:
    """Read a .safetensors file. Nothing in it is executed. Raises ModelError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"{path}: larger than {MOST_BYTES} bytes, which is no model of ours")
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise ModelError(f"{path} holds tensors but no description of a model; give a file that `export` wrote")
            facts = read_facts(text, path)
            if set(file.keys()) != shapes_of(facts).keys():
                raise ModelError(f"{path}: its tensors are not those of its description; the file is damaged")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except ModelError:
        raise
    except Exception as error:  # the library's own, the system's, and those of types that torch lacks
        raise ModelError(f"cannot read {path} as a .safetensors file ({first_line(error)}); export it anew") from error
    model = ShippedModel(facts, tensors)
    check_tensors(model, path)
    return model


def shapes_of(facts: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Names and shapes of the tensors that a description asks for."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Classifier(facts).state_dict().items()}


def check_tensors(model: ShippedModel, path: Path) -> None:
    """Require that the tensors are those the description asks for, and finite. Raises ModelError."""
    shapes = shapes_of(model.facts)
    if model.tensors.keys() != shapes.keys():
        raise ModelError(f"{path}: its tensors are not those of its description; the file is damaged")
    for name, tensor in model.tensors.items():
        if tensor.shape != shapes[name]:
            raise ModelError(f"{path}: expected {name!r} of shape {list(shapes[name])}, got {list(tensor.shape)[:8]}")
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name!r} must hold finite float32 numbers; the file is damaged")
    if digest(model.tensors) != model.facts.get(DIGEST):
        raise ModelError(f"{path} is damaged: the hash of its tensors is not the one that it carries; export it anew")


def first_line(error: Exception) -> str:
    """The gist of an error of a library's."""
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:300] if lines else type(error).__name__


def read_facts(text: str, path: Path) -> dict[str, Any]:
    """A model's description, checked. Raises ModelError saying what is wrong with it."""
    if len(text) > MOST_TEXT:
        raise ModelError(f"{path}: its description is longer than {MOST_TEXT} letters, which is no model of ours")
    try:
        facts = read_json(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its description is not JSON ({first_line(error)})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelError(f"{path} is not a model of metadarts: its description does not say format {FORMAT!r}")
    if not _whole(facts.get("version"), VERSION, VERSION):
        found = _shown(facts.get("version"))
        raise ModelError(f"{path}: expected version {VERSION} of the format, got {found}; update metadarts")
    try:
        fault = next(_faults(facts), "")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        fault = f"{type(error).__name__}: {first_line(error)}"
    if fault:
        raise ModelError(f"{path}: its description is damaged: {fault}")
    return facts


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _wholes(values: Any, least: int, most: int) -> bool:
    return isinstance(values, list) and all(_whole(value, least, most) for value in values)


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _faults(facts: Mapping[str, Any]) -> Iterator[str]:
    """What makes the description unusable, the first thing first: what follows relies on it."""
    classes, stem, cells = facts["classes"], facts["stem"], facts["cells"]
    if not (isinstance(classes, list) and 2 <= len(classes) <= MOST_CLASSES):
        yield f"classes: expected a list of 2 to {MOST_CLASSES} names"
    if not all(isinstance(name, str) for name in classes):
        yield "classes: expected names"
    yield from _image_faults(facts["image"])
    if not (_wholes(stem, 1, MOST_CHANNELS) and len(stem) == 2):
        yield "stem: expected two numbers of channels"
    if not (isinstance(cells, list) and 1 <= len(cells) <= MOST_CELLS):
        yield f"cells: expected 1 to {MOST_CELLS}"
    noise = facts["probes"]
    if not (isinstance(noise, list) and len(noise) == PROBES):
        yield f"probes: expected {PROBES} rows of logits"
    if not all(isinstance(row, list) and len(row) == len(classes) for row in noise):
        yield "probes: expected a logit of each class"
    if not all(type(value) is float for row in noise for value in row):
        yield "probes: expected finite numbers"
    yield from _cells_faults(stem[1], cells)
    yield from _work_faults(facts)


def _image_faults(image: Any) -> Iterator[str]:
    if not (_whole(image["channels"], 1, 3) and image["channels"] != 2):
        yield f"image.channels: expected 1 or 3, got {_shown(image['channels'])}"
    if not (_whole(image["height"], 4, MOST_SIDE) and _whole(image["width"], 4, MOST_SIDE)):
        yield f"image: expected a height and width of 4 to {MOST_SIDE}"
    if type(image["invert"]) is not bool:
        yield "image.invert: expected true or false"


def _cells_faults(incoming: int, cells: list[Any]) -> Iterator[str]:
    before = last = incoming
    for number, cell in enumerate(cells):
        channels, concat, edges = cell["channels"], cell["concat"], cell["edges"]
        if not _whole(channels, 2, MOST_CHANNELS) or channels % 2:
            yield f"cell {number}: expected an even number of channels"
        if not _wholes(cell["inputs"], 1, MOST_CHANNELS) or cell["inputs"] != [before, last]:
            yield f"cell {number}: its inputs must have {[before, last]} channels, as the states before it"
        yield from (f"cell {number}: {fault}" for fault in _edges_faults(edges, concat))
        before, last = last, channels * len(concat)
        if last > MOST_CHANNELS:
            yield f"cell {number}: more than {MOST_CHANNELS} channels"
    if sum(len(cell["edges"]) for cell in cells) > MOST_EDGES:
        yield f"more than {MOST_EDGES} operations"


def _edges_faults(edges: Any, concat: Any) -> Iterator[str]:
    if not (isinstance(edges, list) and edges and isinstance(concat, list) and concat):
        yield "expected edges and concat"
    if len(edges) > MOST_EDGES:
        yield "too many edges"
    for edge in edges:
        if not isinstance(edge, list) or len(edge) != 4:
            yield f"the edge {_shown(edge)}"
        node, source, name, stride = edge
        if not (_whole(node, 0, MOST_NODES - 1) and _whole(source, 0, node + 1)):
            yield f"an edge to node {_shown(node)} from state {_shown(source)}"
        if not isinstance(name, str) or name not in OPERATIONS:
            yield f"unknown operation {_shown(name)}"
        if not _whole(stride, 1, 2 if source < 2 else 1):
            yield f"stride {_shown(stride)} from state {source}"
    if len({stride for _, source, _, stride in edges if source < 2}) > 1:
        yield "edges of two strides"
    nodes = {edge[0] for edge in edges}
    if nodes != set(range(len(nodes))):
        yield "a node without an edge"
    if len(concat) > MOST_NODES + 2 or not _wholes(concat, 0, len(nodes) + 1):
        yield "concat names states that are not there"
    if min(concat) < 2 and _strided(edges):
        yield "concat joins maps of two sizes"


def _strided(edges: list[Any]) -> bool:
    return any(stride == 2 for _, _, _, stride in edges)


def _work_faults(facts: Mapping[str, Any]) -> Iterator[str]:
    """A few numbers can describe a network that no machine can run."""
    image, (first, second) = facts["image"], facts["stem"]
    height, width = image["height"], image["width"]
    maps = [first * height * width, second * (height // 2) * (width // 2)]
    height, width = height // 4, width // 4
    for cell in facts["cells"]:
        maps += [max(cell["inputs"]) * height * width] * 4  # the states before it may be twice as high and wide
        if _strided(cell["edges"]):
            height, width = (height + 1) // 2, (width + 1) // 2
        maps += [cell["channels"] * height * width] * len(cell["edges"])
    if max(maps) > MOST_VALUES or sum(maps) > MOST_WORK:
        yield f"maps of {max(maps)} numbers and {sum(maps)} in all for one image, more than a model of ours has"
