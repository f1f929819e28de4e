"""What the meta-model sees of a task does not depend on the order of images or classes, nor on queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.networks import NetworkSpec, supernet
from metadarts.predictor import Footprints, Stem
from metadarts.predictor.encoder import TaskEncoder, class_moments
from metadarts.predictor.meta_dataset import seen_of
from metadarts.spaces import darts
from metadarts.tasks import EpisodeSampler, glyphs


def stem() -> Stem:
    network = supernet(darts(1), NetworkSpec(in_channels=1, stem=(4, 6), channels=4))
    return Stem.of_params(network.init(Key.from_seed(0)))


EXTRACTORS = {"stem": stem(), "footprints": Footprints(1, 3)}


@pytest.fixture(scope="module")
def batch() -> TaskBatch:
    return EpisodeSampler(glyphs(), "train", 4, 3, 2).sample(Key.from_seed(0), 3)


def reordered(batch: TaskBatch, rows: torch.Tensor, labels: torch.Tensor) -> TaskBatch:
    """Support images in the order ``rows``, label c now called ``labels[c]``."""
    return TaskBatch(
        batch.support_images[:, rows], labels[batch.support_labels[:, rows]], batch.support_mask[:, rows],
        batch.query_images, batch.query_labels, batch.query_mask, batch.ways,
    )  # fmt: skip


def encoder(features: int) -> TaskEncoder:
    return TaskEncoder(features, 16, 8, Key.from_seed(1)).double()


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_order_of_images_and_of_classes_does_not_matter(batch, name):
    extractor, key = EXTRACTORS[name], Key.from_seed(2)
    rows = torch.from_numpy(key.child("rows").permutation(batch.support_labels.shape[1]))
    labels = torch.from_numpy(key.child("labels").permutation(batch.ways))
    one, other = (seen_of(each, extractor) for each in (batch, reordered(batch, rows, labels)))
    own = encoder(extractor.features)
    own.standardise([type(one)(one.means.double(), one.deviations.double(), one.counts.double())])
    vectors = [own(type(s)(s.means.double(), s.deviations.double(), s.counts.double())) for s in (one, other)]
    vectors = [each.detach() for each in vectors]
    torch.testing.assert_close(*vectors, rtol=1e-4, atol=1e-4)
    assert float((vectors[0][0] - vectors[0][1]).abs().max()) > 1e-2, "two tasks look different"


@pytest.mark.parametrize("name", EXTRACTORS)
def test_which_images_are_of_one_class_does_matter(batch, name):
    mixed = TaskBatch(
        batch.support_images, batch.support_labels.roll(1, 1), batch.support_mask, batch.query_images,
        batch.query_labels, batch.query_mask, batch.ways,
    )  # fmt: skip
    one, other = (seen_of(each, EXTRACTORS[name]) for each in (batch, mixed))
    assert not torch.allclose(one.means.sort(1).values, other.means.sort(1).values, atol=1e-3)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_queries_are_not_looked_at(batch, name):
    blind = TaskBatch(
        batch.support_images, batch.support_labels, batch.support_mask,
        torch.full_like(batch.query_images, torch.nan), batch.query_labels, batch.query_mask, batch.ways,
    )  # fmt: skip
    assert torch.equal(seen_of(batch, EXTRACTORS[name]).means, seen_of(blind, EXTRACTORS[name]).means)


def test_moments_are_those_of_each_class_and_padding_does_not_count():
    draw = Key.from_seed(0).torch()
    features = torch.randn(2, 6, 3, generator=draw, dtype=torch.float64)
    labels = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 0, 1, 0, 0, 0]])
    mask = torch.tensor([[True] * 5 + [False], [True] * 6])
    seen = class_moments(features, labels, mask, 2)
    for task in range(2):
        for label in range(2):
            rows = features[task][(labels[task] == label) & mask[task]].numpy()
            np.testing.assert_allclose(seen.means[task, label], rows.mean(0))
            np.testing.assert_allclose(seen.deviations[task, label], rows.std(0))
            assert seen.counts[task, label] == len(rows)


def test_a_deviation_keeps_its_digits_far_from_zero():
    features = torch.tensor([[[1000.0], [1001.0], [1002.0]]])
    seen = class_moments(features, torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool), 1)
    assert float(seen.deviations) == pytest.approx((2 / 3) ** 0.5, rel=1e-5)


def test_the_stem_is_that_of_the_supernet_and_pools_its_map(batch):
    """Against the map itself, from the stem's own convolutions."""
    from metadarts.ops import conv_block

    own, params = stem(), stem().params
    x = batch.support_images.permute(0, 1, 3, 4, 2)
    for index in (1, 2):
        lifted = [params[f"stem.{name}"].unsqueeze(0).expand(3, *params[f"stem.{name}"].shape)
                  for name in (f"conv{index}", f"norm{index}.weight", f"norm{index}.bias")]  # fmt: skip
        x = conv_block(x.contiguous(), *lifted, None, rectify=index > 1)
    maps = x.relu().flatten(2, 3)
    found = own.describe(batch)
    torch.testing.assert_close(found[..., :6], maps.mean(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[..., 6:], (maps.var(2, unbiased=False) + 1e-6).sqrt(), rtol=1e-4, atol=1e-4)


def test_a_stem_without_its_parameters_is_refused():
    with pytest.raises(ConfigError, match=r"stem\.conv1 and so on"):
        Stem.of_params({"cells.0.x": torch.zeros(1)})
    broken = dict(stem().params)
    del broken["stem.norm2.bias"]
    with pytest.raises(ConfigError, match=r"stem\.norm2\.bias"):
        Stem(1, (4, 6), broken)


def test_footprints_are_the_autocorrelations(batch):
    """Offset (1, -2) of the plain images, by hand."""
    own = Footprints(1, 3)
    at = own.offsets.index((1, -2))
    image = batch.support_images[0, 0, 0].double()
    expected = (image[:-1, 2:] * image[1:, :-2]).mean()
    found = own.describe(batch)[0, 0, at]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert own.describe(batch).shape == (3, 12, own.features)
    assert len(own.offsets) == 25, "one of every two opposite offsets within 3, and none at all"
