"""Tables with made-up figures, for the tests of what is read, written and drawn."""

from __future__ import annotations

from dataclasses import replace

from metadarts.papers.rows import Comparison, Paper, ResultTable, Row
from metadarts.stats import Estimate

ONE, FIVE = "5-way 1-shot", "5-way 5-shot"


def around(mean: float, half: float = 0.01) -> Estimate:
    return Estimate(mean, mean - half, mean + half)


def row(name: str, mean: float, protocol: str = "", setting: str = FIVE, paper: float | None = None) -> Row:
    return Row(
        setting=setting,
        name=name,
        method=f"Method {name}",
        protocol=protocol,
        paper=None if paper is None else Paper(f"Printed {name}", paper, 0.01),
        estimate=around(mean),
        seeds=(0, 1, 2),
        tasks=600,
        bn="transductive",
        selection="best of 10 looks at validation tasks",
        weights=26_500,
        alphas=224,
        steps=10,
        meta_steps=500,
        search_seconds=3600.0,
        device="2 CPU cores",
    )


def comparison(
    first: str, second: str, mean: float, half: float = 0.008, about: str = "equal wall-clock"
) -> Comparison:
    return Comparison(
        setting=FIVE,
        first=first,
        second=second,
        about=about,
        difference=around(mean, half),
        overlaps=abs(mean) <= 0.02,
        seconds=(598.0, 601.0),
        meta_steps=(500, 812),
        paper=0.018,
    )


def table() -> ResultTable:
    """Seven rows in two settings, with a comparison of every kind that the page has a sentence for."""
    rows = (
        row("maml", 0.60, paper=0.6311),
        replace(row("headline", 0.612, "A", paper=0.6588), unlike="another protocol"),
        replace(row("headline-b", 0.58, "B"), estimate=around(0.58, 0.03)),
        row("headline-c", 0.615, "C", paper=0.62),
        row("random-cell", 0.60, "C"),
        row("maml", 0.45, setting=ONE, paper=0.4870),
        row("headline", 0.44, "A", setting=ONE),
    )
    comparisons = (
        comparison("headline", "maml", 0.012),
        comparison("headline", "maml", 0.003, about="equal meta-updates"),
        comparison("headline", "headline-b", 0.032, about="the same trainings"),
        comparison("headline-c", "headline-b", 0.035, about="equal wall-clock"),
        comparison("headline-c", "random-cell", 0.015, about="equal meta-updates"),
    )
    return ResultTable(
        name="cifar-fs",
        title="CIFAR-FS",
        paper="A. Author et al., A Title, 2020, Table 1",
        budget="hour",
        source="cifar-fs",
        split="64, 16 and 20 classes",
        episodes={ONE: "0" * 64, FIVE: "ab" * 32},
        rows=rows,
        comparisons=comparisons,
        environment={"torch": "2.11.0", "threads": 1, "flags": ["a", None]},
        notes=("Made up.",),
    )
