"""`import metadarts` is quick, and its public names are what its entry point says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import metadarts

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("higher", "learn2learn", "matplotlib", "numba", "tensorboard", "torch", "torchvision", "triton")
PACKAGES = {path.parent.name for path in (CHECKOUT / "metadarts").glob("*/__init__.py")}

PROBE = """
import json, sys, time
start = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps({"seconds": time.perf_counter() - start, "modules": sorted(sys.modules)}))
"""


def import_afresh(*names: str) -> tuple[float, set[str]]:
    """Seconds to import ``names`` in a new interpreter, and the top-level modules it then holds."""
    report = probed(*names)
    return report["seconds"], {name.partition(".")[0] for name in report["modules"]}


def modules_of(*names: str) -> set[str]:
    """All that a new interpreter holds once it has imported ``names``."""
    return set(probed(*names)["modules"])


def probed(*names: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROBE, *names]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def test_import_is_lean(record_property):
    seconds, modules = import_afresh("metadarts")
    assert not modules.intersection(HEAVY)
    record_property("seconds to import metadarts", round(seconds, 3))


@pytest.mark.parametrize("name", ["metadarts.spaces", "metadarts.core.errors", "metadarts.core.rng"])
def test_package_is_torchless(name):
    _, modules = import_afresh(name)
    assert not modules.intersection(HEAVY)


def test_adapting_and_predicting_load_neither_scikit_learn_nor_torchs_compiler():
    """Each takes a second or more, and only the estimator and torch.export need them."""
    modules = modules_of("metadarts.fewshot", "metadarts.export", "metadarts.cli.predict")
    assert not modules & {"sklearn", "scipy", "torch._dynamo"}
    assert "sklearn" in modules_of("metadarts.fewshot.classifier")


def test_probe_sees_heavy_imports():
    _, modules = import_afresh("metadarts.core.types")
    assert "torch" in modules


@pytest.mark.parametrize("name", sorted(set(metadarts.__all__) - {"__version__"}))
def test_public_name_resolves(name):
    assert getattr(metadarts, name) is not None
    assert name in dir(metadarts)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(metadarts.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == metadarts._EXPORTS


def test_no_public_name_is_a_package():
    assert not PACKAGES.intersection(metadarts._EXPORTS)


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(AttributeError, match=r"'genotype'.*Genotype"):
        metadarts.genotype  # noqa: B018 - the access is what is tested
