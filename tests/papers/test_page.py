"""A table in words and pictures: every row and doubt is told, the budget stands by every figure, nothing is made up."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from typer.testing import CliRunner

from metadarts.core.errors import ConfigError, DataError, RunError
from metadarts.papers.page import MARK, findings, results_markdown, table_markdown
from metadarts.papers.pictures import draw_comparisons, draw_table
from metadarts.papers.rows import Comparison, Paper, ResultTable
from metadarts.stats import Estimate
from metadarts.viz import Picture
from metadarts.viz._canvas import DPI
from metadarts.viz._forest import Branch, draw_forest
from tests.papers.made_tables import FIVE, ONE, around, comparison, row, table


def told(**changed: object) -> str:
    return "\n".join(findings(replace(table(), **changed)))


def compared(changed: Comparison) -> str:
    """The line of the grid that has ``changed`` alone."""
    page = table_markdown(replace(table(), comparisons=(changed,)))
    return page.split("### Compared")[1].split("### What")[0].strip().splitlines()[-1]


def test_every_row_is_there_with_its_figures() -> None:
    page = table_markdown(table())
    for measured in table().rows:
        mean = f"{100 * measured.estimate.mean:.2f}"
        assert re.search(rf"\| {measured.method} \|.*\| {mean} \|", page)
    assert (
        "| 63.11 ± 1.00 | 60.00 | [59.00, 61.00] | -3.11 | 3 | 600 | transductive | 26,500 + 224 alphas | 500 | 1.00 |"
        in page
    )
    assert page.count("| budget too small to say |") == 4
    assert page.count("| no value in the paper |") == 3
    assert table().digest in page
    assert "abababababab" in page


def test_all_lines_of_a_grid_have_the_same_columns() -> None:
    grids = re.findall(r"(?:^\|.*\n)+", results_markdown([table()]), re.MULTILINE)
    assert len(grids) == 4
    for grid in grids:
        assert len({line.count("|") for line in grid.splitlines()}) == 1


@pytest.mark.parametrize("budget", ["smoke", "hour", "full"])
def test_the_budget_stands_by_every_figure(budget: str) -> None:
    made = replace(table(), budget=budget)
    page = table_markdown(made)
    assert all(f"({budget} budget)" in line for line in page.splitlines() if line.startswith("#"))
    assert all(f"{budget} budget)" in line for line in findings(made))
    assert f"with its 95 % interval ({budget} budget)." in page
    assert page.count(f"| ours ({budget} budget) |") == 2
    assert ("no reproduction" in page) == (budget != "full")
    for said in ("| not reproduced |", "| reproduced |", "| no verdict: another protocol |"):
        assert (said in page) == (budget == "full")
    for distance in ("| -3.11 |", "| -4.68 |", "| -0.50 |", "| -3.70 |"):  # whatever the verdict
        assert distance in page


def test_what_all_rows_share_is_said_once_and_what_differs_row_by_row() -> None:
    made = table()
    page = table_markdown(made)
    assert page.count("device: 2 CPU cores") == 2  # once a setting
    other = (replace(made.rows[0], device="a GPU", note="cell x|y"), *made.rows[1:])
    page = table_markdown(replace(made, rows=other))
    assert "- **Method maml**: the paper's Printed maml; cell x\\|y; device: a GPU." in page
    assert (
        "- **Method headline**: the paper's Printed headline, of something else: another protocol; "
        "device: 2 CPU cores." in page
    )
    assert ".." not in page.replace("...", "")


def test_how_much_a_row_covers_is_told_where_it_is_made() -> None:
    made = table()
    part = replace(made.rows[0], covers="596 of 600 tasks", note="trained on 5-shot tasks.")
    page = table_markdown(replace(made, rows=(part, *made.rows[1:])))
    assert "- **Method maml**: the paper's Printed maml; 596 of 600 tasks; trained on 5-shot tasks.\n" in page


def test_a_genotype_is_code_as_it_stands() -> None:
    one, other = (
        f"Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', {end})], normal_concat=range(2, 6), "
        f"reduce=[('max_pool_3x3', 1)], reduce_concat={concat})"
        for end, concat in ((1, "range(2, 6)"), (2, "[2, 4]"))
    )
    made = table()
    note = f"the cell of_all; cell {one}, cell {other}; cell x_y `z`"
    page = table_markdown(
        replace(made, rows=(replace(made.rows[0], note=note), *made.rows[1:]), notes=(f"cell {one}",))
    )
    assert f"; the cell of\\_all; cell `{one}`, cell `{other}`; cell x\\_y \\`z\\`." in page
    assert f"- cell `{one}`\n" in page
    broken = f"cell {one.replace('skip', '`skip` <b>')}"
    assert f"- cell `{one.replace('skip', 'skip <b>')}`\n" in table_markdown(replace(made, notes=(broken,)))


def test_no_sentence_ends_twice() -> None:
    page = table_markdown(replace(table(), paper="A paper.", split="64 classes."))
    assert "Values beside ours: A paper. Data: cifar-fs, 64 classes. Measured at" in page
    assert "Values beside ours: A. Author et al., A Title, 2020, Table 1. Data: cifar-fs, " in table_markdown(table())


def test_the_time_of_the_whole_table_is_told_where_it_is_known() -> None:
    hours = {"training_hours": 2.338, "measuring_hours": 0.51}
    page = table_markdown(replace(table(), environment={"torch": "2.11.0", **hours}))
    assert "In all: trainings 2.34 h, measuring 0.51 h.\n\nMeasured with: torch 2.11.0. Digest" in page
    for known in ({"training_hours": 2.3}, {**hours, "measuring_hours": "x"}, {**hours, "training_hours": True},
                  {**hours, "training_hours": 10**400}):  # fmt: skip
        page = table_markdown(replace(table(), environment=known))
        assert "In all" not in page
        assert "Measured with: training\\_hours" in page


def test_a_caption_says_what_the_intervals_cover() -> None:
    made = table()
    assert "interval over seeds and test tasks." in table_markdown(made)
    alone = replace(made, rows=tuple(replace(measured, seeds=(0,)) for measured in made.rows))
    assert "interval over test tasks alone, as each row is one training." in table_markdown(alone)


def test_a_clear_comparison() -> None:
    clear = replace(comparison("headline-c", "headline-b", 0.035), paper=None)
    assert compared(clear) == (
        "| 5-way 5-shot | Method headline-c | Method headline-b | equal wall-clock | +3.50 [2.70, 4.30] | 598 and 601 "
        "| 500 and 812 | none | none |"
    )


def test_an_unclear_comparison_says_what_it_does_not_show() -> None:
    unclear = compared(comparison("headline", "maml", -0.003))
    assert "| -0.30 [-1.10, 0.50] | 598 and 601 | 500 and 812 | +1.80 |" in unclear
    assert unclear.endswith("| the interval contains 0: no difference shown; the intervals of the two overlap |")


def test_what_was_trained_once_is_not_compared_and_nothing_is_asked_of_it() -> None:
    rows = (row("task-cell", 0.62, "C"), row("meta-cell", 0.62, "C"), row("maml", 0.6))
    same = replace(comparison("task-cell", "meta-cell", 0.0), same=True)
    page = table_markdown(replace(table(), rows=rows, comparisons=(same,)))
    remark = "Method task-cell and Method meta-cell are the same cell, trained once: there is nothing to compare"
    assert page.count(f"| {remark} |") == 1
    assert "no difference shown" not in page
    assert "better than the meta-learned cell" not in page
    assert "better than the meta-learned cell" in told(rows=rows, comparisons=(replace(same, same=False),))


@pytest.mark.parametrize("mean, doubts", [(0.01, "the intervals of the two overlap; "), (0.03, "")])
def test_that_recipes_differ_is_said_of_the_comparison_and_of_the_answer(mean: float, doubts: str) -> None:
    more = "the two also differ in recipe, not in the network alone"
    alike = comparison("headline", "maml", mean)
    other = replace(alike, recipes_differ=True)
    assert "recipe" not in compared(alike) + told(comparisons=(alike,))
    assert compared(other).endswith(f"| {doubts}{more} |")
    assert f"above Method maml (hour budget); {more}." in told(comparisons=(other,))


def test_a_pair_that_a_question_covers_is_told_once_in_words() -> None:
    page = table_markdown(replace(table(), comparisons=(comparison("headline", "maml", 0.0234),)))
    assert page.count("2.34 points [1.54, 3.14]") == 1
    assert page.count("2.34 [1.54, 3.14] |") == 1


@pytest.mark.parametrize("mean, shown", [(0.003, False), (-0.003, False), (0.0, False), (0.02, True), (-0.02, True)])
def test_an_interval_with_0_in_it_shows_nothing(mean: float, shown: bool) -> None:
    text = compared(comparison("headline", "maml", mean))
    assert ("the interval contains 0: no difference shown" in text) is not shown


@pytest.mark.parametrize("first, second, sign", [("headline", "maml", 1), ("maml", "headline", -1)])
@pytest.mark.parametrize("mean, answer", [(0.02, "Yes: Method headline is 2.00 points [1.20, 2.80] above Method maml"),
                                          (-0.02, "No: Method headline is 2.00 points [1.20, 2.80] below Method maml"),
                                          (0.005, "Not shown: Method headline is 0.50 points [-0.30, 1.30] above"),
                                          (-0.005, "Not shown: Method headline is 0.50 points [-0.30, 1.30] below"),
                                          ])  # fmt: skip
def test_whether_the_headline_beats_maml(first: str, second: str, sign: int, mean: float, answer: str) -> None:
    text = told(comparisons=(comparison(first, second, sign * mean),))
    assert f"Does the headline method beat MAML in 5-way 5-shot (equal wall-clock)? {answer}" in text


def test_rows_of_a_family_are_asked_about_too_and_others_are_not() -> None:
    rows = (*table().rows, row("maml-equal", 0.6), row("headline, no steps", 0.5, "A"))
    pairs = (comparison("headline", "maml-equal", 0.02), comparison("headline", "headline, no steps", 0.1))
    text = told(rows=rows, comparisons=pairs)
    assert text.count("beat MAML") == 1
    assert "Method maml-equal" in text


@pytest.mark.parametrize("one, other, question", [
    ("meta-cell", "random-cell", "Is the meta-learned cell better than a random cell"),
    ("task-cell", "meta-cell", "Is a cell adapted to tasks better than the meta-learned cell"),
])  # fmt: skip
def test_what_the_cells_are_worth(one: str, other: str, question: str) -> None:
    rows = (row(one, 0.62, "C"), row(other, 0.6, "C"))
    assert f"{question} in 5-way 5-shot (equal wall-clock)? Yes" in told(
        rows=rows, comparisons=(comparison(one, other, 0.02),)
    )


def test_an_answer_about_the_task_cell_says_how_many_tasks_have_it() -> None:
    rows = (replace(row("task-cell", 0.62, "C"), covers="596 of 600 tasks have it"), row("meta-cell", 0.6, "C"))
    for pair in (comparison("task-cell", "meta-cell", 0.02), comparison("meta-cell", "task-cell", -0.02)):
        text = told(rows=rows, comparisons=(pair,))
        assert (
            "Yes: Method task-cell (596 of 600 tasks have it) is 2.00 points [1.20, 2.80] above Method meta-cell ("
            in text
        )


@pytest.mark.parametrize("first, second, sign", [("headline", "headline-b", -1), ("headline-b", "headline", 1)])
def test_the_cost_of_discretising_is_after_less_before(first: str, second: str, sign: int) -> None:
    text = told(comparisons=(comparison(first, second, sign * -0.032),))
    assert "(A to B) changes accuracy by -3.20 points [-4.00, -2.40], from Method headline to Method headline-b" in text


def test_the_cost_of_discretising_says_what_else_differs_and_how_much_it_covers() -> None:
    rows = (row("headline", 0.6, "A"), replace(row("task-cell", 0.62, "C"), covers="596 of 600 tasks"))
    pair = replace(comparison("headline", "task-cell", -0.02), recipes_differ=True)
    text = told(rows=rows, comparisons=(pair,))
    assert (
        "from Method headline to Method task-cell (596 of 600 tasks) (equal wall-clock; hour budget); the two" in text
    )
    assert "wall-clock; hour budget); the two also differ in recipe, not in the network alone." in text
    assert "to Method task-cell (596 of 600 tasks) (hour budget)." in told(rows=rows, comparisons=())


def test_without_a_paired_comparison_the_means_of_protocols_are_told_as_such() -> None:
    text = told(comparisons=())
    assert "(A to B) changes the mean by -3.20 points, without a paired interval" in text
    assert "(B to C) changes the mean by +3.50 points" in text  # the random cell is no result of the search
    assert "(A to C) changes the mean by +0.30 points" in text


def test_two_rows_of_a_protocol_leave_its_cost_unsaid() -> None:
    assert "A to" not in told(comparisons=(), rows=(*table().rows, row("headline-10", 0.5, "A")))


def test_the_best_row_is_told_with_those_that_overlap_with_it() -> None:
    clear = (row("maml", 0.5), row("headline", 0.6), row("pixels", 0.585))
    best, near = told(rows=clear, comparisons=()).splitlines()[0].split("; ")
    assert best.endswith("the highest mean is that of Method headline, 60.00 % [59.00, 61.00] (hour budget)")
    assert near == "the interval of Method pixels overlaps with it."
    assert "no other interval overlaps" in told(rows=clear[:2], comparisons=())
    assert "the only row" in told(rows=clear[:1], comparisons=())


def test_the_distance_from_the_paper() -> None:
    text = told()
    assert (
        "5-way 5-shot: the paper has 63.11 ± 1.00 for Printed maml, 62.11 less its interval; the mean nearest to it, "
        "60.00 (-3.11 points) of Method maml, does not reach it (hour budget)." in text
    )
    assert (
        "61.20 (-4.68 points) of Method headline, does not reach it (the paper's value is of something else: "
        "another protocol; hour budget)." in text
    )
    assert "61.50 (-0.50 points) of Method headline-c, reaches it (hour budget)." in text
    assert "5-way 1-shot: the paper has 48.70 ± 1.00 for Printed maml" in text
    assert text.count("the paper has") == 4


def test_a_value_of_the_paper_beside_several_rows_counts_once() -> None:
    value = Paper("T-NAS", 0.60, None)
    rows = tuple(
        replace(row(name, mean), paper=value, unlike=unlike)
        for name, mean, unlike in (("a", 0.55, ""), ("b", 0.604, "another protocol"), ("c", 0.7, ""))
    )
    other = replace(row("a", 0.5, setting=ONE), paper=value)
    made = replace(table(), rows=(*rows, other), comparisons=(), budget="full")
    text = "\n".join(findings(made))
    assert text.count("the paper has") == 2
    assert (
        "5-way 5-shot: the paper has 60.00 for T-NAS, without an interval; the mean nearest to it, 60.40 (+0.40 "
        "points) of Method b, reaches it (the paper's value is of something else: another protocol; full budget)."
        in text
    )
    assert "| full | 4 | 2 | 1 |" in results_markdown([made])
    both = replace(made, rows=(*rows, replace(row("d", 0.61), paper=value), other))
    assert "| full | 5 | 2 | 1 |" in results_markdown([both])
    assert "| hour | 4 | 2 | 0 |" in results_markdown([replace(made, budget="hour")])


def test_an_empty_table_says_so() -> None:
    empty = replace(table(), rows=(), comparisons=(), notes=())
    assert "- Nothing was measured." in table_markdown(empty)
    assert "No table has been measured yet." in results_markdown([])


def test_text_from_a_table_cannot_break_the_page() -> None:
    nasty = "a | b\n# c <script> `d` [e](f) *g*"
    made = table()
    page = table_markdown(replace(made, title=nasty, rows=(replace(made.rows[0], method=nasty),), comparisons=()))
    assert "<script>" not in page
    assert "a \\| b \\# c &lt;script&gt; \\`d\\` \\[e\\](f) \\*g\\*" in page


def test_no_sign_before_zero() -> None:
    none = replace(comparison("headline", "maml", 0.0), difference=Estimate(-1e-6, -1e-5, 0.002))
    assert "| 0.00 [0.00, 0.20] |" in compared(none)
    assert "is 0.00 points [0.00, 0.20] above" in told(comparisons=(none,))


def test_the_page_says_how_to_read_it() -> None:
    page = results_markdown([table(), replace(table(), name="other", title="Other", budget="full")])
    assert page.startswith(MARK)
    for needed in ("metadarts reproduce", "metadarts results", "- **A**:", "- **B**:", "- **C**:", "no reproduction",
                   "crossed bootstrap", "selects its checkpoint on the test", "transductive"):  # fmt: skip
        assert needed in page
    assert "| CIFAR-FS | hour | 7 | 4 | 0 |" in page
    assert "| Other | full | 7 | 4 | 1 |" in page
    assert page.index("## CIFAR-FS (hour budget)") < page.index("## Other (full budget)")


def drawn(draw, monkeypatch) -> tuple[Figure, Axes]:
    """The figure that ``draw`` makes, laid out."""
    sheets: list[Figure] = []
    keep = Figure.savefig

    def savefig(self: Figure, *words, **named) -> None:
        sheets.append(self)
        keep(self, *words, **named)

    monkeypatch.setattr(Figure, "savefig", savefig)
    draw(Picture())
    sheets[0].set_dpi(DPI)  # saving has set it back, and the layout with it
    sheets[0].canvas.draw()
    return sheets[0], sheets[0].axes[0]


def wide(made: ResultTable) -> ResultTable:
    """Fourteen rows in two settings, with long names."""
    rows = [
        replace(row(f"r{index}", 0.4 + 0.02 * index, setting=setting, paper=0.5 if index % 2 else None),
                method="a method whose name is so long that it goes on " * (1 + index % 3))
        for setting in (ONE, FIVE) for index in range(7)
    ]  # fmt: skip
    pairs = tuple(replace(comparison("r1", f"r{index}", 0.004 * index), about="what " * 20) for index in range(2, 7))
    return replace(made, rows=tuple(rows), comparisons=pairs)


@pytest.mark.parametrize("draw", [draw_table, draw_comparisons])
def test_no_text_of_a_picture_meets_another_or_the_edge(draw, monkeypatch) -> None:
    sheet, axes = drawn(lambda target: draw(wide(table()), target), monkeypatch)
    texts = [*axes.get_yticklabels(), *axes.texts, axes.xaxis.label, *sheet.legends[0].get_texts()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    edge = sheet.bbox
    for index, box in enumerate(boxes):
        assert box.x0 >= edge.x0 - 1
        assert box.x1 <= edge.x1 + 1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_a_picture_is_true_to_the_numbers(monkeypatch) -> None:
    _, axes = drawn(lambda target: draw_table(table(), target), monkeypatch)
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    hollow = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert dots == pytest.approx([60.0, 61.2, 58.0, 61.5, 60.0, 45.0, 44.0])
    assert hollow == pytest.approx([63.11, 65.88, 62.0, 48.7])
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == [
        "Method maml",
        "A: Method headline (the paper's value: another protocol)",
    ]
    assert "63.11 ± 1.00 printed" in axes.texts[1].get_text()


def test_the_same_table_gives_the_same_picture(tmp_path) -> None:
    once, again = Picture(".svg"), tmp_path / "new" / "table.svg"
    draw_table(table(), once)
    draw_table(table(), again)
    assert once.getvalue() == again.read_bytes()


def test_pictures_refuse_nothing_to_draw() -> None:
    empty = replace(table(), rows=(), comparisons=())
    for draw in (draw_table, draw_comparisons):
        with pytest.raises(ConfigError, match="table 'cifar-fs': expected at least one"):
            draw(empty, Picture())
    with pytest.raises(ConfigError, match="groups of at least one line each, got \\[1, 0\\]"):
        draw_forest({"a": [Branch("x", 1.0, 0.0, 2.0)], "b": []}, Picture(), xlabel="x")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [((969.0, 628.0), "; it took 969 s, the other 628 s, which is not equal."), ((628.0, 600.0), "")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_times_that_were_meant_to_be_equal_and_are_not_are_said(seconds, told, turned):
    names, values = ("headline", "maml"), seconds
    one = comparison(*(names[::-1] if turned else names), 0.012, about="wall-clock meant to be equal")
    one = replace(one, seconds=values[::-1] if turned else values)
    page = table_markdown(replace(table(), comparisons=(one,)))
    (answer,) = [line for line in page.splitlines() if line.startswith("- Does the headline method beat MAML in")]
    assert ("which is not equal" in answer) is bool(told)
    assert told in answer
    same = replace(one, about="equal meta-updates")
    assert "which is not equal" not in table_markdown(replace(table(), comparisons=(same,)))


def run(words: list[str]):
    """What the verb does with ``words``, alone."""
    import typer

    from metadarts.cli.results import results

    alone = typer.Typer()
    alone.command()(results)
    return CliRunner().invoke(alone, words)


def test_the_verb_writes_the_page_and_writes_it_anew(tmp_path) -> None:
    told, again, page = tmp_path / "table.json", tmp_path / "other.json", tmp_path / "results.md"
    other = replace(table(), split="another split")
    told.write_text(table().to_json(), encoding="utf-8")
    again.write_text(other.to_json(), encoding="utf-8")
    assert run([str(told), str(again), "--out", str(page)]).exit_code == 0
    assert page.read_text(encoding="utf-8") == results_markdown([table(), other])
    assert run([str(told), str(told), "--out", str(page)]).exit_code == 0, "a part given twice counts once"
    assert page.read_text(encoding="utf-8") == results_markdown([table()])
    assert run([str(told), "--out", str(page)]).exit_code == 0
    assert page.read_text(encoding="utf-8") == results_markdown([table()])


def test_the_verb_does_not_replace_what_someone_wrote(tmp_path) -> None:
    told, page = tmp_path / "table.json", tmp_path / "results.md"
    told.write_text(table().to_json(), encoding="utf-8")
    page.write_text("# Mine\n", encoding="utf-8")
    for out, message in ((page, "results did not write it"), (told, "expected a name ending in .md")):
        found = run([str(told), "--out", str(out)])
        assert isinstance(found.exception, RunError)
        assert message in str(found.exception)
    assert page.read_text(encoding="utf-8") == "# Mine\n"


@pytest.mark.parametrize("content, message", [
    (None, "there is no file .*table.json; give a table.json that reproduce wrote"),
    (b"\xff", "table.json: expected JSON, .*give a table.json that reproduce wrote"),
    (b"{}", "table.json: format: expected 'metadarts.table', got None"),
])  # fmt: skip
def test_the_verb_names_the_file_that_it_cannot_read(tmp_path, content: bytes | None, message: str) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_bytes(content)
    found = run([str(path)])
    assert isinstance(found.exception, ConfigError if content is None else DataError)
    assert re.search(message, str(found.exception))


def test_the_verb_names_the_files_of_parts_that_disagree(tmp_path) -> None:
    first = replace(table(), name="tnas-omniglot")
    odd = replace(first, rows=(replace(first.rows[0], meta_steps=501), *first.rows[1:]))
    words = [str(tmp_path / name) for name in ("one.json", "other.json")]
    for path, each in zip(words, (first, odd), strict=True):
        Path(path).write_text(each.to_json(), encoding="utf-8")
    found = run(words)
    assert isinstance(found.exception, DataError)
    assert f"(given: {', '.join(words)})" in str(found.exception)


@pytest.mark.parametrize("seconds, shown", [(0.0, "0.00"), (5.0, "0.001"), (35.9, "0.01"), (36.0, "0.01"),
                                            (3960.0, "1.10")])  # fmt: skip
def test_a_search_of_seconds_is_told_from_none(seconds: float, shown: str) -> None:
    page = table_markdown(replace(table(), rows=(replace(row("maml", 0.6), search_seconds=seconds),), comparisons=()))
    assert f"| {shown} |" in page


def test_wide_intervals_do_not_reach_the_papers_value() -> None:
    unsure = replace(row("maml", 0.6, paper=0.7), estimate=around(0.6, 0.3))
    page = table_markdown(replace(table(), rows=(unsure,), comparisons=(), budget="full"))
    assert "| not reproduced |" in page
    assert "| -10.00 |" in page


def test_a_picture_of_comparisons_says_what_is_the_same_and_what_differs_in_recipe(monkeypatch) -> None:
    pairs = (
        comparison("headline", "maml", 0.01),
        comparison("headline-c", "maml", 0.01),
        comparison("maml", "headline-b", 0),
    )
    made = replace(
        table(), comparisons=(pairs[0], replace(pairs[1], recipes_differ=True), replace(pairs[2], same=True))
    )
    _, axes = drawn(lambda target: draw_comparisons(made, target), monkeypatch)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "headline less maml (equal wall-clock)",
        "headline-c less maml (equal wall-clock; recipes differ)",
        "maml less headline-b (equal wall-clock; the same cell)",
    ]
