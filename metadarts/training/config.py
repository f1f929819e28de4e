"""A complete experiment as data, read and written as YAML without tags."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from metadarts.core.errors import ConfigError, GenotypeError, MetadartsError, nearest
from metadarts.core.variants import Variants
from metadarts.costs import Penalty
from metadarts.inner import Engine, InnerLoop
from metadarts.meta import MetaRule, OuterLoop
from metadarts.networks import POLICIES, PRECISIONS, AlphaStart, Image, Network, Structure, Style
from metadarts.optim import rule_by_name
from metadarts.relaxations import Relaxation
from metadarts.spaces import Genotype, SearchSpace
from metadarts.store.migration import migrated_settings
from metadarts.store.schema import shown
from metadarts.testing.engines import ENGINES

from .catalogue import BUILT_IN, Catalogue, load_plugins
from .choice import Choice
from .commitment import Commitment
from .shorthand import written_out
from .values import UNREADABLE, convert

NETWORKS = ("supernet", "cell")
NO_COST = "none"
ANY_IMAGE = Image(1, 32, 32)
"""Where the images are not known and make no difference."""


@dataclass(frozen=True)
class Tasks:
    """Where tasks come from.

    Args:
        source: a name of `metadarts.tasks.SOURCES`, or "learn2learn:NAME" for a taskset of that library.
        file: the source's data (.npz file or folder); empty for built-in data and for the source's default place.
        size: height and width of images after resizing, in pixels; 0 for those of the source.
        channels: 1 or 3 to convert images to grey or colour; 0 to keep them.
        ways: classes per task.
        train_ways: classes per training task, or all classes if there are fewer (not for learn2learn's tasksets); 0 for
            ``ways``. More ways than at test time make harder training tasks (Snell et al., 2017, section 2.6).
        shots: support images per class.
        queries: query images per class in training; evaluation has a separate number.
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
    """Settings of every network, independent of its space and its macro structure.

    Args:
        network: "supernet", or "cell", the discrete network of ``genotype``.
        genotype: the genotype for "cell", in DARTS's notation.
        pool_norm: batch norm after the pools of cells (T-NAS: in the search network, not in that of a derived cell).
        head: "shared" or "prototype".
        affine: affine batch norms inside cells.
        bn: batch-norm statistics in training and evaluation: "transductive" or "support".
        precision: "fp32" or "bf16"; "fp64" computes in double precision on float32 parameters, for checks.
        partial: K: candidates of a supernet run on 1/K of the channels and the others bypass them; an extracted cell
            runs on all channels and inherits no weights.
    """

    network: str = "supernet"
    genotype: str = ""
    head: str = "shared"
    affine: bool = False
    pool_norm: bool = True
    bn: str = "transductive"
    precision: str = "fp32"
    partial: int = 1


@dataclass(frozen=True)
class Training:
    """Length and intervals of the outer loop.

    Args:
        meta_steps: stop after this number of outer updates; 0 for no limit.
        minutes: stop after this wall time, validations included; 0 for no limit. One of the two must be given. A run
            limited by minutes is not reproducible step for step, since its length depends on the machine.
        tasks: tasks per meta-batch.
        micro_batch: maximum number of tasks per pass; 0 for all at once if they fit.
        memory_gb: memory limit of a search, in GB of 10^9 bytes (.inf: no limit); none for 80 % of the free memory.
            Work that is predicted not to fit is done in smaller parts, see `metadarts.training.memory_plan`.
        fit_memory: if memory runs out, halve the tasks per pass and continue; the mean over tasks stays the same.
        engine: "batched", or "loop" or "higher" as references; see `metadarts.testing.engines`.
        capture: on a GPU, record the meta-step once and replay it (engine "batched").
        tf32: on a GPU, use TensorFloat-32 for float32 products (10 instead of 23 bits of mantissa), which is faster.
        validations: number of validations, evenly spread over the run.
        validation_tasks: tasks per validation; always the same tasks.
        save_seconds: interval in seconds between checkpoints for resuming, in addition to those at validations.
        cost_strength: weight of the architecture's cost in the query loss, see `Config.cost`.
        seed: seed of all random numbers.
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
    cost_strength: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Evaluate:
    """Settings of the evaluation of a run.

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
    """One experiment.

    Args:
        space: the search space, an entry of `metadarts.spaces.SPACES`.
        macro: the network around the cells, an entry of `metadarts.networks.MACROS`.
        relaxation: the function from alphas to mixing weights, an entry of `metadarts.relaxations.RELAXATIONS`.
        alphas: where the alphas of a task start, an entry of `metadarts.networks.ALPHA_STARTS`.
        meta: the outer rule, an entry of `metadarts.meta.RULES`.
        cost: the architecture's cost, an entry of `metadarts.costs.COSTS`, or "none"; ``cost_strength`` is its weight
            in the query loss.
        commit: how the run commits to one cell.
        catalogue: the tables in which names are looked up, including the user's entries if plug-ins are loaded.
    """

    tasks: Tasks = field(default_factory=Tasks)
    space: Choice = field(default_factory=lambda: Choice("darts"))
    macro: Choice = field(default_factory=lambda: Choice("tnas"))
    relaxation: Choice = field(default_factory=lambda: Choice("softmax"))
    alphas: Choice = field(default_factory=lambda: Choice("shared"))
    model: Model = field(default_factory=Model)
    inner: InnerLoop = field(default_factory=InnerLoop)
    outer: OuterLoop = field(default_factory=OuterLoop)
    meta: Choice = field(default_factory=lambda: Choice("maml"))
    cost: Choice = field(default_factory=lambda: Choice(NO_COST))
    commit: Commitment = field(default_factory=Commitment)
    training: Training = field(default_factory=Training)
    evaluate: Evaluate = field(default_factory=Evaluate)
    catalogue: Catalogue = field(default=BUILT_IN, compare=False, repr=False)

    def structure(self, image: Image = ANY_IMAGE) -> Structure:
        """The macro structure for images of this form. Raises ConfigError."""
        style = Style(self.model.affine, self.model.pool_norm, self.model.head, self.model.partial)
        structure: Structure = self.macro.make(self.catalogue.macros, image, style)
        return structure

    def search_space(self) -> SearchSpace:
        """The search space. Raises ConfigError."""
        space: SearchSpace = self.space.make(self.catalogue.spaces)
        return space

    def build_network(self, image: Image = ANY_IMAGE) -> Network:
        """The network for images of this form. Raises ConfigError and GenotypeError."""
        operations, relaxation = self.catalogue.operations, self.build_relaxation()
        start = self.alpha_start()
        return Network(self.structure(image), self.search_space(), self.cell(), operations, relaxation, start=start)

    def alpha_start(self) -> AlphaStart:
        """From shared alphas to those that a task starts from. Raises ConfigError."""
        start: AlphaStart = self.alphas.make(self.catalogue.alpha_starts)
        return start

    def build_relaxation(self) -> Relaxation:
        """From alphas to mixing weights. Raises ConfigError."""
        relaxation: Relaxation = self.relaxation.make(self.catalogue.relaxations)
        return relaxation

    def engine(self) -> Engine | None:
        """The engine of the inner loop, see `metadarts.testing.ENGINES`. Raises ConfigError."""
        return ENGINES[self.training.engine]

    def meta_rule(self) -> MetaRule:
        """The outer rule. Raises ConfigError."""
        rule: MetaRule = self.meta.make(self.catalogue.rules)
        return rule

    def penalty(self, image: Image) -> Penalty | None:
        """The term of the architecture's cost in the query loss; None for none. Raises ConfigError."""
        if self.cost.name == NO_COST:
            return None
        if not (image.height and image.width):
            raise ConfigError("a cost needs a source that says its images' size; learn2learn's do not")
        cost = self.cost.make(self.catalogue.costs, image.height, image.width)
        return Penalty(cost, self.training.cost_strength)

    def network_name(self) -> str:
        """Name of the network: "cell", or the macro network of a supernet."""
        return "cell" if self.model.network == "cell" else self.macro.name

    @property
    def has_one_cell(self) -> bool:
        """Whether its alphas stand for one architecture, that of all tasks."""
        return self.alphas.name == "shared"

    def has_alphas(self) -> bool:
        """Whether there is an architecture to search: False for a discrete network and for one without cells."""
        return self.model.network == "supernet" and self.build_network().mixes

    def committed(self, genotype: str) -> Config:
        """The same configuration for the cell ``genotype`` to which the run committed."""
        return replace(self, model=replace(self.model, network="cell", genotype=genotype))

    def cell(self) -> Genotype | None:
        """The cell of network "cell"; None for the others. Raises GenotypeError."""
        if self.model.network != "cell":
            return None
        genotype = Genotype.parse(self.model.genotype)
        genotype.validate(self.search_space())
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
    for group in ("inner", "outer"):
        for name in ("rule", "alpha_rule"):
            if not isinstance(getattr(getattr(config, group), name), str | None):
                yield f"{group}.{name}: expected the name of a rule, which a file can hold, got an object"
    yield from _two_fold_faults(config)
    yield from _start_faults(config)
    if config.tasks.train_ways == 1 or config.tasks.train_ways < 0:
        yield f"tasks.train_ways: expected 0 (as ways) or at least 2, got {config.tasks.train_ways}"
    if config.tasks.channels not in (0, 1, 3):
        yield f"tasks.channels: expected 0 (as found), 1 (grey) or 3 (colour), got {config.tasks.channels}"
    if model.network not in NETWORKS:
        yield f"model.network {model.network!r} is unknown; {nearest(model.network, NETWORKS)}"
    if model.genotype and model.network != "cell":
        yield f"model.genotype: network {model.network!r} has none; leave it empty, or set model.network to cell"
    if model.partial > 1 and config.commit.ends_in_a_cell:
        yield "commit.cell: a supernet of model.partial above 1 hands no weights to a cell; leave one of the two at 1"
    if model.bn not in POLICIES:
        yield f"model.bn {model.bn!r} is unknown; {nearest(model.bn, POLICIES)}"
    if model.precision not in PRECISIONS:
        yield f"model.precision {model.precision!r} is unknown; {nearest(model.precision, PRECISIONS)}"
    if training.engine not in ENGINES:
        yield f"training.engine {training.engine!r} is unknown; {nearest(training.engine, ENGINES)}"
    yield from _choice_faults(config)


def _start_faults(config: Config) -> Iterable[str]:
    if config.alphas.name == "shared":
        return
    alphas = config.outer.rule if config.outer.alpha_rule is None else config.outer.alpha_rule
    if isinstance(alphas, str) and rule_by_name(alphas).simplex:
        yield (
            f"outer.alpha_rule {alphas!r} moves points of the simplex, and what {config.alphas.name} alphas add to the "
            "shared ones is none; choose another, or alphas.name shared"
        )
    if not _fault_of(config.meta_rule) and config.meta_rule().stores == "ends":
        yield (
            f"meta.name {config.meta.name!r} takes what tasks end at, and no task ends at what computes its "
            f"{config.alphas.name} alphas; choose maml, or alphas.name shared"
        )
    if config.alphas.name == "choice" and (config.outer.alpha_decay > 0.0 or config.outer.alpha_decoupled_decay > 0.0):
        yield (
            "outer.alpha_decay, outer.alpha_decoupled_decay: a decay moves a choice of cells that is made; set "
            "both to 0, or alphas.name to amortised"
        )
    if config.commit.ends_in_a_cell or config.commit.operations < 1.0:
        yield (
            f"commit: alphas that are {config.alphas.name} make an architecture for each task, so there is no one cell "
            "to commit to; set commit.cell and commit.operations to 1, or alphas.name to shared"
        )
    if config.commit.drop_below > 0.0:
        yield (
            f"commit.drop_below: what {config.alphas.name} alphas of one task do not need, those of another may; set "
            "it to 0, or alphas.name to shared"
        )


def _two_fold_faults(config: Config) -> Iterable[str]:
    inner = config.inner
    if inner.alpha_images == "two-fold" and inner.alpha_rate > 0 and config.tasks.shots == 1:
        yield (
            "inner.alpha_images two-fold: needs a second support image per class, got tasks.shots 1; "
            "set tasks.shots to 2 or more, or inner.alpha_images to all"
        )


def _choice_faults(config: Config) -> Iterable[str]:
    """What is wrong with the variants that are chosen: each is made once, then the network of them all."""
    parts: list[Callable[[], Any]] = [config.meta_rule, config.structure, config.search_space, config.build_relaxation]
    parts += [config.alpha_start, lambda: config.penalty(ANY_IMAGE), lambda: config.outer.groups({}, {})]
    faults = [fault for make in parts if (fault := _fault_of(make))]
    yield from faults or filter(None, [_fault_of(config.build_network)])


def _fault_of(make: Callable[[], Any]) -> str:
    """Why it cannot be made; empty where it can."""
    try:
        make()
    except GenotypeError as error:
        return f"model.genotype: {error}"
    except MetadartsError as error:
        text = str(error).replace("network.head", "model.head").replace("network.partial", "model.partial")
        return text.replace("network.", "macro.")
    return ""


def _number_faults(config: Config) -> Iterable[str]:
    for group, name, least in _LEAST:
        value = getattr(getattr(config, group), name)
        if value is not None and not value >= least:  # so that NaN is refused too
            yield f"{group}.{name}: expected at least {least}, got {value}"
    if config.outer.warmup > 1:
        yield f"outer.warmup: expected a share of the run, at most 1, got {config.outer.warmup}"
    for name in _OUTER_RATES:
        value = getattr(config.outer, name)
        if value is not None and value > MOST_RATE:
            yield f"outer.{name}: expected at most {MOST_RATE:g}, got {value}; usual are values below 1"
    for group, name in _POSITIVE:
        value = getattr(getattr(config, group), name)
        if value is not None and not value > 0:
            yield f"{group}.{name}: expected a positive number or none, got {value}"


_DECAYS = ("alpha_decay", "weight_decoupled_decay", "alpha_decoupled_decay")
_OUTER_RATES = ("weight_rate", "alpha_rate", "rate_rate", "final", *_DECAYS)
MOST_RATE = 1e3
"""Beyond this an outer rate can only be a slip; far beyond, the optimiser's single precision overflows."""
_POSITIVE = (("outer", "clip"), ("training", "memory_gb"))
_LEAST = (
    ("tasks", "ways", 2),
    ("tasks", "shots", 1),
    ("tasks", "queries", 1),
    ("tasks", "size", 0),
    *(("outer", name, 0) for name in (*_OUTER_RATES, "alpha_warmup", "warmup")),
    ("training", "meta_steps", 0),
    ("training", "minutes", 0),
    ("training", "tasks", 1),
    ("training", "micro_batch", 0),
    ("training", "validations", 1),
    ("training", "validation_tasks", 2),
    ("training", "save_seconds", 0),
    ("training", "cost_strength", 0),
    ("evaluate", "steps", 0),
    ("evaluate", "queries", 1),
    ("evaluate", "batch", 1),
)


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """``config`` with "group.field" settings applied; text values are read as YAML scalars.

    Settings of version 0.1 are accepted, see `metadarts.store.migration`; "inner.rates" is an abbreviation for the
    rates of the parameter groups, see `written_out`.

    Raises:
        ConfigError: one message naming every unknown field, with the nearest valid one, and every wrong value.
    """
    faults: list[str] = []
    settings = migrated_settings(settings, config.macro.name)
    for path in sorted(settings, key=lambda path: not path.endswith(".name")):  # an option belongs to its entry
        try:
            for field_path, item in written_out(path, settings[path]).items():
                config = _with_setting(config, field_path, item)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))
    return config


