"""Means, intervals and pairing of the tables of the new-task benchmark."""

from __future__ import annotations

from benchmarks.new_task import table
from benchmarks.new_task.ours import order


def test_intervals_are_student_s():
    mean, interval = table.over_draws([0.5, 0.7])
    assert mean == 0.6
    assert interval == " ± 127.1"  # 12.706 times 0.1 is 1.27, in per cent
    assert table.over_draws([0.5]) == (0.5, "")


def test_gaps_are_paired_draw_by_draw():
    rows = [{"one": 0.5, "other": 0.4}, {"one": 0.9, "other": 0.8}]
    assert table.gap(rows, table.figure("one"), table.figure("other")) == "+10.0 ± 0.0"


def test_several_figures_of_a_row_count_as_their_mean():
    assert table.figure("cells")({"cells": [0.2, 0.4]}) == 0.30000000000000004


def test_settings_are_ordered_by_domain_and_ways():
    rows = [{"draw": name} for name in ("glyphs-12-0", "cifar100-5-1", "glyphs-3-0", "glyphs-3-1")]
    assert table.settings(rows) == ["cifar100-5", "glyphs-3", "glyphs-12"]


def test_draws_are_taken_by_number_first():
    assert sorted(["b-3-1", "b-12-0", "a-3-10"], key=order) == ["b-12-0", "b-3-1", "a-3-10"]
