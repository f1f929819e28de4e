"""Plug-ins: each has a name and a digest of its own, and whatever its code does ends in one line."""

from __future__ import annotations

import sys

import pytest

from metadarts.core.errors import ConfigError
from metadarts.training.catalogue import load_plugins

ENTRY = "def ENTRY_NAME(): return None\nSOURCE = ENTRY_NAME\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """(place, text) -> the file of a plug-in; modules beside it can be imported by name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def made(place, text=ENTRY):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    yield made
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_two_plugins_of_one_name_are_refused(module):
    """Their entries are in other tables, so that no table has the name twice; config.yaml would name one of them."""
    paths = [module("a/mine.py"), module("b/mine.py", "COST = dict\n")]
    with pytest.raises(ConfigError, match="two plug-ins are called 'mine': rename one"):
        load_plugins(paths)
    with pytest.raises(ConfigError, match=r"two plug-ins are called 'mine'.*or leave one out"):
        load_plugins(paths[:1] * 2)


def test_a_package_is_called_by_its_own_name(module):
    one, other = module("first/__init__.py"), module("second/__init__.py", "from .part import COST\n")
    module("second/part.py", "COST = dict\n")
    by_path, by_name = load_plugins([one, other]), load_plugins(["first", "second"])
    assert sorted(by_path.plugins) == ["first", "second"]
    assert "first" in by_path.sources
    assert "second" in by_path.costs
    assert by_name.plugins == by_path.plugins


def test_the_digest_of_a_package_is_of_all_its_modules(module):
    path = module("parts/__init__.py", "from .part import COST\n")
    module("parts/part.py", "COST = dict\n")
    before = load_plugins([path])
    module("parts/part.py", "COST = list\n")
    after = load_plugins([path])
    assert before.plugins["parts"] != after.plugins["parts"]
    assert (before.costs["parts"], after.costs["parts"]) == (dict, list)
    with pytest.raises(ConfigError, match="plug-in 'parts' is not what it was"):
        after.require(before.plugins, "a run")


def test_all_plugins_that_are_missing_are_named_at_once(module):
    known = load_plugins([module("known.py")])
    with pytest.raises(ConfigError, match="a run uses the plug-in 'one', 'two', whose code is not run unasked"):
        known.require({"one": "0" * 64, **known.plugins, "two": "1" * 64}, "a run")


FAILING = {
    "raise RuntimeError('no')": "RuntimeError: no",
    "import sys; sys.exit(0)": "SystemExit: 0",
    "raise SystemExit": "SystemExit",
    "raise ValueError('one\\ntwo')": "ValueError: one$",
    "def (": "SyntaxError: ",
    "import nothing_of_this_name": "ModuleNotFoundError: ",
}


@pytest.mark.parametrize(("text", "said"), FAILING.items())
def test_a_plugin_that_fails_is_one_line(module, text, said):
    path = module("bad/__init__.py", text)
    with pytest.raises(ConfigError, match=f"importing it failed: {said}"):
        load_plugins([path])
    with pytest.raises(ConfigError, match=f"importing it failed: {said}"):
        load_plugins(["bad"])
    with pytest.raises(ConfigError, match=f"finding it failed: {said}"):
        load_plugins(["bad.sub"])
    assert not [name for name in sys.modules if name.startswith("metadarts_plugin_bad")]


def test_an_interrupt_is_no_fault_of_the_plugin(module):
    path = module("slow.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_plugins([path])
    assert not [name for name in sys.modules if name.startswith("metadarts_plugin_slow")]


@pytest.mark.parametrize("name", ["", ".", "..", "not a name", "missing.sub", "sys", "missing.py"])
def test_what_is_not_there_is_one_line(name):
    with pytest.raises(ConfigError, match="--plugin"):
        load_plugins([name])


def test_one_name_is_no_list_of_names(module):
    with pytest.raises(ConfigError, match="expected a list of files and modules"):
        load_plugins(module("mine.py"))
