"""Genotype files from anywhere: a cell of the space, or one GenotypeError; nothing in them is ever run."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metadarts.core.errors import GenotypeError
from metadarts.core.rng import Key
from metadarts.spaces import Genotype, darts, random_genotype
from metadarts.training import read_genotype

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SPACE = darts()
CELL = random_genotype(SPACE, Key.from_seed(0))
TEXT, JSON = str(CELL), CELL.to_json(SPACE.name)


def read(folder, content: bytes) -> Genotype | None:
    """What is read, None where it is refused in one line."""
    path = folder / "genotype.txt"
    path.write_bytes(content)
    said = ""
    try:
        return read_genotype(path)
    except GenotypeError as error:
        said = str(error)
    assert "\n" not in said
    return None


@pytest.mark.parametrize("text", [TEXT, JSON], ids=["text", "json"])
def test_what_derive_writes_is_read(tmp_path, text):
    assert read(tmp_path, text.encode()) == CELL


@FUZZ
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path, content):
    assert read(tmp_path, content) is None


@FUZZ
@given(place=st.integers(0, 10**6), cut=st.integers(0, 8), put=st.text(max_size=8), form=st.sampled_from([TEXT, JSON]))
def test_a_changed_place(tmp_path, place, cut, put, form):
    place %= len(form)
    changed = form[:place] + put + form[place + cut :]
    found = read(tmp_path, changed.encode(errors="surrogatepass"))
    assert found is None or isinstance(found, Genotype)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)


@FUZZ
@given(value=st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=10), part=st.sampled_from(
    ["normal", "reduce", "normal_concat", "reduce_concat", "space", "format", "version"]))  # fmt: skip
def test_any_value_in_its_place(tmp_path, value, part):
    found = read(tmp_path, json.dumps(json.loads(JSON) | {part: value}).encode())
    assert found is None or isinstance(found, Genotype)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {target}')",
        "Genotype(normal=[(open('{target}', 'w').name, 0)], normal_concat=range(2, 6), reduce=[], reduce_concat=[])",
        "Genotype(normal=exec(\"open('{target}', 'w')\"), normal_concat=[], reduce=[], reduce_concat=[])",
        "Genotype(" * 5000,
        "[" * 90000,
        "{" * 90000,
    ],
    ids=["call", "open", "exec", "deep", "brackets", "braces"],
)
def test_code_is_not_run(tmp_path, text):
    target = tmp_path / "made"
    assert read(tmp_path, text.replace("{target}", str(target)).encode()) is None
    assert not target.exists()
