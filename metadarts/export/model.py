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
from metadarts.store.migration import model_from_version_1

from .layers import check_layers
from .plain import Classifier, build

FORMAT, VERSION = "metadarts.model", 2
DIGEST = "tensors_sha256"
"""Where the description keeps the hash of the tensors."""

KEY = "metadarts"
"""Where each format keeps the description, as JSON."""

LIMIT = 1e-5
"""The largest difference from the source with which a model is shipped, relative to an image's largest logit."""

PROBES = 16
"""Images of noise whose logits a model carries, so that a damaged copy is told from a whole one."""

MOST_CLASSES, MOST_SIDE = 1000, 1024
MOST_BYTES, MOST_TEXT = 2**28, 2**22
"""Of a file, and of a description."""


@dataclass(frozen=True)
class ShippedModel:
    """What is shipped.

    Args:
        facts: JSON: "classes", "image" (channels, height, width, invert), "layers" and "features" (see `plain`),
            "probes" (the logits of `probes`), and what else is worth knowing of its origin.
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
        structure: "layers" and "features".
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
    if not _whole(facts.get("version"), 1, VERSION):
        found = _shown(facts.get("version"))
        raise ModelError(f"{path}: expected version {VERSION} of the format, got {found}; update metadarts")
    try:
        facts = model_from_version_1(facts) if facts["version"] == 1 else facts
        fault = next(_faults(facts), "")
    except ValueError as error:
        fault = first_line(error)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        fault = f"{type(error).__name__}: {first_line(error)}"
    if fault:
        raise ModelError(f"{path}: its description is damaged: {fault}")
    return facts


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _faults(facts: Mapping[str, Any]) -> Iterator[str]:
    """What makes the description unusable, the first thing first: what follows relies on it."""
    classes, image, noise = facts["classes"], facts["image"], facts["probes"]
    if not (isinstance(classes, list) and 2 <= len(classes) <= MOST_CLASSES):
        yield f"classes: expected a list of 2 to {MOST_CLASSES} names"
    if not all(isinstance(name, str) for name in classes):
        yield "classes: expected names"
    yield from _image_faults(image)
    if not (isinstance(noise, list) and len(noise) == PROBES):
        yield f"probes: expected {PROBES} rows of logits"
    if not all(isinstance(row, list) and len(row) == len(classes) for row in noise):
        yield "probes: expected a logit of each class"
    if not all(type(value) is float for row in noise for value in row):
        yield "probes: expected finite numbers"
    features = check_layers(facts["layers"], (image["channels"], image["height"], image["width"]))
    if not _whole(facts["features"], features, features):
        yield f"features: expected {features}, as the last layer has, got {_shown(facts['features'])}"


def _image_faults(image: Any) -> Iterator[str]:
    if not (_whole(image["channels"], 1, 3) and image["channels"] != 2):
        yield f"image.channels: expected 1 or 3, got {_shown(image['channels'])}"
    if not (_whole(image["height"], 4, MOST_SIDE) and _whole(image["width"], 4, MOST_SIDE)):
        yield f"image: expected a height and width of 4 to {MOST_SIDE}"
    if type(image["invert"]) is not bool:
        yield "image.invert: expected true or false"
