"""A start: a meta-learned initialisation with the image format that it takes.

A start is a finished run, or one file made of it: tensors, and a description in JSON. Four are bundled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from metadarts.core.errors import ConfigError, RunError, nearest
from metadarts.core.text import visible
from metadarts.core.types import Params
from metadarts.inner import rate_shapes
from metadarts.networks import Image, Learner, Network
from metadarts.store.files import write_atomically
from metadarts.store.schema import Schema
from metadarts.store.tensors import read_described, require_tensors, to_described
from metadarts.tasks import Source
from metadarts.training import Config, open_run
from metadarts.training.build import require_fit, task_names
from metadarts.training.catalogue import load_plugins
from metadarts.training.config import config_of, to_settings
from metadarts.training.data_record import read_record, record_of

from .input_spec import InputSpec, require_agreement

FORMAT, VERSION, KEY = "metadarts.start", 1, "metadarts"
BUNDLED = ("glyphs", "cifar-fs", "glyphs-cell", "cifar-fs-cell")
"""The starts that come with the package, for 28x28 grey characters and 32x32 colour images: supernets, whose alphas are
adapted with their weights, and cells that searches committed to, which are smaller and faster."""

AUTO = "auto"
PARAM, RATE = "param/", "rate/"
MOST_NODES = 16


@dataclass(frozen=True)
class Start:
    """A meta-learned initialisation.

    Args:
        name: of the bundled start, the file or the run.
        config: of the run that it comes from.
        form: of the images that it takes.
        params: shared parameters.
        rates: learned inner rates, None for the configured ones.
        facts: where it comes from: "source", "meta_steps", "validation_accuracy"; of a run, "checkpoint_sha256" too.
    """

    name: str
    config: Config
    form: InputSpec
    params: Params
    rates: Params | None
    facts: Mapping[str, Any]

    @cached_property
    def network(self) -> Network:
        """The supernet as pruned by its run, or the cell to which its run committed."""
        image = Image(self.form.channels, self.form.height, self.form.width)
        return self.config.build_network(image).fitting(self.params)

    @property
    def is_cell(self) -> bool:
        """Whether it is one cell without alphas to adapt."""
        return self.network.genotype is not None

    @property
    def learner(self) -> Learner:
        """The learner with policy `support`, whatever the policy in training, because an exported model has frozen
        statistics."""
        return Learner(self.network, "support")

    def save(self, path: Path) -> None:
        """Write it as one .safetensors file. Raises RunError."""
        config = dataclasses.replace(self.config, tasks=dataclasses.replace(self.config.tasks, file=""))
        told = {"format": FORMAT, "version": VERSION, "config": to_settings(config), **_form_facts(self.form)}
        tensors = {PARAM + name: tensor for name, tensor in self.params.items()}
        tensors |= {RATE + name: tensor for name, tensor in (self.rates or {}).items()}
        write_atomically(path, to_described(told | {"facts": dict(self.facts)}, KEY, tensors))


def _form_facts(form: InputSpec) -> dict[str, Any]:
    return {"form": {name: value for name, value in dataclasses.asdict(form).items() if name != "invert"}}


def open_start(name: str | Path, plugins: Sequence[str] = ()) -> Start:
    """A start by name: one of `BUNDLED`, a run folder, or a file that `Start.save` wrote.

    Args:
        plugins: with the user's entries that its configuration names, see `metadarts.training.load_config`.

    Raises:
        ConfigError: when it is none of these, or a plug-in is missing.
        RunError: when the run or the file is damaged.
    """
    if str(name) in BUNDLED:
        content = files("metadarts.fewshot").joinpath("starts", f"{name}.safetensors")
        if not content.is_file():
            raise RunError(f"the bundled start {name!r} is missing from this installation; install metadarts anew")
        return _read(Path(str(content)), str(name), plugins)
    path = Path(name)
    try:
        if path.is_dir():
            return start_of_run(path, plugins)
        if path.is_file():
            return _read(path, path.name, plugins)
    except OSError as error:
        raise ConfigError(f"cannot open the start {str(name)!r}: {error.strerror or error}") from error
    raise ConfigError(
        f"no start {str(name)!r}: expected a run folder, a start's file, or a name; {nearest(str(name), BUNDLED)}"
    )


def suited_start(channels: int, alphas: bool = False) -> str:
    """The bundled start for images of ``channels`` channels, as "auto" chooses it.

    Args:
        alphas: whether it must have alphas to adapt: a supernet then, else a cell.
    """
    return ("glyphs" if channels == 1 else "cifar-fs") + ("" if alphas else "-cell")


def start_of_run(path: Path, plugins: Sequence[str] = ()) -> Start:
    """The best checkpoint of a run, with the form of its images. Data are opened only where the run kept no record.

    Raises MetadartsError as the run and its data do.
    """
    run = open_run(path, plugins=plugins)
    config, checkpoint = run.config, run.checkpoint
    _require_cells(config)
    known = recorded = read_record(run.folder)
    if known is None:
        source = run.experiment().source
        if not isinstance(source, Source):
            raise ConfigError(
                f"{path}: a run on a taskset of learn2learn keeps no record of its images' form: search on --data"
            )
        known = record_of(source)
    form = FORM.convert(known.form, f"{path}: form of its images")
    require_fit(
        config.build_network(Image(form.channels, form.height, form.width)).fitting(checkpoint.params),
        checkpoint.params,
    )
    facts = {
        "source": config.tasks.source,
        "meta_steps": checkpoint.facts["step"],
        "validation_accuracy": checkpoint.facts.get("validation_accuracy"),
        "data_sha256": recorded.sha256 if recorded else run.folder.environment().get("data_sha256"),
        "checkpoint_sha256": checkpoint.facts.get("sha256"),
    }
    return Start(visible(path.name), config, form, checkpoint.params, checkpoint.rates, facts)


FORM = Schema(InputSpec, RunError, "remove data.json to read it from the data", check=require_agreement)


def _require_cells(config: Config) -> None:
    """Require a supernet, whose alphas are adapted, or one cell. Raises ConfigError."""
    if config.model.network != "cell" and not config.has_alphas():
        raise ConfigError(
            f"expected the run of a supernet, whose weights and alphas are adapted, or of one cell; its network is "
            f"{config.network_name()!r}: give the run folder of a search"
        )


@dataclass(frozen=True)
class StartFacts:
    """What a start's file says of its tensors; the fields of a `Start`, the configuration as in config.yaml."""

    config: dict[str, dict[str, Any]]
    form: InputSpec
    facts: dict[str, Any]


