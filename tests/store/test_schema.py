"""Whatever is read through a schema: what is read is what was written, or it is refused in one line that says where."""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

import metadarts
from metadarts.core.errors import ConfigError, DataError, MetadartsError, RunError
from metadarts.store.schema import DEEPEST, REST, Schema, fitting, fitting_file, loads, require_printable
from tests.store.examples import EXAMPLES, Example

every_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=[*EXAMPLES])


def refusal(example: Example, source: Any) -> str:
    """Why ``source`` is refused; "" where it is read, which must then give what was written, and nothing else."""
    schema = example.schema
    text = source if isinstance(source, str | bytes) else json.dumps(source)
    try:
        found = schema.read(text, "NAME")
    except MetadartsError as error:
        refused = error
    else:
        assert same(json.loads(text), plain(found, schema))
        return ""
    said = str(refused)
    assert type(refused) is schema.error
    assert said.startswith("NAME: ")
    assert said.endswith(schema.advice)
    assert len(said.splitlines()) == 1
    assert len(said) < 1000
    return said


def plain(found: Any, schema: Schema[Any]) -> Any:
    built = msgspec.to_builtins(found)
    if is_dataclass(found):
        built |= built.pop(REST, {})
    if schema.form is not None:
        built |= {"format": schema.form[0], "version": schema.form[1]}
    return built


def same(written: Any, found: Any) -> bool:
    """Whether all of ``written`` is in ``found``: 1 is 1.0 but not true; fields not written have defaults."""
    if isinstance(written, dict):
        return isinstance(found, dict) and all(name in found and same(written[name], found[name]) for name in written)
    if isinstance(written, list):
        return isinstance(found, list | tuple) and len(found) == len(written) and all(map(same, written, found))
    if isinstance(found, float) and type(written) is int:
        return float(written) == found
    return written == found and isinstance(written, bool) == isinstance(found, bool)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a piece of JSON; of a long list the first three."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value[:3]):
        yield (*above, name)
        if isinstance(inner, dict | list):
            yield from places(inner, (*above, name))


def changed(told: Any, place: tuple[Any, ...], *value: Any) -> Any:
    """A copy with ``value`` in that place, or without the place."""
    made = copy.deepcopy(told)
    inside = made
    for name in place[:-1]:
        inside = inside[name]
    if value:
        inside[place[-1]] = value[0]
    else:
        del inside[place[-1]]
    return made


