"""Tensors with a description beside them: what is no such file is refused, as are tensors of another kind."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from metadarts.core.errors import RunError
from metadarts.store.schema import Schema
from metadarts.store.tensors import read_described, require_tensors, sealed, to_described, unsealed

SCHEMA = Schema(dict, RunError, "save it anew")
TENSORS = {"a": torch.ones(2, 3), "b": torch.zeros(())}
SHAPES = {"a": (2, 3), "b": ()}


def test_a_description_and_its_tensors_come_back(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"key": "{}"})
    text, tensors = read_described(tmp_path / "a.safetensors", "key", SCHEMA)
    assert text == "{}"
    require_tensors(tensors, SHAPES)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read"),
        ("folder", "got a folder"),
        ("pipe", "got a pipe"),
        ("text", "cannot be read as a .safetensors file"),
        ("another key", "no description of them"),
        ("large", "expected at most 100 bytes"),
    ],
)
def test_what_is_no_described_file_is_refused(tmp_path, kind, words):
    path = tmp_path / "a.safetensors"
    if kind in ("another key", "large"):
        save_file(TENSORS, path, metadata={"other": "{}"})
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "text": lambda: path.write_text("{}")}.get(kind, str)()
    with pytest.raises(RunError, match=words) as refused:
        read_described(path, "key", SCHEMA, limit=100 if kind == "large" else 10_000)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": None}, "'a': expected a tensor, got none"),
        ({"c": torch.ones(1)}, "'c': expected no such tensor"),
        ({"a": torch.ones(3, 2)}, r"'a': expected the shape \[2, 3\], got \[3, 2\]"),
        ({"a": torch.ones(2, 3, dtype=torch.float64)}, "'a': expected finite float32 numbers"),
        ({"b": torch.tensor(torch.inf)}, "'b': expected finite float32 numbers"),
        ({"b": torch.tensor(torch.nan)}, "'b': expected finite float32 numbers"),
    ],
)
def test_other_tensors_are_refused(change, words):
    tensors = {name: tensor for name, tensor in (TENSORS | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=words):
        require_tensors(tensors, SHAPES)


def test_a_bit_that_is_changed_in_any_byte_is_seen(tmp_path):
    """In the tensors, in the description, in its mark or in its hash."""
    path, told = tmp_path / "a.safetensors", {"classes": ["ant", "bee"], "rate": 0.05}
    whole = to_described(told, "key", TENSORS)
    path.write_bytes(whole)
    assert json.loads(read_described(path, "key", SCHEMA)[0]) == told
    unseen = []
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            text, tensors = read_described(path, "key", SCHEMA)
        except RunError:
            continue
        assert json.loads(text) == told
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
        unseen.append(place)
    assert len(unseen) < 5, "white space of the library's own, if anything"


@pytest.mark.parametrize("view", [torch.ones(4, 3)[:, 1], torch.ones(1).expand(5), torch.ones(2, 3).T])
def test_tensors_of_any_layout_are_written(tmp_path, view):
    (tmp_path / "a.safetensors").write_bytes(to_described({"a": 1}, "key", {"view": view}))
    _, tensors = read_described(tmp_path / "a.safetensors", "key", SCHEMA)
    assert torch.equal(tensors["view"], view)


def test_a_description_without_a_hash_is_of_an_earlier_version():
    text = '{"a": 1}'
    assert unsealed(text, "content") == text
    assert unsealed(sealed(text, "content"), "content") == text
    with pytest.raises(ValueError, match="it is damaged"):
        unsealed(sealed(text, "content"), "other")
