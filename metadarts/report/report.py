"""A run as one HTML page: ``metadarts report``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metadarts.core.errors import MetadartsError, RunError
from metadarts.core.types import alphas_of
from metadarts.store.files import make_folder, write_atomically
from metadarts.store.schema import fitting_file
from metadarts.training.config import Config, to_settings
from metadarts.training.lenient import as_number
from metadarts.training.open_run import OpenRun
from metadarts.training.records import RunFolder
from metadarts.viz import Page, Plate

from .cells import Searched, alpha_traces, cells_in_time, derived
from .fading import fading_cells
from .notes import architecture_notes, duration, notes, percent, verdict
from .pictures import adaptation, commitment, health, learned_rates, learning, measurements
from .records import Records, finite, read_records, read_results

NAME = "report.html"
LONGEST = 300
DEEPEST = 8


def write_report(run: OpenRun, out: Path | None = None) -> Path:
    """Write the content of ``run`` as one self-contained HTML file: pictures, facts, and how to read them.

    For an unfinished run, or one of an older version, the page shows the available data. The same run gives the same
    bytes.

    Args:
        run: the run.
        out: the file; default: report.html in the run folder, the only file that is overwritten if it exists.

    Returns:
        The path of the file.

    Raises:
        RunError: when ``out`` exists, a record before the last is damaged, or the file cannot be written.
    """
    usual = run.folder.path / NAME
    path = out or usual
    if path.resolve() != usual.resolve() and (path.exists() or path.is_symlink()):
        raise RunError(f"{path} exists: give --out another name, or remove it first")
    make_folder(path.parent)
    write_atomically(path, _page(run).html().encode(errors="backslashreplace"))
    return path


def _page(run: OpenRun) -> Page:
    config, folder = run.configured, run.folder
    space, relaxation = config.search_space(), config.build_relaxation()
    searched = Searched(space, relaxation, config.catalogue.operations)
    records, (results, unreadable) = read_records(folder, space, relaxation), read_results(folder)
    tasks = config.tasks
    page = Page(f"{_short(tasks.source)}, {tasks.ways}-way {tasks.shots}-shot", f"metadarts run {folder.path}")
    page.text(verdict(records, _finished(folder), results), "verdict")
    page.tiles(_tiles(config, records, results))
    page.points(notes(config, records, results))
    for name in unreadable:
        page.text(f"{name} holds no measurement that can be read; it is left out.", "note")
    _section(page, "Learning", learning(records, tasks.ways))
    _section(page, "Adaptation", [*adaptation(records), *learned_rates(records)])
    _measured(page, results)
    _architecture(page, run, records, searched)
    in_time = [
        *fading_cells(records.alphas, config.build_network(), config.inner.steps),
        *commitment(records, space), *alpha_traces(records, searched), *cells_in_time(records.alphas, searched)
    ]  # fmt: skip
    _section(page, "The architecture over the run", in_time)
    _section(page, "Health of the search", health(records, len(space.primitives)))
    _facts(page, folder, config)
    return page


def _section(page: Page, heading: str, plates: Iterable[Plate]) -> None:
    """A heading and its pictures; nothing where there are none."""
    for number, plate in enumerate(plates):
        if number == 0:
            page.heading(heading)
        page.plate(plate)


def _tiles(config: Config, records: Records, results: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    for file, facts in results:
        interval = f"± {percent(facts.get('interval95'))} on {_text(facts.get('split', '?'))} tasks ({file})"
        yield percent(facts["accuracy"]), interval
    if best := records.best:
        yield percent(best["accuracy"]), f"± {percent(best.get('interval95'))} on validation tasks, chosen as the best"
    yield f"{records.last_step}", "meta-steps recorded"
    timed = [record["seconds"] for record in (*records.train, *records.validate) if finite(record.get("seconds"))]
    if timed:
        yield duration(max(timed)), f"recorded; {config.training.tasks} tasks per meta-step"
    steps = f"{config.inner.steps} → {config.evaluate.steps}"
    policy = f"{config.inner.order} order, {_text(config.model.bn)} batch norm"
    yield steps, f"inner steps: training → held-out tasks; {policy}"


def _measured(page: Page, results: list[tuple[str, dict[str, Any]]]) -> None:
    """What was measured on held-out tasks after the search."""
    if not results:
        return
    _section(page, "Measured on held-out tasks", measurements(results))
    for file, facts in results:
        rows = facts.get("rows")
        table = [_method(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        if table:
            page.table(("method", "accuracy", "95 % interval", "the first is ahead by (paired)"), table)
        known = ("split", "tasks", "ways", "shots", "queries", "steps", "bn", "source", "checkpoint_step",
                 "finite_tasks", "episodes_sha256")  # fmt: skip
        told = "; ".join(f"{name} {_text(facts[name])}" for name in known if name in facts)
        page.text(f"{file}: {percent(facts['accuracy'], 2)} ± {percent(facts.get('interval95'), 2)}; {told}", "where")


def _method(row: dict[str, Any]) -> tuple[str, ...]:
    gain = as_number(row.get("adapted_gains"))
    gained = "" if not gain else f"{gain:+.1%} ± {percent(row.get('adapted_gains_interval95'))}"
    return _text(row.get("method")), percent(row.get("accuracy")), f"± {percent(row.get('interval95'))}", gained


def _architecture(page: Page, run: OpenRun, records: Records, searched: Searched) -> None:
    """The cell derived from the best checkpoint or, without one that can be read, from the last recorded alphas."""
    from metadarts.derive import derive_genotype

    space, relaxation = searched.space, searched.relaxation
    page.heading("The derived cell")
    if not run.config.has_one_cell:
        page.text(f"None: {run.config.alphas.name} alphas are an architecture for each task.", "note")
        return
    try:
        step, alphas = run.checkpoint.facts.get("step", "?"), alphas_of(run.checkpoint.params)
        genotype = run.config.cell() or derive_genotype(alphas, space, relaxation)
        if not alphas and records.alphas:  # of before the run committed
            alphas = records.alphas[-1].alphas
    except MetadartsError as error:
        page.text(f"No cell can be derived from the best checkpoint: {error}", "note")
        if not records.alphas:
            return
        page.text("Shown is the cell of the last recorded alphas instead.")
        last = records.alphas[-1]
        step, alphas, genotype = last.step, last.alphas, last.genotype
    if alphas:
        page.points(architecture_notes(alphas, genotype, records, space, relaxation))
    for plate in derived(genotype, alphas, searched, int(as_number(step) or 0)):
        page.plate(plate)
    page.code(str(genotype))


def _facts(page: Page, run: RunFolder, config: Config) -> None:
    """Tasks, configuration and machine, as tables."""
    page.heading("Configuration")
    page.text("Everything that defines the run, as resolved when it started. Marked: what differs from the defaults.")
    given, usual = to_settings(config), to_settings(Config())
    names = [(group, name) for group, section in given.items() for name in section]
    before = [usual.get(group, {}).get(name) for group, name in names]  # None too for an option of another variant
    changed = [given[group][name] != value for (group, name), value in zip(names, before, strict=True)]
    rows = [
        (f"{group}.{name}", _text(given[group][name]), _text(value) if differs else "")
        for (group, name), value, differs in zip(names, before, changed, strict=True)
    ]
    page.table(("setting", "value", "default, where it differs"), rows, changed)
    page.heading("Machine and versions")
    environment = run.environment()
    if environment:
        page.table(("fact", "value"), [(_short(name), _text(value)) for name, value in environment.items()])
    else:
        page.text("env.json is missing or cannot be read.", "note")


def _finished(run: RunFolder) -> dict[str, Any] | None:
    """What finished.json says; empty where it cannot be read, None if there is none."""
    if not run.is_finished:
        return None
    return fitting_file(run.path / "finished.json", dict) or {}


def _text(value: Any, depth: int = 0) -> str:
    """A setting or fact in plain words; what is nested deeper than anyone reads is left out."""
    if depth > DEEPEST:
        return "…"
    if isinstance(value, dict):
        return _short(", ".join(f"{name} {_text(item, depth + 1)}" for name, item in value.items()))
    if isinstance(value, list):
        return _short(", ".join(_text(item, depth + 1) for item in value))
    plain = {None: "none", True: "yes", False: "no", "": "(empty)"}
    return plain[value] if isinstance(value, bool | None) or value == "" else _short(f"{value}")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
