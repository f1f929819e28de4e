"""Run test functions where pytest is not installed: enough of pytest for tests/gpu, and a plain reason for the rest.

Known: parametrize, skip, skipif, other marks (ignored), function fixtures with yield and autouse from the module and
the conftest files above it, tmp_path, record_property, param, skip, fail, importorskip, raises, approx.
A test that asks for more is skipped with a sentence that names what is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import itertools
import math
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

Function = Callable[..., Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one test: ``passed``, ``failed`` or ``skipped``, with the reason of the latter two."""

    test: str
    status: str
    reason: str = ""


class Skipped(Exception):
    """Raised by pytest.skip and pytest.importorskip."""


@dataclass(frozen=True)
class Param:
    """One row of parametrize: pytest.param(...)."""

    values: tuple[Any, ...]


@dataclass
class Notes:
    """What the decorators of a function said about it."""

    cases: list[list[dict[str, Any]]] = field(default_factory=list)
    skip: str = ""
    fixture: bool = False
    autouse: bool = False
    params: bool = False


def run_folder(folder: Path, root: Path, files: str = "test_*.py") -> list[Outcome]:
    """Run the test ``files`` of ``folder``, with the fixtures of the conftest files from ``root`` down to it."""
    fixtures = _fixtures_above(folder, root)
    return [outcome for file in sorted(folder.glob(files)) for outcome in _run_file(file, fixtures)]


def list_folder(folder: Path, root: Path, files: str = "test_*.py") -> list[Outcome]:
    """What `run_folder` would run, imported and not run: "ready", or why it would be skipped or would fail."""
    fixtures = _fixtures_above(folder, root)
    return [outcome for file in sorted(folder.glob(files)) for outcome in _run_file(file, fixtures, ready=True)]


def _fixtures_above(folder: Path, root: Path) -> dict[str, Function]:
    sys.modules["pytest"] = _pytest()
    above = [parent for parent in reversed([folder, *folder.parents]) if parent.is_relative_to(root)]
    fixtures: dict[str, Function] = {}
    for conftest in (parent / "conftest.py" for parent in above):
        if conftest.is_file():
            fixtures |= _fixtures(_load(conftest))
    return fixtures


def _run_file(file: Path, fixtures: Mapping[str, Function], ready: bool = False) -> Iterator[Outcome]:
    try:
        module = _load(file)
    except (Skipped, ModuleNotFoundError) as missing:
        yield Outcome(file.name, "skipped", str(missing))
        return
    except Exception:  # whatever a file raises at import is a failure to report
        yield Outcome(file.name, "failed", traceback.format_exc(limit=-3))
        return
    known = {**fixtures, **_fixtures(module)}
    marks = getattr(module, "pytestmark", [])
    for name, member in list(vars(module).items()):
        if inspect.isclass(member) and name.startswith("Test"):
            yield Outcome(f"{file.name}::{name}", "skipped", "test classes need pytest")
        if inspect.isfunction(member) and name.startswith("test"):
            for mark in marks if isinstance(marks, Sequence) else [marks]:
                mark(member)
            for number, case in enumerate(_cases(member)):
                label = f"{file.name}::{name}" + (f"[{number}]" if case else "")
                yield _ready(label, member, case, known) if ready else _run_case(label, member, case, known)


def _ready(label: str, test: Function, case: dict[str, Any], fixtures: Mapping[str, Function]) -> Outcome:
    """Whether the runner knows all that the test asks for."""
    known = {*case, "tmp_path", "record_property", *(n for n, f in fixtures.items() if not _notes(f).params)}
    missing = [name for name in inspect.signature(test).parameters if name not in known]
    if missing:
        return Outcome(label, "skipped", f"the fixture {missing[0]!r} needs pytest")
    return Outcome(label, "skipped", _notes(test).skip) if _notes(test).skip else Outcome(label, "ready")


def _run_case(label: str, test: Function, case: dict[str, Any], fixtures: Mapping[str, Function]) -> Outcome:
    if _notes(test).skip:
        return Outcome(label, "skipped", _notes(test).skip)
    try:
        with contextlib.ExitStack() as stack:
            made = dict(case)
            for name in [name for name, fixture in fixtures.items() if _notes(fixture).autouse]:
                _make(name, fixtures, made, stack)
            for name in inspect.signature(test).parameters:
                _make(name, fixtures, made, stack)
            test(**{name: made[name] for name in inspect.signature(test).parameters})
    except (Skipped, ModuleNotFoundError) as reason:
        return Outcome(label, "skipped", str(reason))
    except Exception:  # whatever a test raises is its failure
        return Outcome(label, "failed", traceback.format_exc(limit=-3))
    return Outcome(label, "passed")


