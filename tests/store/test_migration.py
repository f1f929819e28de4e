"""Names of version 0.1 are understood, and today's stay as they are."""

from __future__ import annotations

import pytest

from metadarts.core.errors import ConfigError
from metadarts.store.migration import migrated_finish, migrated_settings, migrated_task


@pytest.mark.parametrize(
    ("old", "new"),
    [("soft", "supernet"), ("scratch", "retrained"), ("inherited", "inherited"), ("supernet", "supernet"), ("", "")],
)
def test_names_of_finishes(old, new):
    assert migrated_finish(old) == new


NETWORK = {
    "in_channels": 1, "stem": [4, 6], "channels": 4, "cells": ["normal", "reduce"], "affine": False, "pool_norm": True,
    "head": "prototype", "logit_scale": 0.1, "flat": 0,
}  # fmt: skip


def test_a_task_folder_has_its_finishes_and_its_network_under_todays_names():
    told = {
        "format": "metadarts.task",
        "version": 1,
        "nodes": 2,
        "network": NETWORK,
        "measured": {"soft": 4},
        "notes": ["soft"],
    }
    told |= {"solutions": {"scratch": 1, "soft": 2, "inherited": 3}}
    tensors = {"soft/head.bias": 5, "scratch/a/b": 6, "support/pixels": 7, "soft": 8}
    found, renamed = migrated_task(told)
    assert found == {
        "format": "metadarts.task", "version": 2, "solutions": {"retrained": 1, "supernet": 2, "inherited": 3},
        "measured": {"supernet": 4}, "notes": ["soft"],
        "network": {
            "space": {"name": "darts", "nodes": 2}, "macro": {"name": "tnas", "stem": [4, 6], "channels": 4},
            "model": {"affine": False, "pool_norm": True, "head": "prototype"},
        },
    }  # fmt: skip
    assert list(found["solutions"]) == ["retrained", "supernet", "inherited"]
    assert renamed(tensors) == {"supernet/head.bias": 5, "retrained/a/b": 6, "support/pixels": 7, "supernet": 8}
    assert migrated_task(found)[0] == found
    assert migrated_task(found)[1](tensors) == tensors


TASK = {"format": "metadarts.task"}


@pytest.mark.parametrize(
    "odd", [{}, [], {"version": 1, "solutions": {"soft": 1}}, {"format": "metadarts.model", "version": 1}]
)
def test_what_is_no_task_is_left_for_its_reader(odd):
    assert migrated_task(odd)[0] == odd


@pytest.mark.parametrize("odd", [TASK | {"version": 1, "solutions": None, "measured": []}, TASK | {"version": 3}])
def test_what_is_damaged_is_left_for_its_reader(odd):
    found, _ = migrated_task(odd)
    assert found == (odd | {"version": 2} if odd["version"] == 1 else odd)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"model.nodes": 2}, {"space.nodes": 2}),
        ({"model.channels": 4, "model.stem": [4, 6]}, {"macro.channels": 4, "macro.stem": [4, 6]}),
        (
            {"model.network": "conv4", "model.channels": 32, "model.stem": [24, 48]},
            {"model.network": "supernet", "macro.name": "conv4", "macro.channels": 32},
        ),
        ({"training.engine": "task_axis"}, {"training.engine": "batched"}),
        ({"training.engine": "loop", "inner.steps": 3}, {"training.engine": "loop", "inner.steps": 3}),
    ],
)
def test_settings(old, new):
    assert migrated_settings(old) == new
    assert migrated_settings(new) == new


def test_a_stem_of_conv4_is_ignored_as_it_was():
    assert migrated_settings({"model.stem": [4, 8]}, "conv4") == {}
    assert migrated_settings({"model.stem": [4, 8], "macro.name": "tnas"}, "conv4") == {
        "macro.stem": [4, 8],
        "macro.name": "tnas",
    }


@pytest.mark.parametrize("network", ["supernet", "cell"])
def test_another_network_in_place_of_conv4_needs_its_macro_network(network):
    """Version 0.1 had no macro networks: "supernet" stood for T-NAS's."""
    with pytest.raises(ConfigError, match=r"the macro network stays 'conv4'.*set macro.name too, to tnas"):
        migrated_settings({"model.network": network}, "conv4")
    settings = {"model.network": network, "macro.name": "conv4"}
    assert migrated_settings(settings, "conv4") == settings
    assert migrated_settings({"model.network": network}, "tnas") == {"model.network": network}
