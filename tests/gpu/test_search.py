"""On the GPU: a search with recorded meta-steps gives the same bits twice."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.gpu

SETTINGS = {
    "tasks.ways": 3, "tasks.queries": 2, "macro.channels": 4, "space.nodes": 2, "macro.stem": (4, 6),
    "inner.steps": 2, "inner.alpha_rate": 2.0, "training.meta_steps": 3, "training.tasks": 2,
    "training.validations": 1, "training.validation_tasks": 4, "evaluate.steps": 2, "evaluate.queries": 3,
    "evaluate.batch": 4,
}  # fmt: skip


def searched(folder, device):
    from metadarts.training import Config, RunFolder, build, search, with_settings

    config = with_settings(Config(), SETTINGS).check()
    return search(build(config, device), RunFolder.create(folder, config, {}))


def test_a_search_is_deterministic(device, tmp_path):
    for package in ("yaml", "safetensors", "filelock", "tensorboard", "matplotlib", "PIL"):
        pytest.importorskip(package)
    one, other = (searched(tmp_path / name, device) for name in ("one", "other"))
    assert one.step == other.step == 3
    assert all(tensor.is_cuda for tensor in one.params.values())
    for name, tensor in one.params.items():
        assert torch.equal(tensor, other.params[name]), name
