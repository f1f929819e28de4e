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


COMMITS = {
    "training.meta_steps": 9, "space.inputs_by": "pairs", "space.none": False, "relaxation.name": "annealed",
    "relaxation.begin": 0.0, "relaxation.finish": 0.5, "outer.alpha_rate": 0.1, "commit.drop_below": 0.1,
    "commit.cell": 0.6, "commit.every": 0.3,
}  # fmt: skip


def searched(folder, device, settings=None):
    from metadarts.training import Config, RunFolder, build, search, with_settings

    config = with_settings(Config(), SETTINGS | (settings or {})).check()
    return search(build(config, device), RunFolder.create(folder, config, {}))


@pytest.mark.parametrize("settings", [{}, COMMITS], ids=["mixture", "committing"])
def test_a_search_is_deterministic(device, tmp_path, settings):
    """One that commits records its step anew for what is left of the network."""
    for package in ("yaml", "safetensors", "filelock", "tensorboard", "matplotlib", "PIL"):
        pytest.importorskip(package)
    one, other = (searched(tmp_path / name, device, settings) for name in ("one", "other"))
    assert one.step == other.step == settings.get("training.meta_steps", 3)
    assert any(name.startswith("alphas.") for name in one.params) == (not settings)
    assert all(tensor.is_cuda for tensor in one.params.values())
    if settings:  # a recording of what the network was would leave its cell as it was cut out
        eager = searched(tmp_path / "eager", device, settings | {"training.capture": False})
        torch.testing.assert_close(one.params, eager.params, rtol=1e-3, atol=1e-4)
    for name, tensor in one.params.items():
        assert torch.equal(tensor, other.params[name]), name
