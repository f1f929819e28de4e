"""A fitted meta-model as one .safetensors file: tensors, and a description in JSON. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from metadarts.core.errors import DataError, MetadartsError, RunError
from metadarts.core.types import Params
from metadarts.store.described import read_described, whole
from metadarts.store.files import write_atomically

from .archive_rows import read_space, space_text
from .footprints import Footprints
from .meta_dataset import FeatureExtractor
from .model import MetaModel, PredictorSpec
from .stem import Stem

FORMAT, VERSION, KEY = "metadarts.predictor", 1, "metadarts"
STEM, MODEL = "param/", "model/"
WIDEST = 4096
"""Of hidden layers, channels and embeddings that a file may ask for."""
FARTHEST = 32
"""Of the reach of footprints."""


def save_model(model: MetaModel, path: Path, facts: Mapping[str, Any]) -> str:
    """Write ``model`` whole or not at all.

    Args:
        facts: JSON values that say what it was fitted on.

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
        "sight": _told(model.sight),
        "fitted": model.fitted,
        "facts": dict(facts),
    }
    stem = model.sight.params if isinstance(model.sight, Stem) else {}
    tensors = {STEM + name: tensor.contiguous() for name, tensor in stem.items()}
    tensors |= {MODEL + name: tensor.contiguous() for name, tensor in model.modules.state_dict().items()}
    content = save_tensors(tensors, metadata={KEY: json.dumps(told)})
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def open_model(path: Path) -> tuple[MetaModel, dict[str, Any]]:
    """What `save_model` wrote, and its facts. Raises RunError when the file is missing, damaged, or something else."""
    try:
        told, tensors = read_described(path, KEY)
    except DataError as error:
        raise RunError(f"{path} is no meta-model: it cannot be read as a .safetensors file ({error})") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
        raise RunError(
            f"{path} is no meta-model of ours: expected format {FORMAT!r}, version {VERSION}; give what "
            "`metamodel train` wrote"
        )
    try:
        return _built(told, tensors), dict(told["facts"])
    except MetadartsError as error:
        raise RunError(f"{path} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise RunError(
            f"{path} is damaged: its description and its tensors do not fit ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error


def _built(told: dict[str, Any], tensors: dict[str, torch.Tensor]) -> MetaModel:
    spec = PredictorSpec(**told["spec"])
    for number in (spec.width, spec.embedding):
        whole(number, 1, WIDEST)
    if odd := [name for name, tensor in tensors.items() if not _is_usable(tensor)]:
        raise ValueError(f"{odd[0]!r} must hold finite float32 numbers")
    own = {name[len(STEM) :]: tensor for name, tensor in tensors.items() if name.startswith(STEM)}
    model = MetaModel(read_space(json.dumps(told["space"])), _sight(told["sight"], own), spec)
    model.modules.load_state_dict({n[len(MODEL) :]: t for n, t in tensors.items() if n.startswith(MODEL)})
    model.fitted = whole(told["fitted"], 1, 2**62)
    return model


def _told(sight: FeatureExtractor) -> dict[str, Any]:
    if isinstance(sight, Stem):
        return {"kind": "stem", "in_channels": sight.in_channels, "channels": list(sight.channels)}
    if isinstance(sight, Footprints):
        return {"kind": "footprints", "in_channels": sight.in_channels, "reach": sight.reach}
    raise RunError(f"a meta-model that sees through {type(sight).__name__} cannot be saved: use Stem or Footprints")


def _sight(told: dict[str, Any], own: Params) -> FeatureExtractor:
    channels = whole(told["in_channels"], 1, WIDEST)
    if told["kind"] == "stem":
        return Stem(channels, tuple(whole(number, 1, WIDEST) for number in told["channels"]), own)
    if told["kind"] == "footprints":
        return Footprints(channels, whole(told["reach"], 1, FARTHEST))
    raise ValueError(f"its images are seen through {str(told['kind'])[:40]!r}, which is not known")


def _is_usable(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())
