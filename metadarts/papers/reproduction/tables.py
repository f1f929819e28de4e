"""The available tables: data, splits, settings, and the paper's values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from metadarts.core.errors import ConfigError, nearest

from .papers import CITATION, FC100, MINI, OMNIGLOT, Printed
from .recipes import LARGE_RECIPE, OMNIGLOT_RECIPE, SMALL_RECIPE, Recipe, Training

TASKS, QUERIES, WAYS = 600, 15, 5
SMOKE_TASKS = 20


@dataclass(frozen=True)
class TableSpec:
    """One table of the literature.

    Args:
        name: name on the command line.
        title: one line.
        sources: split name -> source; the first is the default.
        splits: split name -> its description.
        recipe: the trainings and their lengths.
        printed: the paper's values.
        shots: settings under the full budget.
        small_shots: settings under smaller ones, all measured on one training at ``trained_shots``, but for trainings
            that have one for each setting (`Training.own_setting`).
        trained_shots: support images per class while training, under smaller budgets.
        folders: where below a data root the data may lie.
        citation: of the paper.
        own_cells: whether Auto-MAML's released cells are those of its row in this table.
        episodes: (split, shots) -> the hash of the 600 frozen test episodes that docs/results.md is measured on.
    """

    name: str
    title: str
    sources: dict[str, str]
    splits: dict[str, str]
    recipe: Recipe
    printed: Printed
    shots: tuple[int, ...]
    small_shots: tuple[int, ...]
    trained_shots: int
    folders: tuple[str, ...] = ()
    citation: str = CITATION
    own_cells: bool = False
    episodes: dict[tuple[str, int], str] = field(default_factory=dict)

    def settings(self, budget: str) -> tuple[int, ...]:
        """Shots of the settings measured under ``budget``."""
        return self.shots if budget == "full" else self.small_shots

    def trained_at(self, budget: str, shots: int) -> int:
        """Shots of the training that is measured at ``shots``: each its own under the full budget."""
        return shots if budget == "full" else self.trained_shots

    def tasks(self, budget: str) -> int:
        """Test tasks."""
        return SMOKE_TASKS if budget == "smoke" else TASKS

    def trainings(self, budget: str, shots: int) -> list[Training]:
        """See `Recipe.trainings`."""
        return self.recipe.trainings(budget, shots)

    def source(self, split: str | None) -> tuple[str, str]:
        """(split, source) for a split that was asked for, or the default. Raises ConfigError."""
        chosen = split or next(iter(self.sources))
        if chosen not in self.sources:
            raise ConfigError(f"--split {chosen!r}: {self.name} has {', '.join(self.sources)}")
        return chosen, self.sources[chosen]

    def place(self, root: Path | None) -> str:
        """Where below ``root`` the data lie, for ``tasks.file``; empty for their usual place."""
        if root is None:
            return ""
        found = next((root / folder for folder in self.folders if (root / folder).is_dir()), root)
        return str(found.resolve())


_CIFAR = ("cifar100",)
TABLES = {
    spec.name: spec
    for spec in (
        TableSpec(
            "tnas-omniglot",
            "T-NAS on Omniglot, 5-way",
            {"tnas": "omniglot-1200", "vinyals": "omniglot"},
            {
                "tnas": "T-NAS's: 1,200 random characters for training (100 of them for validation), tests on the "
                "other 423, times four rotations. Which characters the paper drew is not known; ours are drawn once",
                "vinyals": "Vinyals's: 1,028 / 172 / 423 characters, times four rotations. Not the paper's split: its "
                "numbers are of other test classes",
            },
            OMNIGLOT_RECIPE,
            OMNIGLOT,
            (1, 5),
            (1, 5),
            1,
            episodes={
                ("tnas", 1): "1e638fca8208d45b50603fbbf3ca92d72893a2f2d610e45293b51230ae8d63c2",
                ("tnas", 5): "c8b3ae594e3540eae8e57a4d9c3a0dede2d2b0102b99c6d9fd57378b33f3e11d",
                ("vinyals", 1): "df73265968bdc2bae737a1077676931049e464ebdf9714921dcdc55a5904be7d",
                ("vinyals", 5): "ade746a7b6adca7a2ac4e7c801ebcb1985ad92d0f0220b73d3e37e5b144fd786",
            },
        ),
        TableSpec(
            "tnas-fc100",
            "T-NAS on FC100, 5-way",
            {"published": "fc100"},
            {"published": "Oreshkin et al.'s: 60 / 20 / 20 classes of CIFAR-100, by superclass"},
            SMALL_RECIPE,
            FC100,
            (1, 5, 10),
            (5,),
            5,
            _CIFAR,
            episodes={
                ("published", 1): "e0a68a252e8a19be7c3a205f3193901c3f34106fae6cfb96fa826b3a67cf4b0f",
                ("published", 5): "b0f53edb5b4e1ed8e1aeb7cb651b4809ed1d72ad7cde7aa21e12f3a0f2a0c775",
                ("published", 10): "4f49795dc687a04662da4b9871f199d46d47fd093ca9a49a814705d10be9d83f",
            },
        ),
        TableSpec(
            "cifar-fs",
            "CIFAR-FS, 5-way (no value of T-NAS to stand beside)",
            {"published": "cifar-fs"},
            {"published": "Bertinetto et al.'s: 64 / 16 / 20 classes of CIFAR-100"},
            SMALL_RECIPE,
            {},
            (1, 5),
            (5,),
            5,
            _CIFAR,
            citation="no paper: T-NAS has no CIFAR-FS",
            episodes={
                ("published", 1): "c9899ee61e1db20e40608b78e0ca0c06b66056de572e3a156c641f253074d360",
                ("published", 5): "15b58bd70b5635e68f518fd4bee154c124eb3e7f6a4943eaae074f130763658a",
            },
        ),
        TableSpec(
            "tnas-mini",
            "T-NAS on miniImageNet, 5-way, 84x84",
            {"published": "mini-imagenet"},
            {"published": "Ravi and Larochelle's: 64 / 16 / 20 classes"},
            LARGE_RECIPE,
            MINI,
            (1, 5),
            (5,),
            5,
            own_cells=True,
        ),
        TableSpec(
            "glyphs",
            "built-in characters, 5-way: no paper, but no data to fetch either",
            {"built-in": "glyphs"},
            {"built-in": "scripts of the training, validation and test split share no character"},
            OMNIGLOT_RECIPE,
            {},
            (1, 5),
            (1,),
            1,
            citation="no paper: built-in data",
        ),
    )
}


def table_named(name: str) -> TableSpec:
    """A table by name. Raises ConfigError."""
    if name not in TABLES:
        raise ConfigError(f"unknown table {name!r}: {nearest(name, TABLES)}")
    return TABLES[name]
