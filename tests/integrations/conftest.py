"""What the tests of `integrations` share: learn2learn or a reason to skip, and CIFAR-FS laid out as it looks for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.integrations import import_learn2learn


@pytest.fixture(scope="session")
def l2l() -> ModuleType:
    """The package learn2learn; skips where it is not installed."""
    try:
        return import_learn2learn()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def layout() -> ModuleType:
    """The script beside this file; tests/ is no package, so it has no name to import it by."""
    spec = importlib.util.spec_from_file_location("layout", Path(__file__).with_name("layout.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def noise_classes() -> dict[str, np.ndarray]:
    """Eighteen classes of 8 images of noise, uint8 [8, 32, 32, 3]."""
    generator = Key.from_seed(3).numpy()
    return {f"class{n:02d}": generator.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8) for n in range(18)}


@pytest.fixture
def noise_root(layout, noise_classes, tmp_path) -> Path:
    """CIFAR-FS of the classes of noise, six in each split."""
    split = {name: layout.SPLITS[number // 6] for number, name in enumerate(noise_classes)}
    layout.write_cifarfs(tmp_path / "root", noise_classes.items(), split)
    return tmp_path / "root"
