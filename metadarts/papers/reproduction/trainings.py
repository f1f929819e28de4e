"""One meta-training of a table: begun, gone on with, or found finished, in its own run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from metadarts.core.errors import RunError
from metadarts.tasks import Source
from metadarts.training import Config, RunFolder, search
from metadarts.training.build import assemble
from metadarts.training.config import to_settings
from metadarts.training.environment import describe
from metadarts.training.memory_plan import plan_search
from metadarts.training.search import SearchProgress

MACHINE = {
    "tasks": {"file"},
    "training": {"memory_gb", "fit_memory", "micro_batch", "save_seconds", "capture"},
    "evaluate": {"batch"},
    "inner": {"checkpoint"},
}
"""Settings that say where and how it is computed, not what: a run may have others and still be the same."""


def train(
    path: Path,
    config: Config,
    source: Source,
    device: str,
    watch: Callable[[SearchProgress], None],
    stop: Callable[[], bool],
) -> RunFolder:
    """Bring the training in ``path`` to its end.

    Raises:
        SearchStopped: when ``stop`` said so; the next call goes on.
        RunError: when ``path`` holds a run of other settings or other data.
    """
    experiment = assemble(config, source, device)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        plan = plan_search(experiment)
        facts = describe(device) | {"data_sha256": source.content_sha256, "memory": plan.facts()}
        folder = RunFolder.create(path, config, facts)
    else:
        folder = RunFolder.open(path)
        _require_same(folder, config, source)
        if folder.is_finished:
            return folder
        plan = plan_search(experiment, folder)
    search(replace(experiment, config=plan.apply(config)), folder, watch, stop)
    return folder


def _require_same(folder: RunFolder, config: Config, source: Source) -> None:
    found, wanted = (_what(to_settings(of)) for of in (folder.config(), config))
    # Options belong to a variant: another one has other names.
    if odd := [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]:
        raise RunError(
            f"{folder.path} was trained with other settings: {odd[0]} is {found.get(odd[0])!r}, this table wants "
            f"{wanted.get(odd[0])!r}; give another --out, or remove it"
        )
    digest = folder.environment().get("data_sha256")
    if digest != source.content_sha256:
        raise RunError(f"{folder.path} was trained on other data than those given; give another --out, or its data")


def _what(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, section in settings.items()
        for name, value in section.items()
        if name not in MACHINE.get(group, ())
    }
