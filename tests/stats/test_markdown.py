"""Tables that a Markdown program reads as they were meant, and text that it prints as it stands."""

from __future__ import annotations

import pytest

from metadarts.stats import Table, bullets, escaped, inline, listed


def test_a_table() -> None:
    made = Table(("method", "%"), [("a", "1.0"), ("b", "2.5")])
    assert made.markdown() == "| method | % |\n| --- | --- |\n| a | 1.0 |\n| b | 2.5 |"
    assert Table(("method",), ()).markdown() == "| method |\n| --- |"


def test_columns_are_aligned() -> None:
    made = Table(("a", "b", "c", "d"), [], align=("", "left", "centre", "right"))
    assert made.markdown().splitlines()[1] == "| --- | :--- | :---: | ---: |"


@pytest.mark.parametrize(
    "cell, written",
    [
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\|b"),
        (r"a\\|b", r"a\\\|b"),
        ("||", r"\|\|"),
        ("a\nb", "a b"),
        (escaped("x|y_z"), r"x\|y\_z"),
    ],
    ids=["bare", "escaped already", "behind a backslash that is escaped", "two", "line break", "escaped text"],
)
def test_no_cell_ends_early(cell: str, written: str) -> None:
    assert Table((cell, "b"), [("c", cell)]).markdown().splitlines() == [
        f"| {written} | b |",
        "| --- | --- |",
        f"| c | {written} |",
    ]


@pytest.mark.parametrize("rows, align", [([("a",)], ()), ([("a", "b", "c")], ()), ([], ("left",))], ids=str)
def test_refuses_rows_of_another_length(rows: list[tuple[str, ...]], align: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected 2 cells under \['x', 'y'\], got [13]"):
        Table(("x", "y"), rows, align)  # type: ignore[arg-type]


def test_text_is_printed_as_it_stands() -> None:
    assert escaped("a_b *c* [d](e) `f` <g> & #h ~i~ \\") == (r"a\_b \*c\* \[d\](e) \`f\` &lt;g&gt; &amp; \#h \~i\~ \\")
    assert inline(" a\n  b\tc ") == "a b c"


def test_lists() -> None:
    assert bullets(["a", "b"]) == "- a\n- b"
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
