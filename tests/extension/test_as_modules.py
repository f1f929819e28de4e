"""A part of one's own, moved into the folder of its table unchanged, is an entry of the table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"
PACKAGE = Path(__file__).parents[2] / "metadarts"
FOLDERS = {
    "conv_1x5_5x1": "operations",
    "cooling": "relaxations",
    "edges": "costs",
    "greedy": "derive/rules",
    "pairs": "networks/macros",
    "reptile": "meta/rules",
    "stripes": "tasks/sources",
}
READ = """
from metadarts.{first} import {table}
from metadarts.training.catalogue import BUILT_IN as all_of_them
tables = all_of_them.operations, all_of_them.relaxations, all_of_them.costs, all_of_them.macros, all_of_them.rules
print(*(name for table in (*tables, all_of_them.sources, all_of_them.selections) for name in table))
"""


@pytest.mark.thorough
def test_every_example_is_an_entry_whatever_is_imported_first(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "metadarts", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    for name, folder in FOLDERS.items():
        shutil.copy(PLUGINS / f"{name}.py", tmp_path / "metadarts" / folder)
    for first, table in (("meta", "RULES"), ("tasks", "SOURCES"), ("networks", "MACROS"), ("derive", "SELECTIONS")):
        code = READ.format(first=first, table=table)
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert set(FOLDERS) <= set(done.stdout.split())
