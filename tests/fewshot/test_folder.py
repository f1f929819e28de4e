"""Task folders: whole or not at all; a damaged one is refused in our own words."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from metadarts.core.errors import RunError
from metadarts.fewshot.folder import FACTS, TENSORS, is_task, load_task, save_task
from metadarts.fewshot.learn import AdaptSettings, adapt_start, derive, inherited, retrained
from metadarts.fewshot.task import Step, Task

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def task(start, support):
    """A task of all three finishes."""
    adapted = adapt_start(start, support, AdaptSettings(1))
    solutions = {
        "supernet": adapted,
        "inherited": inherited(start, support, adapted, AdaptSettings(1)),
        "retrained": retrained(start, support, derive(adapted), AdaptSettings(1)),
    }
    return Task(
        support,
        solutions,
        {"start": {"name": "tiny"}, "notes": ["a note"], "measured": {"supernet": {"images": 3}}},
        start.config,
    )


@pytest.fixture(scope="module")
def saved(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "deep" / "task"
    save_task(task, path, {"cells.png": b"a picture"})
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "task")


def test_a_task_comes_back(task, saved):
    found = load_task(saved)
    assert sorted(file.name for file in saved.iterdir()) == ["cells.png", FACTS, TENSORS]
    assert [file.name for file in saved.parent.iterdir()] == ["task"], "no scaffold is left"
    assert (saved / "cells.png").read_bytes() == b"a picture"
    assert (found.support.form, found.support.classes, found.support.seed) == (
        task.support.form,
        task.support.classes,
        task.support.seed,
    )
    assert found.facts == task.facts
    assert list(found.solutions) == list(task.solutions)
    pixels = task.support.pixels
    for finish, solution in task.solutions.items():
        own = found.solution(finish)
        assert (own.network, own.history, own.kept) == (solution.network, solution.history, solution.kept)
        assert all(torch.equal(own.params[name], solution.params[name]) for name in solution.params)
        assert torch.equal(found.source(finish)(pixels), task.source(finish)(pixels))
        assert found.model(finish).facts == task.model(finish).facts


def test_a_folder_of_version_0_1_is_todays(task, copy):
    """As version 0.1 wrote it, which called two finishes otherwise and described the network in another way."""
    old = {"supernet": "soft", "retrained": "scratch"}
    network = {
        "in_channels": 1, "stem": [4, 6], "channels": 4, "cells": ["normal", "reduce"], "affine": False,
        "pool_norm": True, "head": "prototype", "logit_scale": 0.1, "flat": 0,
    }  # fmt: skip
    told = json.loads((copy / FACTS).read_text()) | {"version": 1, "nodes": 2, "network": network}
    for group in ("solutions", "measured"):
        told[group] = {old.get(name, name): value for name, value in told[group].items()}
    (copy / FACTS).write_text(json.dumps(told))
    tensors = load((copy / TENSORS).read_bytes())
    parts = {name: name.split("/", 1) for name in tensors}
    vouch(copy, save({f"{old.get(first, first)}/{rest}": tensors[name] for name, (first, rest) in parts.items()}))
    assert {name.split("/")[0] for name in load((copy / TENSORS).read_bytes())} == {
        "soft", "inherited", "scratch", "support",
    }  # fmt: skip
    found = load_task(copy)
    assert (list(found.solutions), found.facts) == (list(task.solutions), task.facts)
    for name, solution in task.solutions.items():
        own = found.solution(name)
        assert (own.finish, own.network, own.history) == (name, solution.network, solution.history)
        assert all(torch.equal(own.params[key], solution.params[key]) for key in solution.params)
    assert found.solution("soft") is found.solution("supernet")
    assert found.model("scratch").facts["finish"] == "retrained"


def test_its_description_is_strict_json_even_after_a_loss_that_was_no_number(task, tmp_path):
    adapted = task.solution("supernet")
    history = (*adapted.history, Step(2, math.nan, 0.5), Step(3, math.inf, 0.6))
    save_task(replace(task, solutions={"supernet": replace(adapted, history=history)}), tmp_path / "task")

    def refuse(text):
        raise AssertionError(text)

    json.loads((tmp_path / "task" / FACTS).read_text(), parse_constant=refuse)
    losses = [step.loss for step in load_task(tmp_path / "task").solution("supernet").history]
    assert losses[:2] == [step.loss for step in adapted.history]
    assert all(math.isnan(loss) for loss in losses[2:])


def test_what_is_there_is_left_alone(task, tmp_path):
    for path in (tmp_path / "file", tmp_path / "folder", tmp_path / "link"):
        {"file": path.touch, "folder": path.mkdir, "link": lambda path=path: path.symlink_to("nowhere")}[path.name]()
        with pytest.raises(RunError, match="exists"):
            save_task(task, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("fault", ["facts", "number", "picture", "disk", "interrupt", "name"])
def test_a_save_that_fails_leaves_nothing_behind(task, tmp_path, monkeypatch, fault):
    written = save_task.__globals__
    pictures, path, wanted = {}, tmp_path / "task", RunError
    if fault in ("facts", "number"):
        task = replace(task, facts=task.facts | {"more": object() if fault == "facts" else math.inf})
    elif fault == "picture":
        pictures = {"no/such/folder.png": b""}
    elif fault == "name":
        path = tmp_path / ("x" * 256)
    else:
        wanted = RunError if fault == "disk" else KeyboardInterrupt
        error = OSError(28, "No space left on device") if fault == "disk" else KeyboardInterrupt()

        def fail(*_):
            raise error

        monkeypatch.setitem(written, "write_atomically", fail)
    with pytest.raises(wanted) as raised:
        save_task(task, path, pictures)
    assert not list(tmp_path.iterdir())
    assert fault != "disk" or f"cannot write {path}" in str(raised.value)


def test_what_is_no_task_folder(tmp_path):
    for path in (tmp_path, tmp_path / "gone", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        assert not is_task(path)
        with pytest.raises(RunError, match="give what `adapt --out` named"):
            load_task(path)


@FUZZ
@given(size=st.integers(0, 2**20))
def test_truncated_tensors(copy, saved, size):
    content = (saved / TENSORS).read_bytes()
    (copy / TENSORS).write_bytes(content[: size % len(content)])
    with pytest.raises(RunError, match="its hash is not the one"):
        load_task(copy)


def vouch(folder, content):
    """What an attacker would do: the description's hash is that of the tensors."""
    (folder / TENSORS).write_bytes(content)
    told = json.loads((folder / FACTS).read_text())
    told["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / FACTS).write_text(json.dumps(told))


@FUZZ
@given(size=st.integers(0, 2**20), flip=st.none() | st.integers(0, 2000))
def test_damaged_tensors_with_a_hash_to_match(copy, saved, size, flip):
    content = bytearray((saved / TENSORS).read_bytes())
    if flip is None:
        content = content[: size % len(content)]
    else:
        content[flip] ^= 1 + size % 255
    vouch(copy, bytes(content))
    said = ""
    try:
        load_task(copy).model()
    except RunError as error:
        said = str(error)
    assert said or flip is not None, "a file cut short is never whole"
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("support/pixels", lambda tensor: tensor.float()),
        ("support/pixels", lambda tensor: tensor[:, :, 1:].contiguous()),
        ("support/pixels", lambda tensor: tensor[:0]),
        ("support/labels", lambda tensor: tensor.int()),
        ("support/labels", lambda tensor: tensor + 1),
        ("support/labels", lambda tensor: tensor - 1),
        ("support/labels", lambda tensor: tensor.clamp(max=1)),
        ("support/labels", lambda tensor: tensor[1:].contiguous()),
        ("support/labels", lambda tensor: None),
        ("supernet/head.bias", lambda tensor: torch.cat([tensor, tensor])),
        ("supernet/head.bias", lambda tensor: tensor * torch.nan),
        ("supernet/head.bias", lambda tensor: tensor.double()),
        ("retrained/stem.conv1", lambda tensor: None),
    ],
)
def test_tensors_that_do_not_fit(copy, name, spoil):
    tensors = load((copy / TENSORS).read_bytes())
    tensors[name] = spoil(tensors[name])
    vouch(copy, save({name: tensor for name, tensor in tensors.items() if tensor is not None}))
    with pytest.raises(RunError, match="is damaged"):
        load_task(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value, above=()):
    """Every path in nested dictionaries and lists."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*above, name)
        if isinstance(inner, dict | list):
            yield from places(inner, (*above, name))


@settings(FUZZ, max_examples=150)
@given(data=st.data())
def test_hostile_values_are_refused_or_can_be_used(copy, saved, data):
    told = json.loads((saved / FACTS).read_text())
    place = data.draw(st.sampled_from(sorted(places(told), key=str)))
    group = told
    for name in place[:-1]:
        group = group[name]
    if data.draw(st.booleans()):
        del group[place[-1]]
    else:
        group[place[-1]] = data.draw(JSON)
    (copy / FACTS).write_text(json.dumps(told))
    found, said = Task(None), ""
    try:
        found = load_task(copy)
    except RunError as error:
        said = str(error)
    assert "\n" not in said
    if said:
        return
    for finish in found.solutions:
        found.model(finish).to_bytes()
    again = copy.with_name("again")
    save_task(found, again)
    load_task(again)
    shutil.rmtree(again)


def test_a_description_that_no_network_has_is_refused(copy):
    """What its schema cannot say; the rest is in tests/store."""
    told = json.loads((copy / FACTS).read_text())
    told["network"]["model"]["head"] = "none"
    for change in (told, told | {"solutions": {"supernet": told["solutions"]["supernet"] | {"genotype": "import os"}}}):
        (copy / FACTS).write_text(json.dumps(change))
        with pytest.raises(RunError, match="is damaged"):
            load_task(copy)