def steps(place: str) -> tuple[Any, ...]:
    """ "rows[0].low" as a path."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", place))


def test_every_schema_of_the_package_has_an_example():
    found = set()
    for module in pkgutil.walk_packages(metadarts.__path__, "metadarts."):
        source = Path(importlib.util.find_spec(module.name).origin or "")
        if "Schema(" in source.read_text(encoding="utf-8"):
            values = vars(importlib.import_module(module.name)).values()
            found |= {id(value) for value in values if isinstance(value, Schema)}
    assert found == {id(example.schema) for example in EXAMPLES.values()}


@every_example
def test_an_example_is_read_in_its_own_format_and_version_alone(example):
    assert refusal(example, example.told) == ""
    assert refusal(example, json.dumps(example.told, indent=2).encode()) == ""
    if example.schema.form is None:
        return
    assert "format: expected 'metadarts." in refusal(example, example.told | {"format": "metadarts.other"})
    assert "(update metadarts)" in refusal(example, example.told | {"version": example.told["version"] + 1})
    for version in (True, 1.0, "1", None):
        assert f"version: expected {example.told['version']}, got" in refusal(
            example, example.told | {"version": version}
        )
    for name in ("format", "version"):
        assert f"{name}: expected" in refusal(example, changed(example.told, (name,)))


@every_example
def test_damaged_text_is_refused(example):
    text = example.text
    number = re.search(r"(?<=[ \[])-?\d+(\.\d+)?(?=[,\]}])", text)
    damaged = [text[: len(text) * part // 64] for part in range(64)]
    damaged += ["null", "[]", "3", '"text"', "\x00", f"[{text}]", text + text, text[:-1] + ",}", text.replace('"', "'")]
    damaged += [text[0] + '"twice": 1, "twice": 1, ' + text[1:], text[:-1] + ', "\\ud800": 1}']
    damaged += [text[:-1] + f', "deep": {opening * 100_000}' for opening in ("[", '{"a":')]
    damaged += [text[:-1] + f', "deep": {"[" * DEEPEST}{"]" * DEEPEST}}}', text[:-1] + f', "long": {"1" * 5000}}}']
    damaged += [text.encode() + b"\xff", b"\xff" + text.encode(), text.encode("utf-16"), text.encode("utf-8-sig")]
    damaged += [text + " " * example.schema.limit]
    if example.schema.finite:
        damaged += [text[:-1] + f', "more": {word}}}' for word in ("NaN", "Infinity", "-Infinity", "1e999")]
        damaged += [text[: number.start()] + "NaN" + text[number.end() :]] if number else []
    for source in damaged:
        assert refusal(example, source), source[:200]


@every_example
def test_what_is_out_of_range_or_does_not_agree_is_refused(example):
    for place, value in example.wrong:
        told = changed(example.told, steps(place), value) if place else example.told | value
        assert refusal(example, told), (place, value)


@every_example
def test_a_missing_field_has_a_default_and_an_unknown_one_is_kept_or_they_are_refused(example):
    kind = example.schema.kind
    own = fields(kind) if is_dataclass(kind) else ()
    for field in own:
        if field.default is MISSING and field.default_factory is MISSING and field.name != REST:
            assert f"{field.name}: expected a value, got none" in refusal(example, changed(example.told, (field.name,)))
    said = refusal(example, example.told | {"colour": "red"})
    assert ("colour: expected no such field" in said) is bool(own and REST not in kind.__dataclass_fields__)
    for place in places(example.told):
        value = example.told
        for name in place:
            value = value[name]
        if isinstance(place[-1], str):
            refusal(example, changed(example.told, place))
        if isinstance(value, dict):
            refusal(example, changed(example.told, (*place, "colour"), "red"))


NASTY = (None, True, False, 0, 1, -1, 2, 0.5, -1e300, 10**30, 10**400, "", "1", "a\nb", "x" * 30_000, [], [0], [[[]]],
         {}, {"a": 1}, [None] * 9)  # fmt: skip


@every_example
def test_whatever_stands_in_a_field_is_refused_or_is_what_is_read(example):
    for place in places(example.told):
        for value in NASTY:
            refusal(example, changed(example.told, place, value))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@every_example
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_json_in_any_place(example, data):
    place = data.draw(st.sampled_from([*places(example.told)]))
    refusal(example, changed(example.told, place, data.draw(ANY)))
    refusal(example, data.draw(ANY))
    refusal(example, data.draw(st.text(max_size=30) | st.binary(max_size=30)))


# What the examples do not show


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Outer:
    rows: tuple[Inner, ...]
    named: dict[str, int]


OUTER = Schema(Outer, RunError, "write it anew", limit=10_000)
GOOD = '{"rows": [{"share": 1}], "named": {"a": 1}}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("1}]", "2}]"), "rows[0].share: expected float <= 1.0, got 2"),
        (GOOD.replace('{"share": 1}', "{}"), "rows[0].share: expected a value, got none"),
        (GOOD.replace('"share"', '"shard"'), "rows[0].share: expected a value, got none"),
        (
            GOOD.replace('"share"', '"odd": 1, "share"'),
            "rows[0].odd: expected no such field, unless of a later version",
        ),
        (GOOD.replace('"a": 1', '"a": true'), "named[...]: expected int, got bool"),
        ("[" * 10, "expected JSON, got something else (Expecting value: line 1 column 11 (char 10))"),
        (" " * 10_001, "expected at most 10000 bytes, got 10001"),
        ('{"a": 1, "a": 2}', "expected each name once in an object, got ['a', 'a']"),
        (GOOD[:-1] + ', "a\\nb": 1}', "a b: expected no such field, unless of a later version"),
    ],
)
def test_a_message_says_where_and_what(text, said):
    with pytest.raises(RunError) as refused:
        OUTER.read(text, "FILE")
    assert str(refused.value) == f"FILE: {said}; write it anew"


def test_brackets_in_text_are_no_nesting():
    assert loads(json.dumps(["[{" * 1000, '"' + "[" * 1000, "\\"])) == ["[{" * 1000, '"' + "[" * 1000, "\\"]
    with pytest.raises(ValueError, match="nested"):
        loads('["' + "x" * 100 + '\\"", ' + "[" * 100)
    with pytest.raises(ValueError, match="something else"):
        loads('"' + '\\"' * 1_000_000 + "[" * 100)  # an open string, looked through once


def test_letters_beyond_ascii_come_back():
    for text in ('"é猫\U0001f600"', '"\\u00e9\\ud83d\\ude00"'):
        assert loads(text) == json.loads(text)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing", "long name", "zero byte", "unreadable"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = {"device": Path("/dev/zero"), "long name": tmp_path / ("x" * 300), "zero byte": Path("a\0b")}.get(
        kind, tmp_path / "file"
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.write_text(GOOD)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    with pytest.raises(RunError, match=r"expected a file|cannot be read|null byte") as refused:
        OUTER.read(path)
    assert str(path) in str(refused.value)
    assert fitting_file(path, dict) is None


def test_a_file_is_read_no_further_than_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_text(GOOD)
    assert OUTER.read(path) == OUTER.read(GOOD)
    path.write_text(" " * 10_001)
    with pytest.raises(RunError, match="expected at most 10000 bytes, got 10001"):
        OUTER.read(path)


def test_errors_of_dataclasses_and_of_what_is_made_of_them_become_the_callers():
    with pytest.raises(RunError, match=r"^FILE: below 0; write it anew$"), OUTER.refusing("FILE"):
        raise ConfigError("below 0")
    with pytest.raises(TypeError), OUTER.refusing("FILE"):
        raise TypeError("a bug")


def test_the_lenient_mode_takes_what_fits():
    assert fitting({"share": 1, "more": 2}, Inner) == Inner(1.0)
    assert fitting({"share": 2}, Inner) is None
    assert fitting([1, 2.5], list[float]) == [1.0, 2.5]
    for odd in (True, "1", None, [True], math.nan):
        assert fitting([odd], list[Annotated[float, Meta(ge=0)]]) is None


def test_the_lenient_mode_reads_files_of_other_versions(tmp_path):
    path = tmp_path / "file"
    path.write_text('{"loss": NaN, "more": Infinity}')
    found = fitting_file(path, dict)
    assert math.isnan(found["loss"])
    for text in ("[]", "", "{", "[" * 1000):
        path.write_text(text)
        assert fitting_file(path, dict) is None


def test_names_that_cannot_be_printed_are_refused():
    require_printable(["a", "猫"])
    with pytest.raises(DataError, match="half a letter"):
        require_printable(["a\udcff"])
