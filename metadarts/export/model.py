"""An exported model: its description and its tensors, in one .safetensors file that contains its own hash."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.core.modes import plain_torch
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.store.fields import Digest, Number
from metadarts.store.files import write_atomically
from metadarts.store.migrated_models import model_from_version_1
from metadarts.store.schema import Schema
from metadarts.store.tensors import digest, read_described, require_tensors, to_described

from .layers import check_layers
from .plain import Classifier, build

FORMAT, VERSION = "metadarts.model", 2
DIGEST = "tensors_sha256"
"""Where the description keeps the hash of the tensors."""

KEY = "metadarts"
"""Where each format keeps the description, as JSON."""

LIMIT = 1e-5
"""The difference from the source with which a model is shipped whatever its rounding, relative to an image's largest
logit; see `metadarts.export.check.export_model`."""

PROBES = 16
"""Images of noise whose logits a model carries, so that a damaged copy is told from a whole one."""

MOST_CLASSES, MOST_SIDE = 1000, 1024
MOST_BYTES, MOST_TEXT = 2**28, 2**22
"""Of a file, and of a description."""


@dataclass(frozen=True)
class ShippedModel:
    """An exported model.

    Args:
        facts: JSON: "classes", "image" (channels, height, width, invert), "layers" and "features" (see `plain`),
            "probes" (the logits of `probes`), and other facts about its origin.
        tensors: of `plain.Classifier`.
    """

    facts: dict[str, Any]
    tensors: Params

    def module(self) -> Classifier:
        """The classifier: uint8 pixels [N, C, H, W] in, logits out."""
        return build(self.facts, self.tensors)

    def logits(self, pixels: Tensor) -> Tensor:
        """[N, classes] of uint8 pixels [N, C, H, W]."""
        with plain_torch(), torch.no_grad():
            result: Tensor = self.module()(pixels)
        return result

    def to_bytes(self) -> bytes:
        """The content of a .safetensors file."""
        return to_described(self.facts, KEY, self.tensors)

    def save(self, path: Path) -> None:
        """Write the file atomically. Raises RunError."""
        write_atomically(path, self.to_bytes())


def make_model(structure: Mapping[str, Any], tensors: Params, facts: Mapping[str, Any]) -> ShippedModel:
    """A model from the result of `freeze`.

    Args:
        structure: "layers" and "features".
        tensors: with "mean" and "std" [C, 1, 1].
        facts: "classes", "image", and other facts to store.
    """
    told = {"format": FORMAT, "version": VERSION, **facts, **structure, DIGEST: digest(tensors)}
    model = ShippedModel(told, tensors)
    logits = model.logits(probes(told["image"]))
    return ShippedModel(told | {"probes": logits.double().tolist()}, tensors)


def probes(image: Mapping[str, Any]) -> Tensor:
    """The images whose logits a model carries: uint8 noise [PROBES, C, H, W], the same everywhere."""
    shape = (PROBES, image["channels"], image["height"], image["width"])
    raw = Key.from_seed(0).child("probes", *shape[1:]).bits().random_raw((math.prod(shape) + 7) // 8)
    return torch.frombuffer(bytearray(raw.astype("<u8").tobytes()), dtype=torch.uint8)[: math.prod(shape)].view(shape)


Side = Annotated[int, Meta(ge=4, le=MOST_SIDE)]


@dataclass(frozen=True)
class ImageFacts:
    """The images that a model takes."""

    channels: Literal[1, 3]
    height: Side
    width: Side
    invert: bool


@dataclass(frozen=True)
class ModelFacts:
    """What a file says of its model, see `ShippedModel`; ``more`` is what is worth knowing of its origin."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    image: ImageFacts
    layers: list[Any]
    features: int
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
    if isinstance(facts, dict) and (facts.get("format"), facts.get("version")) == (FORMAT, 1):
        with MODEL.refusing(f"{path}: its description is damaged"):
            facts = _from_version_1(facts)
    told = MODEL.convert(facts, str(path))
    return facts | {"probes": [list(row) for row in told.probes]}  # whole numbers among them are floats now


def _from_version_1(facts: dict[str, Any]) -> dict[str, Any]:
    try:
        return model_from_version_1(facts)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{type(error).__name__}: {first_line(error)}") from error


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


def _check(told: ModelFacts) -> None:
    """Require layers that fit one another, and numbers that agree. Raises ValueError."""
    if any(len(row) != len(told.classes) for row in told.probes):
        raise ValueError("probes: expected a logit of each class")
    features = check_layers(told.layers, (told.image.channels, told.image.height, told.image.width))
    if told.features != features:
        raise ValueError(f"features: expected {features}, as the last layer has, got {told.features}")


MODEL = Schema(
    ModelFacts, ModelError, "give a file that `export` wrote, or export it anew", (FORMAT, VERSION), MOST_TEXT,
    check=_check,
)  # fmt: skip
