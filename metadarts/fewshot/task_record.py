"""A person's own task as a record, for the archive that the meta-model learns from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from metadarts.core.errors import DataError
from metadarts.core.types import alphas_of
from metadarts.papers.recording import relaxation_facts, tensors_sha256
from metadarts.predictor.task_record import ADAPTED, FOLDER, Origin, TaskRecord

from .labelled import Labelled
from .learn import AdaptSettings, derive
from .start import Start
from .task import Solution, Support


def folder_origin(place: Path, learnt: Labelled, held_out: Labelled) -> Origin:
    """What the task is made of: its classes, and of each image its place, hash, label and whether it was held out.

    Places are relative to the folder, or to the folder of the .csv file; images of an .npz file have a number there,
    and the hash of their pixels.

    Args:
        place: the folder or file that was read.
        learnt: the images to learn from.
        held_out: those to measure on, of the same classes.

    Raises:
        DataError: when an image cannot be read.
    """
    base = place if place.is_dir() else place.parent
    images = [
        {"path": _relative(image, name, base), "sha256": _sha256(image), "label": int(label), "held_out": held}
        for part, held in ((learnt, False), (held_out, True))
        for image, name, label in zip(part.images, part.names, part.labels, strict=True)
    ]
    return Origin(FOLDER, {"source": place.resolve().name, "classes": list(learnt.classes), "images": images})


def _relative(image: Any, name: str, base: Path) -> str:
    return Path(os.path.relpath(image, base)).as_posix() if isinstance(image, Path) else name


def _sha256(image: Any) -> str:
    """Of the file's bytes; of an array its type, shape and numbers."""
    if not isinstance(image, Path):
        array = np.ascontiguousarray(image)
        return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {image} ({error.strerror or error}); check its name and its rights") from error


def record_of(origin: Origin, start: Start, support: Support, adapted: Solution, settings: AdaptSettings) -> TaskRecord:
    """The adapted supernet of a task: its alphas, its cell, and its accuracy on the held-out images.

    Args:
        origin: the task, see `folder_origin`.
        start: what was adapted.
        support: what it was learnt from.
        adapted: the solution, learnt with held-out images beside it.
        settings: how.

    Raises:
        DataError: when no images were held out.
    """
    before, after = adapted.history[0].accuracy, adapted.history[adapted.kept].accuracy
    if before is None or after is None:
        raise DataError("expected a task with held-out images, whose accuracy is recorded; hold some out")
    tables = {kind: table.detach().cpu().float().numpy() for kind, table in alphas_of(adapted.params).items()}
    told = start.facts.get("checkpoint_sha256")
    run = told if isinstance(told, str) and told else tensors_sha256(start.params, start.rates)
    return TaskRecord(
        origin, adapted.network.space, tables, derive(adapted).canonical(), before, after, ADAPTED, support.seed, run,
        _facts(start, support, adapted, settings),
    )  # fmt: skip


def _facts(start: Start, support: Support, adapted: Solution, settings: AdaptSettings) -> dict[str, Any]:
    inner, form = settings.inner(start), support.form
    return {
        "steps": settings.steps,
        "kept": adapted.kept,
        **inner.facts,
        "learned_rates": settings.rates(start) is not None,
        "bn": start.learner.bn,
        "precision": start.learner.precision,
        "image": {"channels": form.channels, "height": form.height, "width": form.width, "invert": form.invert},
        **relaxation_facts(start.config),
    }
