"""What no source file may contain, read from its syntax tree: code from data, hidden state."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "metadarts"
FILES = sorted(path for package in ("metadarts", "benchmarks", "tests") for path in (CHECKOUT / package).rglob("*.py"))
PACKAGE_FILES = [path for path in FILES if path.is_relative_to(PACKAGE)]

PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINER_CALLS = {"list", "dict", "set", "defaultdict", "OrderedDict", "Counter", "deque"}
MUTATORS = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def code_from_data(tree: ast.Module) -> Iterator[str]:
    """Ways to run code that a data file brings: eval, exec, pickle, and torch.load or np.load that unpickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                if name.partition(".")[0] in PICKLERS:
                    yield f"line {node.lineno}: imports {name}"
            if isinstance(node, ast.ImportFrom) and node.module == "torch" and "load" in {a.name for a in node.names}:
                yield f"line {node.lineno}: call torch.load by its full name, with weights_only=True"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in {"eval", "exec", "builtins.eval", "builtins.exec"}:
                yield f"line {node.lineno}: calls {called}"
            if called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"
            if keywords.get("allow_pickle", "False") != "False":
                yield f"line {node.lineno}: {called} with allow_pickle"


def module_state(tree: ast.Module) -> Iterator[str]:
    """Module-level containers that are not named as constants, and constants or globals that a function changes."""
    constants = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _is_container(statement.value):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for name in (target.id for target in targets if isinstance(target, ast.Name)):
                constants.add(name)
                if name != "__all__" and name != name.upper():
                    yield f"line {statement.lineno}: module-level container {name} is not named as a constant"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        changed = _changed_name(node)
        if changed in constants and changed == changed.upper():
            yield f"line {node.lineno}: changes the constant {changed}"


def _is_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in CONTAINER_CALLS
    return isinstance(value, CONTAINERS)


def _changed_name(node: ast.AST) -> str:
    """The name whose content ``node`` changes: X[...] = ..., del X[...], X.append(...). Empty for other nodes."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        changed = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        changed = node.func.value
    else:
        return ""
    return changed.id if isinstance(changed, ast.Name) else ""


def offences(rule: Callable[[ast.Module], Iterator[str]], paths: list[Path]) -> list[str]:
    """What ``rule`` finds in the files, each with its file's name."""
    return [
        f"{path.relative_to(CHECKOUT)}, {said}"
        for path in paths
        for said in rule(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    ]


def test_no_file_runs_code_from_data():
    assert offences(code_from_data, FILES) == []


def test_no_module_of_the_package_keeps_state():
    assert offences(module_state, PACKAGE_FILES) == []


def test_an_offence_is_reported_with_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.CHECKOUT", tmp_path)
    (tmp_path / "own.py").write_text("eval('1')")
    assert offences(code_from_data, [tmp_path / "own.py"]) == ["own.py, line 1: calls eval"]


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (code_from_data, "eval('1')"),
        (code_from_data, "exec('x = 1')"),
        (code_from_data, "import pickle"),
        (code_from_data, "def f():\n    from pickle import loads"),
        (code_from_data, "torch.load('x')"),
        (code_from_data, "torch.load('x', weights_only=False)"),
        (code_from_data, "from torch import load"),
        (code_from_data, "np.load('x', allow_pickle=True)"),
        (module_state, "registry = {}"),
        (module_state, "cache: dict[str, int] = dict()"),
        (module_state, "seen = collections.defaultdict(list)"),
        (module_state, "def f():\n    global state\n    state = 1"),
        (module_state, "TABLE = {}\ndef f():\n    TABLE['a'] = 1"),
        (module_state, "ROWS = []\ndef f():\n    ROWS.append(1)"),
    ],
)
def test_rule_sees_the_offence(rule, source):
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (code_from_data, "model.eval()\nre.compile('x')\ntorch.load('x', weights_only=True)"),
        (code_from_data, "np.load('x', allow_pickle=False)\ncheckpoint.load('x')"),
        (module_state, "TABLE = {'a': 1}\n__all__ = ['a']\nParams = dict[str, int]"),
        (module_state, "ROWS = (1, 2)\ndef f():\n    rows = []\n    rows.append(1)\n    return ROWS"),
    ],
)
def test_rule_lets_what_keeps_it_pass(rule, source):
    assert list(rule(ast.parse(source))) == []
