"""A fitted meta-model as one .safetensors file: tensors, and a description in JSON. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from metadarts.core.errors import RunError
from metadarts.core.types import Params
from metadarts.store.files import write_atomically
from metadarts.store.schema import Schema
from metadarts.store.tensors import read_described, require_tensors, to_described

from .archive_rows import SpaceFacts, space_of, space_text
from .footprints import Footprints
from .meta_dataset import FeatureExtractor
from .model import MetaModel, PredictorSpec
from .stem import Stem

FORMAT, VERSION, KEY = "metadarts.metamodel", 1, "metadarts"
STEM, MODEL = "param/", "model/"
WIDEST = 4096
"""Of hidden layers, channels and embeddings that a file may ask for."""

Width = Annotated[int, Meta(ge=1, le=WIDEST)]


@dataclass(frozen=True)
class ExtractorFacts:
    """What the model sees images through: a `Stem` with its channels, or `Footprints` with their reach."""

    kind: Literal["stem", "footprints"]
    in_channels: Width
    channels: tuple[Width, ...] = ()
    reach: Annotated[int, Meta(ge=0, le=32)] = 0


@dataclass(frozen=True)
class Description:
    """What a file says of its tensors; ``sight`` is the feature extractor, ``fitted`` the tasks that were learnt."""

    space: SpaceFacts
    spec: PredictorSpec
    sight: ExtractorFacts
    fitted: Annotated[int, Meta(ge=1, le=2**62)]
    facts: dict[str, Any]


def _check(told: Description) -> None:
    if max(told.spec.width, told.spec.embedding) > WIDEST:
        raise ValueError(f"spec: expected a width and an embedding of {WIDEST} at most")
    if not (told.sight.channels if told.sight.kind == "stem" else told.sight.reach):
        raise ValueError("sight: expected the channels of a stem, or the reach of footprints")


PREDICTOR = Schema(Description, RunError, "give what `metamodel train` wrote", (FORMAT, VERSION), check=_check)


def save_model(model: MetaModel, path: Path, facts: Mapping[str, Any]) -> str:
    """Write ``model`` atomically.

    Args:
        facts: JSON values that describe its training data.

    Returns:
        The SHA-256 of the file.

    Raises:
        RunError: when it cannot be written.
    """
    told = {
        "format": FORMAT,
        "version": VERSION,
        "space": json.loads(space_text(model.space)),
        "spec": dataclasses.asdict(model.spec),
        "sight": _told(model.extractor),
        "fitted": model.fitted,
        "facts": dict(facts),
    }
    stem = model.extractor.params if isinstance(model.extractor, Stem) else {}
    tensors = {STEM + name: tensor for name, tensor in stem.items()}
    tensors |= {MODEL + name: tensor for name, tensor in model.modules.state_dict().items()}
    content = to_described(told, KEY, tensors)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def open_model(path: Path) -> tuple[MetaModel, dict[str, Any]]:
    """Open a file from `save_model`. Returns the model and its facts. Raises RunError when the file is missing,
    damaged, or something else."""
    text, tensors = read_described(path, KEY, PREDICTOR)
    told = PREDICTOR.read(text, str(path))
    with PREDICTOR.refusing(f"{path} is damaged"):
        return _built(told, tensors), told.facts


def _built(told: Description, tensors: Params) -> MetaModel:
    own = {name[len(STEM) :]: tensor for name, tensor in tensors.items() if name.startswith(STEM)}
    model = MetaModel(space_of(told.space), _extractor(told.sight, own), told.spec)
    expected = {MODEL + name: tensor.shape for name, tensor in model.modules.state_dict().items()}
    require_tensors(tensors, expected | {STEM + name: tensor.shape for name, tensor in own.items()})
    model.modules.load_state_dict({n[len(MODEL) :]: t for n, t in tensors.items() if n.startswith(MODEL)})
    model.fitted = told.fitted
    return model


def _told(extractor: FeatureExtractor) -> dict[str, Any]:
    if isinstance(extractor, Stem):
        return {"kind": "stem", "in_channels": extractor.in_channels, "channels": list(extractor.channels)}
    if isinstance(extractor, Footprints):
        return {"kind": "footprints", "in_channels": extractor.in_channels, "reach": extractor.reach}
    raise RunError(f"a meta-model that sees through {type(extractor).__name__} cannot be saved: use Stem or Footprints")


def _extractor(told: ExtractorFacts, own: Params) -> FeatureExtractor:
    if told.kind == "stem":
        return Stem(told.in_channels, told.channels, own)
    return Footprints(told.in_channels, told.reach)