START = Schema(
    StartFacts, RunError, "give what `Start.save` wrote", (FORMAT, VERSION),
    check=lambda told: require_agreement(told.form),
)  # fmt: skip


def _read(path: Path, name: str, plugins: Sequence[str] = ()) -> Start:
    """A start's file. Raises RunError, and ConfigError where a plug-in is missing."""
    text, tensors = read_described(path, KEY, START)
    told = START.read(text, str(path))
    load_plugins(plugins).require(told.config.get("plugins", {}), str(path))  # before anything is called damaged
    with START.refusing(f"{path} is damaged"):
        config = config_of(told.config, plugins).check()
        if config.search_space().nodes > MOST_NODES:
            raise ValueError(f"space.nodes: expected {MOST_NODES} at most, got {config.search_space().nodes}")
        _require_cells(config)
        params = {key[len(PARAM) :]: tensor for key, tensor in tensors.items() if key.startswith(PARAM)}
        network = config.build_network(Image(told.form.channels, told.form.height, told.form.width)).fitting(params)
        rates = {key[len(RATE) :]: tensor for key, tensor in tensors.items() if key.startswith(RATE)}
        require_tensors(params, network.shapes())
        _require_rates(config, params, rates)
    return Start(name, config, told.form, params, rates or None, told.facts)


def _require_rates(config: Config, params: Params, rates: Params) -> None:
    """Require that learned rates, where there are some, are those that the configuration's inner loop has."""
    if rates:
        shapes = rate_shapes(config.inner, task_names(params))
        require_tensors(rates, {name: shape for name, (shape, _) in shapes.items()})
