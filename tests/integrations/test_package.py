"""learn2learn is imported on demand, without its noise; where it is missing, one sentence says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metadarts.core.errors import ConfigError
from metadarts.integrations import import_learn2learn

PROBE = """
import sys
import metadarts.integrations as integrations
print(*sorted({"gym", "learn2learn", "torchvision"} & set(sys.modules)))
print(integrations.import_learn2learn().__name__)
"""


def test_import_is_light_and_then_quiet(l2l):
    """In a process of its own: this one has imported learn2learn already, and gym speaks only once."""
    command = [sys.executable, "-W", "error", "-c", PROBE]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("\nlearn2learn\n", "", 0)


@pytest.mark.parametrize("name", ["learn2learn", "gym"])
def test_missing_package_names_the_command(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"{name}.*`make learn2learn`"):
        import_learn2learn()
