"""The whole of an experiment as data, read and written as YAML without tags."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from metadarts.core.errors import ConfigError, GenotypeError, MetadartsError, nearest
from metadarts.inner import ENGINES, InnerLoop
from metadarts.meta import OuterLoop
from metadarts.networks import POLICIES, PRECISIONS, NetworkSpec
from metadarts.spaces import Genotype, darts

NETWORKS = ("supernet", "cell", "conv4")
BLOCKS = 4
"""Convolutional blocks of network "conv4"."""


@dataclass(frozen=True)
class Tasks:
    """Where tasks come from.

    Args:
        source: a name of `metadarts.tasks.SOURCES`, or "learn2learn:NAME" for a taskset of that library.
        file: the source's data (.npz file or folder); empty for built-in data and for the source's usual place.
        size: height and width to bring images to, in pixels; 0 for the source's own.
        channels: 1 or 3 to convert images to grey or colour; 0 for what they are.
        ways: classes per task.
        train_ways: classes per training task; 0 for ``ways``. More than at test time is a harder, richer lesson (Snell
            et al., 2017, section 2.6).
        shots: support images per class.
        queries: query images per class while training; evaluation has its own number.
    """

    source: str = "glyphs"
    file: str = ""
    size: int = 0
    channels: int = 0
    ways: int = 5
    train_ways: int = 0
    shots: int = 1
    queries: int = 5


@dataclass(frozen=True)
class Model:
    """The network. `channels`, `nodes` and the stem as in T-NAS unless changed.

    Args:
        network: "supernet"; "cell", the discrete network of ``genotype``; or "conv4", MAML's four convolutional blocks
            of ``channels`` channels each, without cells.
        genotype: of "cell", as DARTS writes it.
        pool_norm: batch norm after the pools of cells (T-NAS: in the search network, not in a derived cell's).
        channels: C of the first cell; reduction cells double it.
        nodes: intermediate nodes per cell.
        stem: channels of the two stem convolutions.
        head: "shared" or "prototype".
        affine: affine batch norms inside cells.
        bn: "transductive" or "support", in training and evaluation alike.
        precision: "fp32" or "bf16"; "fp64" computes in double precision on float32 parameters, for checks.
    """

    network: str = "supernet"
    genotype: str = ""
    channels: int = 16
    nodes: int = 4
    stem: tuple[int, int] = (24, 48)
    head: str = "shared"
    affine: bool = False
    pool_norm: bool = True
    bn: str = "transductive"
    precision: str = "fp32"


@dataclass(frozen=True)
class Training:
    """The outer loop's length and rhythm.

    Args:
        meta_steps: stop after so many outer updates; 0 for no limit.
        minutes: stop after so much wall time, validations included; 0 for no limit. One of the two must be given. A
            run limited by minutes is not reproducible step for step, since its length depends on the machine.
        tasks: tasks per meta-batch.
        micro_batch: the most tasks per pass; 0 for all at once where they fit.
        memory_gb: the most that a search may hold, in GB of 10^9 bytes (.inf: no limit); none for 80 % of what is free.
            What is predicted not to fit is done in smaller parts, see `metadarts.training.memory_plan`.
        fit_memory: when memory runs out, halve the tasks per pass and go on; the mean over tasks stays the same.
        engine: "batched", "loop" or "higher".
        capture: on a GPU, record the meta-step once and replay it (engine "batched").
        tf32: on a GPU, let products of float32 keep 10 of their 23 bits of mantissa (TensorFloat-32), which is faster.
        validations: how many times, evenly spread over the run, to look at validation classes.
        validation_tasks: tasks per look; always the same ones.
        save_seconds: how often to write the checkpoint to go on from, besides at every look.
        seed: of everything random.
    """

    meta_steps: int = 0
    minutes: float = 0.0
    tasks: int = 4
    micro_batch: int = 0
    memory_gb: float | None = None
    fit_memory: bool = False
    engine: str = "batched"
    capture: bool = True
    tf32: bool = False
    validations: int = 6
    validation_tasks: int = 100
    save_seconds: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Evaluate:
    """How a run is measured.

    Args:
        steps: inner steps on a held-out task.
        queries: query images per class.
        batch: tasks evaluated at once.
    """

    steps: int = 10
    queries: int = 15
    batch: int = 10


@dataclass(frozen=True)
class Config:
    """One experiment."""

    tasks: Tasks = field(default_factory=Tasks)
    model: Model = field(default_factory=Model)
    inner: InnerLoop = field(default_factory=InnerLoop)
    outer: OuterLoop = field(default_factory=OuterLoop)
    training: Training = field(default_factory=Training)
    evaluate: Evaluate = field(default_factory=Evaluate)

    def network_spec(self, channels: int, size: tuple[int, int] = (0, 0)) -> NetworkSpec:
        """The macro structure for images of ``channels`` channels and (height, width) ``size``, which "conv4" asks."""
        model = self.model
        if model.network == "conv4":
            flat = (size[0] // 2**BLOCKS) * (size[1] // 2**BLOCKS)
            return NetworkSpec(channels, (model.channels,) * BLOCKS, cells=(), head=model.head, flat=flat)
        return NetworkSpec(
            channels, model.stem, model.channels, affine=model.affine, pool_norm=model.pool_norm, head=model.head
        )

    def cell(self) -> Genotype | None:
        """The cell of network "cell"; None for the others. Raises GenotypeError."""
        if self.model.network != "cell":
            return None
        genotype = Genotype.parse(self.model.genotype)
        genotype.validate(darts(self.model.nodes))
        return genotype

    def check(self) -> Config:
        """The same configuration, or one ConfigError that names every field out of range."""
        faults = [text for text in _faults(self) if text]
        if faults:
            raise ConfigError("configuration: " + "; ".join(faults))
        return self


def _faults(config: Config) -> Iterable[str]:
    model, training = config.model, config.training
    if training.meta_steps <= 0 and training.minutes <= 0:
        yield "training.meta_steps or training.minutes: one must be positive, it says when to stop"
    yield from _number_faults(config)
    if config.tasks.train_ways == 1 or config.tasks.train_ways < 0:
        yield f"tasks.train_ways: expected 0 (as ways) or at least 2, got {config.tasks.train_ways}"
    if config.tasks.channels not in (0, 1, 3):
        yield f"tasks.channels: expected 0 (as found), 1 (grey) or 3 (colour), got {config.tasks.channels}"
    if model.network not in NETWORKS:
        yield f"model.network {model.network!r} is unknown; {nearest(model.network, NETWORKS)}"
    if model.genotype and model.network != "cell":
        yield f"model.genotype: network {model.network!r} has none; leave it empty, or set model.network to cell"
    if model.bn not in POLICIES:
        yield f"model.bn {model.bn!r} is unknown; {nearest(model.bn, POLICIES)}"
    if model.precision not in PRECISIONS:
        yield f"model.precision {model.precision!r} is unknown; {nearest(model.precision, PRECISIONS)}"
    if training.engine not in ENGINES:
        yield f"training.engine {training.engine!r} is unknown; {nearest(training.engine, ENGINES)}"
    try:
        config.network_spec(1)
    except ConfigError as error:
        yield str(error).replace("network.", "model.")
    try:
        if model.nodes >= 1:
            config.cell()
    except GenotypeError as error:
        yield f"model.genotype: {error}"


def _number_faults(config: Config) -> Iterable[str]:
    for group, name, least in _LEAST:
        value = getattr(getattr(config, group), name)
        if not value >= least:  # so that NaN is refused too
            yield f"{group}.{name}: expected at least {least}, got {value}"
    for name in _OUTER_RATES:
        value = getattr(config.outer, name)
        if value > MOST_RATE:
            yield f"outer.{name}: expected at most {MOST_RATE:g}, got {value}; usual are values below 1"
    for group, name in _POSITIVE:
        value = getattr(getattr(config, group), name)
        if value is not None and not value > 0:
            yield f"{group}.{name}: expected a positive number or none, got {value}"


_OUTER_RATES = ("weight_rate", "alpha_rate", "rate_rate", "alpha_decay", "final")
MOST_RATE = 1e3
"""Beyond this an outer rate can only be a slip; far beyond, the optimiser's single precision overflows."""
UNREADABLE = (yaml.YAMLError, ValueError, AttributeError, RecursionError, MemoryError)
"""What PyYAML raises on bad text: besides its own errors those of Python's int, dates and stack."""
WIDEST = 2**63
"""Whole numbers reach torch, numpy and JSON in 64 bits."""

_POSITIVE = (("outer", "clip"), ("training", "memory_gb"))
_LEAST = (
    ("tasks", "ways", 2),
    ("tasks", "shots", 1),
    ("tasks", "queries", 1),
    ("tasks", "size", 0),
    ("model", "channels", 2),
    ("model", "nodes", 1),
    ("outer", "weight_rate", 0),
    ("outer", "alpha_rate", 0),
    ("outer", "rate_rate", 0),
    ("outer", "alpha_decay", 0),
    ("outer", "alpha_warmup", 0),
    ("outer", "final", 0),
    ("training", "meta_steps", 0),
    ("training", "minutes", 0),
    ("training", "tasks", 1),
    ("training", "micro_batch", 0),
    ("training", "validations", 1),
    ("training", "validation_tasks", 2),
    ("training", "save_seconds", 0),
    ("evaluate", "steps", 0),
    ("evaluate", "queries", 1),
    ("evaluate", "batch", 1),
)

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "training.minutes": 3.0,
        "training.tasks": 8,
        "inner.steps": 2,
        "inner.weight_rate": 0.4,
        "evaluate.steps": 5,
        "outer.final": 0.05,
    },
    "omniglot": {
        "training.minutes": 20.0,
        "training.tasks": 2,
        "training.validations": 4,
        "training.validation_tasks": 60,
        "tasks.train_ways": 20,
        "tasks.queries": 3,
        "model.head": "prototype",
        "inner.steps": 1,
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "cifar": {
        "training.minutes": 20.0,
        "training.tasks": 2,
        "training.validations": 4,
        "training.validation_tasks": 60,
        "tasks.train_ways": 10,
        "tasks.queries": 5,
        "model.head": "prototype",
        "inner.steps": 1,
        "inner.weight_rate": 0.05,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "start-glyphs": {
        "training.meta_steps": 1500,
        "training.tasks": 2,
        "training.validations": 5,
        "training.validation_tasks": 60,
        "tasks.train_ways": 12,
        "tasks.shots": 3,
        "tasks.queries": 3,
        "model.head": "prototype",
        "model.bn": "support",
        "inner.steps": 1,
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "start-cifar-fs": {
        "training.meta_steps": 2400,
        "training.tasks": 2,
        "training.validations": 6,
        "training.validation_tasks": 60,
        "tasks.train_ways": 10,
        "tasks.shots": 5,
        "tasks.queries": 5,
        "model.head": "prototype",
        "model.bn": "support",
        "inner.steps": 1,
        "inner.weight_rate": 0.05,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "tnas": {
        "training.meta_steps": 12500,
        "tasks.queries": 15,
        "inner.order": "first",
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 30.0,
    },
}
"""Named settings; `metadarts search --preset NAME`. `tnas` is the paper's search (Lian et al., 2020); `start-*` make
the bundled starts, under `support` statistics, since what is exported has them frozen."""


def preset(name: str) -> dict[str, Any]:
    """The settings of preset ``name``. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: {nearest(name, PRESETS)}")
    return dict(PRESETS[name])


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """``config`` with "group.field" settings applied; text values are read as YAML scalars.

    Raises:
        ConfigError: one message naming every unknown field, with the nearest valid one, and every wrong value.
    """
    faults: list[str] = []
    for path, value in settings.items():
        try:
            config = _with_setting(config, path, value)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))
    return config


def _with_setting(config: Config, path: str, value: Any) -> Config:
    group, _, name = path.partition(".")
    groups = {f.name for f in fields(config)}
    if group not in groups or not name:
        known = sorted(f"{g}.{f.name}" for g in groups for f in fields(getattr(config, g)))
        raise ConfigError(f"unknown setting {path!r}: {nearest(path, known)}")
    section = getattr(config, group)
    hints = typing.get_type_hints(type(section))
    if name not in hints:
        raise ConfigError(f"unknown setting {path!r}: {nearest(name, hints)}")
    try:
        return replace(config, **{group: replace(section, **{name: _convert(path, value, hints[name])})})
    except MetadartsError as error:
        raise ConfigError(f"{path}: {error}") from error


def _convert(path: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type; "4" is 4 for an int field, "[24, 48]" a pair for a tuple field."""
    if isinstance(value, str) and hint is not str:
        try:
            value = yaml.safe_load(value)
        except UNREADABLE as error:
            raise ConfigError(f"expected {_type_name(hint)}, got {_shown(value)}") from error
    if isinstance(value, int) and not -WIDEST <= value < WIDEST:
        raise ConfigError(f"expected {_type_name(hint)}, got a whole number beyond 64 bits")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, str) and float in options:
        with suppress(ValueError):  # YAML 1.1 takes 1e-3 for text: it wants 1.0e-3
            value = float(value)
    if value is None or (isinstance(value, str) and value == "none" and type(None) in options):
        if type(None) in options:
            return None
    elif float in options and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        if len(value) == len(typing.get_args(hint)) and all(type(item) is int for item in value):
            return tuple(value)
    elif any(type(value) is option for option in options):
        return value
    raise ConfigError(f"expected {_type_name(hint)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """``value`` cut to a line: aliases of YAML make a few bytes of text into lists of any length."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    try:
        return short.repr(value)
    except ValueError:  # a whole number inside with more digits than Python prints
        return f"a {type(value).__name__}"


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def to_settings(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dictionaries, as in config.yaml."""
    return {
        group: {name: list(value) if isinstance(value, tuple) else value for name, value in section.items()}
        for group, section in dataclasses.asdict(config).items()
    }


def dump_config(config: Config) -> str:
    """YAML text of the resolved configuration."""
    return yaml.safe_dump(to_settings(config), sort_keys=False)


def load_config(path: Path) -> Config:
    """Read a config.yaml. Raises ConfigError for unreadable YAML, tags, unknown fields and wrong values."""
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *UNREADABLE) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: expected a YAML file of settings, could not read it ({first})") from error
    if not isinstance(table, dict) or not all(isinstance(section, dict) for section in table.values()):
        raise ConfigError(f"{path}: expected groups of settings (tasks, model, inner, outer, training, evaluate)")
    settings = {f"{group}.{name}": value for group, section in table.items() for name, value in section.items()}
    return with_settings(Config(), settings)