CHOICES = {"space": 0, "macro": 2, "relaxation": 0, "alphas": 0, "meta": 0, "cost": 2}
"""Groups that choose a variant -> how many of an entry's first parameters are no options."""


def table_of(config: Config, group: str) -> Variants[Any]:
    """The entries that ``group`` chooses from."""
    tables = config.catalogue
    found: Variants[Any] = {
        "space": tables.spaces,
        "macro": tables.macros,
        "relaxation": tables.relaxations,
        "alphas": tables.alpha_starts,
        "meta": tables.rules,
        "cost": tables.costs.plus(NO_COST, lambda height, width: None),
    }[group]
    return found


def _with_setting(config: Config, path: str, value: Any) -> Config:
    group, _, name = path.partition(".")
    if group in CHOICES and name:
        chosen: Choice = getattr(config, group)
        changed: dict[str, Any] = {group: chosen.with_option(path, value, table_of(config, group), CHOICES[group])}
        return replace(config, **changed)
    groups = {f.name for f in fields(config)} - CHOICES.keys() - {"catalogue"}
    if group not in groups or not name:
        known = sorted(f"{g}.{f.name}" for g in groups for f in fields(getattr(config, g)))
        known += [f"{choice}.name" for choice in CHOICES]
        raise ConfigError(f"unknown setting {path!r}: {nearest(path, known)}")
    section = getattr(config, group)
    hints = typing.get_type_hints(type(section))
    if name not in hints:
        raise ConfigError(f"unknown setting {path!r}: {nearest(name, hints)}")
    try:
        return replace(config, **{group: replace(section, **{name: convert(path, value, hints[name])})})
    except MetadartsError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_settings(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dictionaries, as in config.yaml."""
    found = {}
    for group in (f.name for f in fields(config) if f.name != "catalogue"):
        section = getattr(config, group)
        if isinstance(section, Choice):
            found[group] = section.settings(table_of(config, group), CHOICES[group])
            continue
        values = dataclasses.asdict(section)
        found[group] = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return found | ({"plugins": dict(config.catalogue.plugins)} if config.catalogue.plugins else {})


def dump_config(config: Config) -> str:
    """YAML text of the resolved configuration."""
    return yaml.safe_dump(to_settings(config), sort_keys=False)


def load_config(path: Path, plugins: Sequence[str] = ()) -> Config:
    """Read a config.yaml.

    Args:
        plugins: modules or files with the user's entries. They must include those that the file names: code that a file
            names never runs without the user's request.

    Raises:
        ConfigError: on unreadable YAML, tags, unknown fields, wrong values, and plug-ins that are missing or changed.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *UNREADABLE) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: expected a YAML file of settings, could not read it ({first})") from error
    return config_of(table, plugins, str(path))


def config_of(table: Any, plugins: Sequence[str] = (), where: str = "configuration") -> Config:
    """The configuration that nested dictionaries say, see `to_settings` and `load_config`. Raises ConfigError."""
    known = ", ".join([*(f.name for f in fields(Config) if f.name != "catalogue"), "plugins"])
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected groups of settings ({known}), got {shown(table)}")
    if odd := [name for name, section in table.items() if not isinstance(section, dict)]:
        got = f"got {shown(table[odd[0]])} for {shown(odd[0])}"
        raise ConfigError(f"{where}: expected groups of settings ({known}) with a value for each field, {got}")
    table = dict(table)
    catalogue = load_plugins(plugins)
    catalogue.require(table.pop("plugins", {}), where)
    settings = {f"{group}.{name}": value for group, section in table.items() for name, value in section.items()}
    return with_settings(Config(catalogue=catalogue), settings)
