"""A shipped model: its description and its tensors, in one .safetensors file that vouches for itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.core.files import write_atomically
from metadarts.core.rng import Key
from metadarts.core.types import Params

from .plain import OPERATIONS, Classifier, build

FORMAT, VERSION = "metadarts.model", 1
KEY = "metadarts"
"""Where each format keeps the description, as JSON."""

LIMIT = 1e-5
"""The largest difference from the source, relative to the largest logit, with which a model is shipped."""

PROBES = 16
"""Images of noise whose logits a model carries, so that a damaged copy is told from a whole one."""

MOST_CLASSES, MOST_SIDE, MOST_CHANNELS, MOST_CELLS, MOST_NODES, MOST_BYTES = 1000, 1024, 4096, 64, 16, 2**30


@dataclass(frozen=True)
class Model:
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
        return save_tensors(self.tensors, metadata={KEY: json.dumps(self.facts)})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises RunError."""
        write_atomically(path, self.to_bytes())


def make_model(structure: Mapping[str, Any], tensors: Params, facts: Mapping[str, Any]) -> Model:
    """A model of what `freeze` returned.

    Args:
        structure: "stem" and "cells".
        tensors: with "mean" and "std" [C, 1, 1].
        facts: "classes", "image", and what else is to be kept.
    """
    told = {"format": FORMAT, "version": VERSION, **facts, **structure}
    model = Model(told, tensors)
    logits = model.logits(probes(told["image"]))
    return Model(told | {"probes": logits.double().tolist()}, tensors)


def probes(image: Mapping[str, Any]) -> Tensor:
    """The images whose logits a model carries: uint8 noise [PROBES, C, H, W], the same everywhere."""
    shape = (PROBES, image["channels"], image["height"], image["width"])
    raw = Key.from_seed(0).child("probes", *shape[1:]).bits().random_raw((math.prod(shape) + 7) // 8)
    return torch.frombuffer(bytearray(raw.astype("<u8").tobytes()), dtype=torch.uint8)[: math.prod(shape)].view(shape)


def read_model(path: Path) -> Model:
    """Read a .safetensors file. Nothing in it is executed. Raises ModelError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"{path}: larger than {MOST_BYTES} bytes, which is no model of ours")
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path} as a .safetensors file ({_first_line(error)}); export it anew") from error
    if text is None:
        raise ModelError(f"{path} holds tensors but no description of a model; give a file that `export` wrote")
    model = Model(read_facts(text, path), tensors)
    check_tensors(model, path)
    return model


def check_tensors(model: Model, path: Path) -> None:
    """Require that the tensors are those the description asks for, and finite. Raises ModelError."""
    for name, tensor in model.tensors.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name!r} must hold finite float32 numbers; the file is damaged")
    try:
        model.module()
    except RuntimeError as error:
        raise ModelError(f"{path}: its tensors do not fit its description ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines[:2]) if lines else type(error).__name__


def read_facts(text: str, path: Path) -> dict[str, Any]:
    """A model's description, checked. Raises ModelError saying what is wrong with it."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its description is not JSON ({_first_line(error)})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelError(f"{path} is not a model of metadarts: its description does not say format {FORMAT!r}")
    if facts.get("version") != VERSION:
        raise ModelError(f"{path}: expected version {VERSION} of the format, got {facts.get('version')!r}; update us")
    try:
        fault = _fault(facts)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        fault = f"{type(error).__name__}: {_first_line(error)}"
    if fault:
        raise ModelError(f"{path}: its description is damaged: {fault}")
    return facts


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _fault(facts: Mapping[str, Any]) -> str:
    """What makes the description unusable; empty where nothing does."""
    classes, image = facts["classes"], facts["image"]
    if not (isinstance(classes, list) and 2 <= len(classes) <= MOST_CLASSES):
        return f"classes: expected a list of 2 to {MOST_CLASSES} names"
    if not all(isinstance(name, str) for name in classes):
        return "classes: expected names"
    if image["channels"] not in (1, 3) or type(image["channels"]) is not int:
        return f"image.channels: expected 1 or 3, got {image['channels']!r}"
    if not (_whole(image["height"], 4, MOST_SIDE) and _whole(image["width"], 4, MOST_SIDE)):
        return f"image: expected a height and width of 4 to {MOST_SIDE}"
    if type(image["invert"]) is not bool:
        return "image.invert: expected true or false"
    stem, cells, noise = facts["stem"], facts["cells"], facts["probes"]
    if not (isinstance(stem, list) and len(stem) == 2 and all(_whole(n, 1, MOST_CHANNELS) for n in stem)):
        return "stem: expected two numbers of channels"
    if not (isinstance(cells, list) and 1 <= len(cells) <= MOST_CELLS):
        return f"cells: expected 1 to {MOST_CELLS}"
    if not (isinstance(noise, list) and len(noise) == PROBES and all(len(row) == len(classes) for row in noise)):
        return f"probes: expected {PROBES} rows of logits"
    if not all(type(value) is float and math.isfinite(value) for row in noise for value in row):
        return "probes: expected finite numbers"
    return _cells_fault(stem[1], cells)


def _cells_fault(incoming: int, cells: list[Any]) -> str:
    before = last = incoming
    for number, cell in enumerate(cells):
        channels, concat, edges = cell["channels"], cell["concat"], cell["edges"]
        if not _whole(channels, 2, MOST_CHANNELS) or channels % 2:
            return f"cell {number}: expected an even number of channels"
        if cell["inputs"] != [before, last]:
            return f"cell {number}: its inputs must have {[before, last]} channels, as the states before it"
        if fault := _edges_fault(edges, concat):
            return f"cell {number}: {fault}"
        before, last = last, channels * len(concat)
        if last > MOST_CHANNELS:
            return f"cell {number}: more than {MOST_CHANNELS} channels"
    return ""


def _edges_fault(edges: Any, concat: Any) -> str:
    if not (isinstance(edges, list) and edges and isinstance(concat, list) and concat):
        return "expected edges and concat"
    if len(edges) > MOST_NODES * (MOST_NODES + 1) * len(OPERATIONS):
        return "too many edges"
    for node, source, name, stride in edges:
        if not (_whole(node, 0, MOST_NODES - 1) and _whole(source, 0, node + 1)):
            return f"an edge to node {node!r} from state {source!r}"
        if not isinstance(name, str) or name not in OPERATIONS:
            return f"unknown operation {name!r}"
        if stride not in (1, 2) or type(stride) is not int:
            return f"stride {stride!r}"
    nodes = {edge[0] for edge in edges}
    if nodes != set(range(len(nodes))):
        return "a node without an edge"
    if len(concat) > MOST_NODES or not all(_whole(state, 0, len(nodes) + 1) for state in concat):
        return "concat names states that are not there"
    return ""
