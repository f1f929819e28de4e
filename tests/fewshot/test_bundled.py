"""The starts that come with the package: whole, of the stated form, and good enough to be worth bundling."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from metadarts.fewshot import BUNDLED, FewShotClassifier, open_start

FORMS = {"glyphs": (1, 28), "cifar-fs": (3, 32)}
"""Of the supernets, and of the cells named after them."""


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_start_opens(name):
    found = open_start(name)
    assert found.name == name
    assert (found.form.channels, found.form.height) == FORMS[name.removesuffix("-cell")]
    assert found.is_cell == name.endswith("-cell")
    assert found.config.model.bn == "support"
    assert found.config.tasks.file == ""
    assert set(found.facts) >= {"source", "meta_steps", "validation_accuracy"}
    content = files("metadarts.fewshot").joinpath("starts", f"{name}.safetensors").read_bytes()
    assert len(content) < 2**20
    assert b"/work" not in content
    assert b"/tmp" not in content


@pytest.mark.parametrize(("name", "channels"), [("glyphs-cell", 1), ("cifar-fs-cell", 3)])
def test_auto_takes_the_one_for_the_images(cases, name, channels):
    data = cases.images((3, 3), channels)
    if channels == 3:
        data[0][..., 0] //= 2  # grey in three planes is no colour
    found = FewShotClassifier(steps=0).fit(*data)
    assert found.task_.facts["start"]["name"] == name
    assert found.predict_proba(data[0]).shape == (6, 2)


def test_grey_images_in_three_planes_are_no_colour(cases):
    data = cases.images((2, 2))
    planes = np.repeat(data[0][..., None], 3, 3)
    assert FewShotClassifier(steps=0).fit(planes, data[1]).task_.facts["start"]["name"] == "glyphs-cell"
