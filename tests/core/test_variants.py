"""Tables of variants, built from a package that each test writes."""

from __future__ import annotations

import sys

import pytest

from metadarts.core.errors import ConfigError
from metadarts.core.variants import Variants, collect


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package of the modules it is given and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "variants_" + tmp_path.name.replace("-", "_")

    def write(**modules):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("from metadarts.core.variants import collect\n")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        return name

    yield write
    for module in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
        del sys.modules[module]


def test_modules_give_entries_in_the_order_of_their_names(package):
    table = collect(
        package(zeta="ENTRY = 3", alpha="ENTRY = 1", _helper="", many="ENTRY = {'b': 4, 'a': 5}"), "ENTRY", "x"
    )
    assert list(table.items()) == [("alpha", 1), ("b", 4), ("a", 5), ("zeta", 3)]


def test_a_package_can_build_its_table_while_it_is_imported(package, tmp_path):
    name = package(one="ENTRY = 1")
    with (tmp_path / name / "__init__.py").open("a") as file:
        file.write("TABLE = collect(__name__, 'ENTRY', 'thing')\n")
    assert dict(__import__(name).TABLE) == {"one": 1}


def test_a_module_may_import_what_its_package_defines(package, tmp_path):
    name = package(one="import sys\nENTRY = sys.modules[__package__].LATER")
    with (tmp_path / name / "__init__.py").open("a") as file:
        file.write("TABLE = collect(__name__, 'ENTRY', 'thing')\nLATER = 1\n")
    assert dict(__import__(name).TABLE) == {"one": 1}


def test_a_module_without_the_attribute_is_named(package):
    with pytest.raises(TypeError, match=r"\.helper: expected ENTRY; a helper's name begins with an underscore"):
        list(collect(package(one="ENTRY = 1", helper=""), "ENTRY", "thing"))


def test_a_name_defined_twice_is_refused(package):
    with pytest.raises(TypeError, match=r"\.one: another module of .* defines 'one' too"):
        list(collect(package(many="ENTRY = {'one': 2}", one="ENTRY = 1"), "ENTRY", "thing"))


TABLE = Variants("update rule", {"sgd": 1, "adam": 2})


def test_an_unknown_name_raises_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"^unknown update rule 'adma': did you mean 'adam'\? valid names: adam, sgd$"
    ):
        TABLE["adma"]
    assert "adma" not in TABLE
    assert TABLE.get("adma") is None
    assert TABLE.get("adma", 7) == 7


def test_a_table_is_a_mapping_that_does_not_change():
    entries = {"sgd": 1}
    table = Variants("update rule", entries)
    entries["adam"] = 2
    assert dict(table) == {"sgd": 1}
    with pytest.raises(TypeError, match="does not support item assignment"):
        table["adam"] = 2
    assert dict(Variants("empty", {})) == {}


def test_plus_returns_a_larger_table_and_leaves_the_old_one():
    more = TABLE.plus("own", 3)
    assert (list(more), list(TABLE)) == (["sgd", "adam", "own"], ["sgd", "adam"])
    assert more["own"] == 3
    with pytest.raises(ConfigError, match="update rule 'sgd' exists; choose another name"):
        more.plus("sgd", 4)


def test_equal_tables_have_one_hash():
    one, other = Variants("thing", {"a": 1, "b": 2}), Variants("thing", {"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)