def _make(name: str, fixtures: Mapping[str, Function], made: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """Put the value of fixture ``name`` into ``made``, its own fixtures first; its end runs when ``stack`` closes."""
    if name in made:
        return
    if name == "tmp_path":
        made[name] = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    elif name == "record_property":
        made[name] = lambda what, value: print(f"    {what} = {value}")
    elif name in fixtures and not _notes(fixtures[name]).params:
        fixture = fixtures[name]
        needed = list(inspect.signature(fixture).parameters)
        for other in needed:
            _make(other, fixtures, made, stack)
        arguments = {other: made[other] for other in needed}
        if inspect.isgeneratorfunction(fixture):
            made[name] = stack.enter_context(contextlib.contextmanager(fixture)(**arguments))
        else:
            made[name] = fixture(**arguments)
    else:
        raise Skipped(f"the fixture {name!r} needs pytest")


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_".join(file.with_suffix("").parts[-3:]), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _notes(function: Function) -> Notes:
    return function.__dict__.setdefault("_runner_notes", Notes())  # type: ignore[no-any-return]


def _fixtures(module: ModuleType) -> dict[str, Function]:
    functions = {name: member for name, member in vars(module).items() if inspect.isfunction(member)}
    return {name: function for name, function in functions.items() if _notes(function).fixture}


def _cases(test: Function) -> Iterator[dict[str, Any]]:
    for rows in itertools.product(*_notes(test).cases):
        yield {name: value for row in rows for name, value in row.items()}


# What test files see as `pytest`.


def _pytest() -> ModuleType:
    module = ModuleType("pytest", "The stand-in of benchmarks/_runner.py.")
    for name, member in {
        "mark": _Mark(), "fixture": _fixture, "param": _param, "hookimpl": _ignored, "skip": _skip, "fail": _fail,
        "importorskip": _importorskip, "raises": _raises, "approx": Approx,
    }.items():  # fmt: skip
        setattr(module, name, member)
    return module


class _Mark:
    """``pytest.mark``: marks that the runner does not know do nothing."""

    def __getattr__(self, name: str) -> Function:
        return _ignored

    def parametrize(self, names: str | Sequence[str], rows: Sequence[Any], **_: Any) -> Function:
        split = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def values(row: Any) -> Sequence[Any]:
            if isinstance(row, Param):
                return row.values
            return [row] if len(split) == 1 and isinstance(names, str) else list(row)

        def note(test: Function) -> Function:
            _notes(test).cases.insert(0, [dict(zip(split, values(row), strict=True)) for row in rows])
            return test

        return note

    def skip(self, reason: str = "marked skip") -> Function:
        return self.skipif(True, reason=reason)

    def skipif(self, condition: bool, *, reason: str) -> Function:
        def note(test: Function) -> Function:
            if condition:
                _notes(test).skip = reason
            return test

        return note


def _ignored(*arguments: Any, **options: Any) -> Any:
    """A decorator that changes nothing, bare or with arguments."""
    bare = len(arguments) == 1 and inspect.isfunction(arguments[0]) and not options
    return arguments[0] if bare else _ignored


def _fixture(function: Function | None = None, *, autouse: bool = False, params: Any = None, **_: Any) -> Function:
    def note(made: Function) -> Function:
        notes = _notes(made)
        notes.fixture, notes.autouse, notes.params = True, autouse, params is not None
        return made

    return note if function is None else note(function)


def _param(*values: Any, **_: Any) -> Param:
    return Param(values)


def _skip(reason: str = "") -> None:
    raise Skipped(reason)


def _fail(reason: str = "") -> None:
    raise AssertionError(reason)


def _importorskip(name: str, minversion: str | None = None, reason: str | None = None, **_: Any) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(reason or f"could not import {name!r}: {error}") from None


@contextlib.contextmanager
def _raises(expected: type[BaseException] | tuple[type[BaseException], ...], match: str = "") -> Iterator[None]:
    try:
        yield
    except expected as error:
        assert re.search(match, str(error)), f"{str(error)!r} does not match {match!r}"
    else:
        raise AssertionError(f"did not raise {expected}")


class Approx:
    """``pytest.approx`` for numbers and sequences of numbers."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:
        self.expected = expected
        self.absolute = 1e-12 if abs is None else abs
        self.relative = rel if rel is not None else (1e-6 if abs is None else 0.0)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if isinstance(self.expected, Sequence):
            given = list(other) if isinstance(other, Sequence) else []
            pairs = list(zip(given, self.expected, strict=False))
            return len(given) == len(self.expected) and all(self._close(*pair) for pair in pairs)
        return self._close(other, self.expected)

    def _close(self, given: Any, expected: Any) -> bool:
        return math.isclose(float(given), float(expected), rel_tol=self.relative, abs_tol=self.absolute)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"
