"""On the GPU: a task is adapted, finished, measured and answered there, and what is kept lies on the CPU."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.gpu

SETTINGS = {
    "model.channels": 4, "model.nodes": 2, "model.stem": (4, 6), "model.head": "prototype", "model.bn": "support",
    "inner.weight_rate": 0.05, "inner.alpha_rate": 10.0, "training.meta_steps": 1,
}  # fmt: skip
SIDE, CLASSES = 16, ("lines", "columns")


def start_file(folder):
    from metadarts.core.rng import Key
    from metadarts.fewshot import Start
    from metadarts.fewshot.input_spec import InputSpec
    from metadarts.training import Config, Experiment, with_settings
    from metadarts.training.build import assemble

    config = with_settings(Config(), SETTINGS).check()
    experiment: Experiment = assemble(config, source())
    params = experiment.network.init(Key(("tests", "gpu")))
    Start("tiny", config, InputSpec(1, SIDE, SIDE), params, None, {}).save(folder / "tiny.safetensors")
    return str(folder / "tiny.safetensors")


def source():
    import numpy as np

    from metadarts.tasks import ClassEntry, Source

    images = np.zeros((2, 1, SIDE, SIDE), np.uint8)
    return Source("noise", images, (ClassEntry("a", np.arange(2)),), {"train": (0,)})


def images(count, seed):
    """Lines and columns under noise."""
    import numpy as np

    from metadarts.core.rng import Key
    from metadarts.fewshot.labelled import Labelled

    draw = Key(("tests", "gpu", str(seed))).numpy()
    labels = np.repeat(np.arange(2), count)
    stripes = np.tile(np.arange(SIDE) // 2 % 2 * 200, (SIDE, 1))
    pixels = np.stack([stripes if label else stripes.T for label in labels]) + draw.integers(
        0, 40, (2 * count, SIDE, SIDE)
    )
    return Labelled(pixels.astype(np.uint8), (), CLASSES, labels)


def adapted(start, device, count):
    from metadarts.fewshot import Adapter, AdaptSettings

    adapter = Adapter.open(start, images(count, 0), settings=AdaptSettings(3), held_out=images(5, 1), device=device)
    adapter.adapt()
    adapter.finish("inherited")
    adapter.finish("retrained", 3)
    adapter.measure()
    return adapter


@pytest.mark.parametrize("count", [5, 50])
def test_a_task_is_learnt_on_the_device(device, tmp_path, count):
    for package in ("yaml", "safetensors", "filelock", "sklearn", "matplotlib", "PIL"):
        pytest.importorskip(package)
    from metadarts.fewshot.adapter import PlacedModel

    start = start_file(tmp_path)
    here = adapted(start, "cpu", count)
    torch.cuda.reset_peak_memory_stats()
    there = adapted(start, device, count)
    assert torch.cuda.max_memory_allocated() > 2**16, "it was computed on the device"
    for name, solution in there.task.solutions.items():
        assert all(tensor.device.type == "cpu" for tensor in solution.params.values()), name
        assert all(bool(tensor.isfinite().all()) for tensor in solution.params.values()), name
        assert here.task.facts["measured"][name].keys() == there.task.facts["measured"][name].keys()
    first = (adapter.task.solution("supernet").history[0].loss for adapter in (here, there))
    assert next(first) == pytest.approx(next(first), rel=1e-3), "before the first step nothing has diverged"
    model, pixels = there.task.model(), there.held_out.pixels
    answers = PlacedModel.of(model, device)(pixels)
    assert answers.device.type == "cpu"
    torch.testing.assert_close(answers, model.logits(pixels), rtol=1e-3, atol=1e-3)
