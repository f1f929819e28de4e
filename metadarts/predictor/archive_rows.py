"""A record as one row of the archive, and back: what is checked, how it is written, and its name."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import struct
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from msgspec import Meta

from metadarts.core.errors import DataError, MetadartsError, nearest
from metadarts.derive import derive_genotype
from metadarts.spaces import Genotype, SearchSpace
from metadarts.store.fields import Fraction, Text, Whole
from metadarts.store.schema import Schema, fitting, loads

from .rebuild import read_episode
from .task_record import ADAPTED, EPISODE, FOLDER, RELAXED_BY, TEACHER, TRAINED, Alphas, Origin, TaskRecord

KINDS = (EPISODE, FOLDER, TEACHER)
ROLES = (ADAPTED, TRAINED)


class Row(NamedTuple):
    """One record as the table holds it; `origin_sha256`, `kind`, `source` and `split` follow from ``origin``.

    Args:
        id: SHA-256 of everything that does not follow from something else, see `identity`.
        origin: `Origin.to_json`.
        space: the fields of the `SearchSpace` as JSON.
        alphas: little-endian float32, the cell types in the order of the space, each [E, P].
        genotype: its text, canonical.
        settings: JSON.
    """

    id: str
    origin_sha256: str
    kind: str
    source: str
    split: str
    origin: str
    space: str
    alphas: bytes
    genotype: str
    accuracy_before: float
    accuracy_after: float
    role: str
    seed: int
    run: str
    settings: str


def encode(record: TaskRecord) -> Row:
    """The row of ``record``. Raises DataError for what is not a record, see `check`."""
    check(record)
    origin, space = record.origin, record.space
    row = Row(
        "",
        origin.sha256,
        origin.kind,
        source_of(origin),
        split_of(origin),
        origin.to_json(),
        space_text(space),
        b"".join(np.ascontiguousarray(record.alphas[cell], dtype="<f4").tobytes() for cell in space.cell_types),
        str(record.genotype.canonical()),
        float(record.before),
        float(record.after),
        record.role,
        int(record.seed),
        record.run,
        json_text("settings", record.settings),
    )
    return row._replace(id=identity(row))


def identity(row: Row) -> str:
    """The name of what the row says: SHA-256 over origin, space, alphas, genotype, accuracies, role, seed and more."""
    parts = [
        row.origin.encode(),
        row.space.encode(),
        row.alphas,
        row.genotype.encode(),
        struct.pack("<dd", row.accuracy_before, row.accuracy_after),
        row.role.encode(),
        str(row.seed).encode(),
        row.run.encode(),
        row.settings.encode(),
    ]
    digest = hashlib.sha256(b"metadarts experience 1")
    for part in parts:  # each with its length, so that nothing can move from one to the next
        digest.update(f" {len(part)} ".encode() + part)
    return digest.hexdigest()


def decode(row: Row) -> TaskRecord:
    """The record of a row that hashes to its name. Raises DataError when the row was damaged or changed.

    What `check` requires is not checked again: the name vouches for it, unless another hand wrote both.
    """
    try:
        return _decoded(row)
    except (ValueError, MetadartsError) as error:
        raise DataError(
            f"record {str(row.id)[:12]} is damaged: {error}; restore the archive, or merge what is whole into a new one"
        ) from error


def _decoded(row: Row) -> TaskRecord:
    for name, kind in typing.get_type_hints(Row).items():
        if type(getattr(row, name)) is not kind:
            raise ValueError(f"{name} is of type {type(getattr(row, name)).__name__}")
    found = identity(row)
    if found != row.id:
        raise ValueError(f"it hashes to {found[:12]}…")
    origin = _origin(row.origin)
    if _follows(origin) != (row.origin_sha256, row.kind, row.source, row.split):
        raise ValueError("its columns and its origin differ")
    space = read_space(row.space)
    return TaskRecord(
        origin, space, _alphas(row.alphas, space), _genotype(row.genotype), row.accuracy_before, row.accuracy_after,
        row.role, row.seed, row.run, SETTINGS.read(row.settings, "settings"),
    )  # fmt: skip


def _follows(origin: Origin) -> tuple[str, str, str, str]:
    return origin.sha256, origin.kind, source_of(origin), split_of(origin)


def source_of(origin: Origin) -> str:
    """Of which data the task is; the kind where the facts name none."""
    return _fact(origin, "source") or origin.kind


def split_of(origin: Origin) -> str:
    """Of which split; empty where the facts name none."""
    return _fact(origin, "split")


def _fact(origin: Origin, name: str) -> str:
    value = origin.facts.get(name)
    return value if isinstance(value, str) else ""


def check(record: TaskRecord) -> None:
    """Require what an archive may hold, the same for everyone who reads it later.

    Raises:
        DataError: for an unknown kind or role, facts or settings that are not JSON, an episode of another form, alphas
            that are not finite float32 of the space's shape, a genotype that is no point of the space (or, of alphas
            adapted under the softmax, not theirs), or an accuracy outside 0 to 1.
    """
    origin = record.origin
    if origin.kind not in KINDS:
        raise DataError(f"unknown kind of origin {origin.kind!r}: {nearest(str(origin.kind), KINDS)}")
    if record.role not in ROLES:
        raise DataError(f"unknown role {record.role!r}: {nearest(str(record.role), ROLES)}")
    json_text("the origin's facts", origin.facts)
    json_text("settings", record.settings)
    if origin.kind == EPISODE:
        read_episode(origin)
    _check_architecture(record)
    for name in ("before", "after"):
        _check_accuracy(name, getattr(record, name))
    if fitting(record.seed, Whole) is None:
        raise DataError(f"seed: expected a whole number of 64 bits, got {record.seed!r:.80}")
    if not isinstance(record.run, str) or not record.run or not record.run.isprintable():
        raise DataError(f"run: expected the hash of a checkpoint or a word, got {record.run!r:.80}")


def _check_accuracy(name: str, value: Any) -> None:
    if fitting(value, Fraction) is None:
        raise DataError(
            f"accuracy {name}: expected a number from 0 to 1, got {value!r:.80}; give a share, not per cent"
        )


def _check_architecture(record: TaskRecord) -> None:
    space, alphas, genotype = record.space, record.alphas, record.genotype
    if set(alphas) != set(space.cell_types):
        raise DataError(
            f"expected alphas of the cells {', '.join(space.cell_types)}, got {', '.join(alphas) or 'none'}"
        )
    for cell, table in alphas.items():
        _check_table(cell, table, space)
    try:
        genotype.validate(space)
    except MetadartsError as error:
        raise DataError(str(error)) from error
    if record.role != ADAPTED or RELAXED_BY in record.settings:
        return  # another relaxation ranks by scores of its own, and its code is not in the archive
    derived = derive_genotype({cell: torch.tensor(table) for cell, table in alphas.items()}, space).canonical()
    if derived != genotype.canonical():
        raise DataError(f"the alphas are not those of the genotype: expected {derived}, got {genotype.canonical()}")


def _check_table(cell: str, table: Any, space: SearchSpace) -> None:
    if not isinstance(table, np.ndarray) or table.dtype.newbyteorder("=") != np.float32:
        kind = getattr(table, "dtype", type(table).__name__)
        raise DataError(f"{cell} alphas: expected a numpy array of float32, got {kind}; convert it")
    if table.shape != space.alpha_shape:
        raise DataError(f"{cell} alphas: expected the shape {space.alpha_shape} of the space, got {table.shape}")
    if not np.isfinite(table).all():
        raise DataError(f"{cell} alphas: expected finite numbers; leave out tasks whose adaptation diverged")


def json_text(what: str, value: Mapping[str, Any]) -> str:
    """``value`` as JSON, its keys sorted: equal values, equal text. Raises DataError when it is no JSON object."""
    try:
        text = json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
        loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{what}: expected values that JSON can hold, finite numbers and text ({error})") from error
    return text


def space_text(space: SearchSpace) -> str:
    """Equal spaces, equal text: that of version 0.1. Raises DataError for a space that an archive cannot hold."""
    told = dataclasses.asdict(space)
    if told.pop("inputs_by") != "rule":
        raise DataError(
            f"space {space.name!r} has alphas for the inputs of its nodes, and an archive holds those of operations "
            "alone: record tasks of a space whose inputs_by is 'rule'"
        )
    return json_text("space", told)


@dataclass(frozen=True)
class SpaceFacts:
    """A `SearchSpace` in JSON."""

    name: Text
    primitives: tuple[Text, ...]
    nodes: Annotated[int, Meta(ge=1, le=64)]
    inputs: Annotated[int, Meta(ge=1, le=64)]
    cell_types: tuple[Text, ...]
    edges_per_node: int
    none: Text


SPACE = Schema(SpaceFacts, DataError)
ORIGIN = Schema(Origin, DataError)
SETTINGS: Schema[dict[str, Any]] = Schema(dict, DataError)


def space_of(told: SpaceFacts) -> SearchSpace:
    """Raises ConfigError for fields that make no space."""
    return SearchSpace(**vars(told))


@functools.lru_cache(maxsize=64)
def read_space(text: str) -> SearchSpace:
    """What `space_text` wrote. Raises DataError, or ConfigError for fields that make no space."""
    return space_of(SPACE.read(text, "space"))


@functools.lru_cache(maxsize=4096)
def _genotype(text: str) -> Genotype:
    return Genotype.parse(text)


def _origin(text: str) -> Origin:
    origin = ORIGIN.read(text, "origin")
    if origin.to_json() != text:
        raise ValueError("its origin is not in canonical form")
    return origin


def _alphas(content: bytes, space: SearchSpace) -> Alphas:
    edges, primitives = space.alpha_shape
    expected = 4 * space.alphas_total
    if len(content) != expected:
        raise ValueError(f"its alphas have {len(content)} bytes, the space needs {expected}")
    tables = np.frombuffer(content, dtype="<f4").astype(np.float32).reshape(-1, edges, primitives)
    return dict(zip(space.cell_types, tables, strict=True))
