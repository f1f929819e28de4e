"""Parts of one table: joined where they agree, refused where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metadarts.core.errors import ConfigError, DataError
from metadarts.papers.page import results_markdown
from metadarts.papers.reproduction import TABLES, joined
from metadarts.papers.reproduction.plans import rows_of
from metadarts.papers.rows import ResultTable
from tests.papers.made_tables import FIVE, ONE, around, comparison, row, table

NAMES = [plan.name for plan in rows_of(TABLES["tnas-omniglot"], "hour", 5)]
SIX = "the headline has six times MAML's time"
SAID = ("Said of the table.", "This too.")


def part(*rows, comparisons=(), notes=SAID, episodes=None, **environment):
    return replace(
        table(),
        name="tnas-omniglot",
        episodes=episodes or {FIVE: "ab" * 32},
        rows=rows,
        comparisons=comparisons,
        notes=notes,
        environment=environment,
    )


HEAD = row("headline", 0.48, "A")
ELSEWHERE = replace(HEAD, search_seconds=1.0, measure_seconds=2.0, device="another")
FIRST = part(
    HEAD,
    row("maml", 0.45),
    comparisons=(comparison("headline", "maml", 0.03, about=SIX),),
    notes=("Unfinished: 3 rows are not measured yet: x.", *SAID),
    commit="a",
    torch="2.14",
    training_hours=1.0,
)
SECOND = part(
    row("random-cell", 0.4, "C"),
    row("task-cell", 0.41, "C"),
    ELSEWHERE,
    comparisons=(comparison("headline", "task-cell", 0.07, about="A against C"),),
    commit="b",
    torch="2.14",
    training_hours=0.25,
)


def test_rows_of_all_parts_are_there_once_in_the_order_of_the_plan():
    (whole,) = joined([SECOND, FIRST])
    assert [each.name for each in whole.rows] == ["headline", "maml", "random-cell", "task-cell"]
    assert [(each.first, each.second) for each in whole.comparisons] == [
        ("headline", "maml"),
        ("headline", "task-cell"),
    ]
    assert ResultTable.from_json(whole.to_json()) == whole
    assert whole.row(FIVE, "headline").device == "another", "the measurement that took less time"


def test_neither_the_order_of_the_parts_nor_a_copy_of_one_matters():
    whole = joined([FIRST, SECOND])
    assert joined([SECOND, FIRST]) == whole
    assert joined([SECOND, FIRST, SECOND, FIRST]) == whole
    assert joined([FIRST, FIRST]) == [FIRST]


def test_it_says_what_is_missing_which_part_has_what_and_what_was_measured_anew():
    (whole,) = joined([FIRST, SECOND])
    missing, *parts, again, one, two = whole.notes
    assert missing.startswith(f"Unfinished: {len(NAMES) - 4} rows are not measured yet: supernet")
    assert "x." not in missing
    assert sorted(note[len("Part 1 of 2 ") :] for note in parts) == [
        "(commit a): Method headline; Method maml.",
        "(commit b): Method random-cell; Method task-cell; Method headline.",
    ]
    assert again == "Done anew in another part, and equal to the last digit: Method headline (5-way 5-shot)."
    assert (one, two) == SAID


def test_a_table_that_its_parts_complete_is_not_unfinished():
    others = part(*(row(name, 0.4) for name in NAMES if name not in ("maml", "headline")), ELSEWHERE)
    (whole,) = joined([FIRST, others])
    assert not any(note.startswith("Unfinished") for note in whole.notes)
    assert [each.name for each in whole.rows] == NAMES


def test_planned_comparisons_that_no_part_can_make_are_named():
    cells = part(ELSEWHERE, row("random-cell", 0.4, "C"), row("meta-cell", 0.4, "C"), row("protonet", 0.4))
    (whole,) = joined([FIRST, cells])
    (apart,) = (note for note in whole.notes if note.startswith("Not compared"))
    assert apart.endswith(": Method meta-cell with Method random-cell (5-way 5-shot).")


def test_environments_keep_what_is_common_and_add_the_hours():
    (whole,) = joined([FIRST, SECOND])
    assert whole.environment["torch"] == "2.14"
    assert sorted(whole.environment["commit"]) == ["a", "b"]
    assert whole.environment["training_hours"] == 1.25
    assert "commit \\[" in results_markdown([whole])


def test_a_copied_row_is_not_measured_anew_and_its_hours_are_not_added():
    (whole,) = joined([FIRST, part(HEAD, row("random-cell", 0.4, "C"), training_hours=0.25)])
    assert not any(note.startswith("Done anew") for note in whole.notes)
    assert "training_hours" not in whole.environment


SEEDS = replace(row("protonet", 0.45), seeds=(0,))
REFUSED = [
    ([FIRST, part(row("maml", 0.4501))], "measured 5-way 5-shot / maml and differ in its estimate: Estimate("),
    ([FIRST, part(replace(row("maml", 0.45), meta_steps=501))], "maml and differ in its meta_steps: 50"),
    ([FIRST, part(SEEDS)], "trained with the seeds [(0,), (0, 1, 2)]"),
    ([FIRST, part(row("protonet", 0.4), episodes={FIVE: "cd" * 32})], "on other test tasks of 5-way 5-shot"),
    ([FIRST, replace(part(row("protonet", 0.4)), paper="another")], "differ in their paper"),
    ([FIRST, part(row("protonet", 0.4), notes=(SAID[0],))], "only one of them has 'This too.'"),
    ([FIRST, part(row("meta-cell", 0.4, "C"))], "has the row 'meta-cell' of 5-way 5-shot without its headline"),
    (
        [FIRST, part(HEAD, row("maml", 0.45), comparisons=(replace(FIRST.comparisons[0], difference=around(0.02)),))],
        f"5-way 5-shot / headline / maml / {SIX} and differ in its difference",
    ),
    (
        [part(row("maml", 0.4, setting=ONE), episodes={ONE: "0" * 64}),
         part(row("maml", 0.4), episodes={FIVE: "cd" * 32}), part(row("protonet", 0.4))],
        "on other test tasks of 5-way 5-shot",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "said"), REFUSED)
@pytest.mark.parametrize("turned", [False, True])
def test_parts_that_differ_are_refused(parts, said, turned):
    with pytest.raises(DataError) as caught:
        joined(parts[::-1] if turned else parts)
    assert said in str(caught.value)


def test_other_budgets_splits_and_tables_stay_apart():
    others = [FIRST, replace(FIRST, budget="full"), replace(FIRST, split="another"), replace(FIRST, name="cifar-fs")]
    assert joined(others) == others
    assert joined([]) == []


def test_parts_of_a_table_that_is_none_of_ours_are_refused():
    with pytest.raises(ConfigError, match="unknown table 'tnas'"):
        joined([replace(FIRST, name="tnas"), replace(SECOND, name="tnas")])
