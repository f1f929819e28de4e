"""Parts of one table: joined where they agree, refused where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadarts.core.errors import DataError
from metadarts.studies.page import results_markdown
from metadarts.studies.reproduction import TABLES, joined
from metadarts.studies.reproduction.plans import rows_of
from metadarts.studies.rows import Table
from tests.studies.made_tables import FIVE, around, comparison, row, table

NAMES = [plan.name for plan in rows_of(TABLES["tnas-fc100"], "hour", 5)]


def part(*rows, comparisons=(), notes=(), episodes=None, **environment):
    return replace(
        table(),
        name="tnas-fc100",
        episodes=episodes or {FIVE: "ab" * 32},
        rows=rows,
        comparisons=comparisons,
        notes=notes,
        environment=environment,
    )


ONE = part(
    row("headline", 0.48, "A"),
    row("maml", 0.45),
    comparisons=(comparison("headline", "maml", 0.03, about="the headline has six times MAML's time"),),
    notes=("Unfinished: 3 rows are not measured yet: x.", "Said in both.", "Said in one."),
    commit="a",
    torch="2.14",
    training_hours=1.0,
)
TWO = part(
    row("random-cell", 0.4, "C"),
    replace(row("headline", 0.48, "A"), search_seconds=1.0, measure_seconds=2.0, device="another"),
    comparisons=(comparison("headline", "random-cell", 0.08, about="an invented one"),),
    notes=("Said in both.", "Said in two."),
    commit="b",
    torch="2.14",
    training_hours=0.25,
)


def test_rows_of_all_parts_are_there_once_in_the_order_of_the_plan():
    (whole,) = joined([TWO, ONE])
    assert [each.name for each in whole.rows] == ["headline", "maml", "random-cell"]
    assert [(each.first, each.second) for each in whole.comparisons] == [
        ("headline", "maml"),
        ("headline", "random-cell"),
    ]
    assert whole.rows[0].device == "another", "that of the part that was given first"
    assert Table.from_json(whole.to_json()) == whole
    assert whole.digest == replace(joined([ONE, TWO])[0], notes=whole.notes).digest


def test_it_says_what_is_missing_and_in_how_many_parts_it_was_measured():
    (whole,) = joined([ONE, TWO])
    missing, parts, *others = whole.notes
    assert missing.startswith(f"Unfinished: {len(NAMES) - 3} rows are not measured yet: supernet")
    assert "x." not in missing
    assert parts == "Measured in 2 parts; rows that are in more than one of them, and equal there: 1."
    assert others == ["Said in both.", "Said in one.", "Said in two."]
    (complete,) = joined([ONE, part(*(row(name, 0.4) for name in NAMES if name not in ("headline", "maml")))])
    assert not any(note.startswith("Unfinished") for note in complete.notes)
    assert [each.name for each in complete.rows] == NAMES


def test_environments_keep_what_is_common_and_add_the_hours():
    (whole,) = joined([ONE, TWO])
    assert whole.environment == {"commit": ["a", "b"], "torch": "2.14", "training_hours": 1.25}
    assert "commit \\['a', 'b'\\]" in results_markdown([whole])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (part(row("maml", 0.4501)), "measured 5-way 5-shot / maml and differ in it: 45.0000"),
        (part(replace(row("maml", 0.45), meta_steps=501)), "measured 5-way 5-shot / maml and differ"),
        (part(replace(row("maml", 0.45), seeds=(0,))), "measured 5-way 5-shot / maml and differ"),
        (part(row("maml", 0.45), episodes={FIVE: "cd" * 32}), "on other test tasks of 5-way 5-shot (abababababab"),
        (replace(part(row("maml", 0.45)), paper="another"), "differ in their paper"),
        (
            part(
                row("headline", 0.48, "A"),
                row("maml", 0.45),
                comparisons=(replace(ONE.comparisons[0], difference=around(0.02, 0.001)),),
            ),
            "headline / maml / the headline has six times MAML's time and differ in it: 3.0000",
        ),
    ],
)
def test_parts_that_differ_are_refused(other, said):
    with pytest.raises(DataError) as caught:
        joined([ONE, other])
    assert said in str(caught.value)


def test_other_budgets_splits_and_tables_stay_apart():
    others = [ONE, replace(ONE, budget="full"), replace(ONE, split="another"), replace(ONE, name="cifar-fs")]
    assert joined(others) == others
    assert joined([]) == []
