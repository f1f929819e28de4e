"""Names of version 0.1 are understood, and today's stay as they are."""

from __future__ import annotations

import pytest

from metadarts.store.migration import migrated_finish, migrated_task


@pytest.mark.parametrize(
    ("old", "new"),
    [("soft", "supernet"), ("scratch", "retrained"), ("inherited", "inherited"), ("supernet", "supernet"), ("", "")],
)
def test_names_of_finishes(old, new):
    assert migrated_finish(old) == new


def test_a_task_folder_has_its_finishes_under_todays_names_in_their_order():
    told = {"solutions": {"scratch": 1, "soft": 2, "inherited": 3}, "measured": {"soft": 4}, "notes": ["soft"]}
    tensors = {"soft/head.bias": 5, "scratch/a/b": 6, "support/pixels": 7, "soft": 8}
    found, renamed = migrated_task(told, tensors)
    assert found == {
        "solutions": {"retrained": 1, "supernet": 2, "inherited": 3}, "measured": {"supernet": 4}, "notes": ["soft"],
    }  # fmt: skip
    assert list(found["solutions"]) == ["retrained", "supernet", "inherited"]
    assert renamed == {"supernet/head.bias": 5, "retrained/a/b": 6, "support/pixels": 7, "supernet": 8}
    assert migrated_task(found, renamed) == (found, renamed)


@pytest.mark.parametrize("odd", [{}, {"solutions": None, "measured": []}, {"solutions": "soft"}])
def test_what_is_damaged_is_left_for_its_reader(odd):
    assert migrated_task(odd, {}) == (odd, {})
