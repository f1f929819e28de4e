"""The packages keep to their shape. Which package may import which is setup.cfg's, checked by lint-imports."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp

PACKAGE = Path(__file__).resolve().parents[2] / "metadarts"
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")})
KERNELS = ("cpu", "triton_kernels")


def test_every_folder_has_an_entry_point_that_says_what_it_is():
    entries = [folder / "__init__.py" for folder in FOLDERS]
    assert [entry for entry in entries if not entry.is_file()] == []
    assert [entry for entry in entries if not ast.get_docstring(ast.parse(entry.read_text(encoding="utf-8")))] == []


def strangers(graph: grimp.ImportGraph) -> list[str]:
    """Imports of an op's kernels from outside that op's folder."""
    kernels = [module for module in graph.modules if _is_kernel(module)]
    return [
        f"{importer} imports {kernel}"
        for kernel in sorted(kernels)
        for importer in sorted(graph.find_modules_that_directly_import(kernel))
        if importer.rpartition(".")[0] != kernel.rpartition(".")[0]
    ]


def _is_kernel(module: str) -> bool:
    parts = module.split(".")
    return len(parts) == 4 and parts[:2] == ["metadarts", "ops"] and parts[3] in KERNELS


def test_kernels_belong_to_their_own_op():
    assert strangers(grimp.build_graph("metadarts")) == []


def test_a_stranger_would_be_seen():
    graph = grimp.ImportGraph()
    graph.add_import(importer="metadarts.ops.first.op", imported="metadarts.ops.first.cpu")
    graph.add_import(importer="metadarts.ops.first.op", imported="metadarts.ops.second.cpu")
    assert strangers(graph) == ["metadarts.ops.first.op imports metadarts.ops.second.cpu"]
