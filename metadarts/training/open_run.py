"""A run on disk: the one place that finds its configuration, its checkpoint and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.progress import Watch
from metadarts.integrations import Tasksets
from metadarts.store.files import is_there
from metadarts.tasks import Source, is_source_name, recognise

from .build import COMMITTED, LIBRARY, Experiment, assemble, build
from .catalogue import BUILT_IN, Catalogue
from .checkpoints import Checkpoint
from .config import Config, with_settings
from .data_record import check_data
from .records import RunFolder


@dataclass(frozen=True)
class OpenRun:
    """A run. Its parts are read on request: drawing its cell needs no data.

    Args:
        folder: its folder.
        configured: its configuration, with the settings given to `open_run`.
        name: of its checkpoint.
        device: the device of its computations.
    """

    folder: RunFolder
    configured: Config
    name: str
    device: str

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, read once. Raises RunError."""
        return self.folder.load(self.name)

    @cached_property
    def config(self) -> Config:
        """The configuration for the checkpoint's network: for one cell if the run has committed to it. Raises
        RunError."""
        if not (self.configured.commit.ends_in_a_cell and self.folder.has(self.name)):
            return self.configured
        genotype = self.checkpoint.facts.get(COMMITTED)
        return self.configured if genotype is None else self.configured.committed(genotype)

    def experiment(self, source: Source | Tasksets | None = None, progress: Watch | None = None) -> Experiment:
        """Data and network for the checkpoint.

        Args:
            source: the data, if they are already open.
            progress: reports the images read if reading takes long.

        Raises:
            DataError: when classes that the run was trained on would be measured on, see `check_data`.
            MetadartsError: when the configuration is out of range, the data are missing or unfit, or the checkpoint is
                damaged or of another network.
        """
        config, params = self.config.check(), self.checkpoint.params
        found = build(config, self.device, progress) if source is None else assemble(config, source, self.device)
        check_data(self.folder, found.source)
        found = found.of_checkpoint(self.checkpoint)
        found.check_params(params)
        return found


def open_run(
    path: Path,
    *,
    checkpoint: str = "best",
    device: str = "cpu",
    data: str | None = None,
    data_root: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    finished: bool = False,
    plugins: Sequence[str] = (),
) -> OpenRun:
    """Open the run folder at ``path``.

    Args:
        checkpoint: "best", the one of highest validation accuracy; "last"; or, for a run that committed, "supernet":
            the state before its cell was extracted.
        device: "cpu" or "cuda".
        data: the current place of its data, if they moved: a name or a path, see `data_settings`.
        data_root: the current place of the data of a name.
        settings: "group.field" settings that replace its own; a value of None keeps that of the run.
        finished: require that its search has ended.
        plugins: modules or files with the user's entries that its configuration names, see `load_config`.

    Raises:
        RunError: when there is no run, or its search has not ended and ``finished`` asks for that.
        ConfigError: when its configuration cannot be read, or a setting does not exist.
    """
    folder = RunFolder.open(path, plugins)
    config = folder.config()
    changed = {name: value for name, value in (settings or {}).items() if value is not None}
    config = with_settings(config, changed | moved_data(config, data, data_root))
    if finished:
        folder.require_finished()
    return OpenRun(folder, config, checkpoint, device)


def data_settings(data: str, root: Path | None = None, catalogue: Catalogue = BUILT_IN) -> dict[str, str]:
    """``--data`` and ``--data-root`` as settings; names are those of the ``catalogue``'s sources.

    Raises:
        ConfigError: when ``data`` is neither a name nor a path, or ``root`` is given beside a path.
        DataError: when no source reads what lies at the path.
    """
    if root is not None and not is_there(root):
        raise ConfigError(f"--data-root {str(root)!r}: there is nothing at that place")
    if root is None and data.startswith("mixture:"):  # its places, which are relative to this folder
        root = Path()
    if is_source_name(data, catalogue.sources) or data.startswith(f"{LIBRARY}:"):
        return {"tasks.source": data, "tasks.file": str(root.resolve()) if root else ""}
    path = Path(data)
    if not is_there(path):
        raise ConfigError(
            f"--data {data!r}: no such file, and not the name of a source; {nearest(data, catalogue.sources)}"
        )
    if root is not None:
        raise ConfigError(f"--data {data!r} is a path already: leave out --data-root, or give --data a name")
    return {"tasks.source": recognise(path), "tasks.file": str(path.resolve())}


def moved_data(config: Config, data: str | None, root: Path | None) -> dict[str, str]:
    """The settings of data that moved: ``--data`` and ``--data-root``, or the root alone for the run's own source.

    Raises:
        ConfigError: as `data_settings`, or when the run reads a path, which has no root.
    """
    if data is None and root is None:
        return {}
    if data is None and config.tasks.source in ("folder", "npz"):
        raise ConfigError("the run reads a path, not a name: say where it lies now with --data PATH")
    return data_settings(data or config.tasks.source, root, config.catalogue)
