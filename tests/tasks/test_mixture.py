"""Domains: the classes of a task come from one; a mixture makes a domain of each source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.tasks import ClassEntry, EpisodeSampler, Part, Source, finish, mixture, open_source
from metadarts.tasks.images.reform import reformed

KEY = Key.from_seed(3)


def plain(name, value, channels=1, size=6, classes=9, each=8, variety=False):
    """A source of grey images of one value, three classes a split."""
    images = np.full((classes * each, channels, size, size), value, np.uint8)
    entries = tuple(ClassEntry(f"c{n}", np.arange(n * each, (n + 1) * each)) for n in range(classes))
    split = {of: tuple(range(3 * n, 3 * n + 3)) for n, of in enumerate(("train", "val", "test"))}
    kinds = np.arange(classes * each) % 2 if variety else None
    return Source(name, images, entries, split, kinds)


@pytest.fixture
def dark():
    return plain("dark", 40, variety=True)


@pytest.fixture
def light():
    return plain("light", 200)


@pytest.fixture
def both(dark, light, cache_folder):
    return mixture([Part("dark", dark), Part("light", light)])


def test_a_task_has_one_domain(both):
    sampler = EpisodeSampler(both, "train", 3, 2, 2)
    plan = sampler.plan(KEY, 40)
    domains = [{both.classes[number].domain for number in row} for row in plan.classes.tolist()]
    assert all(len(found) == 1 for found in domains)
    assert plan.domains(both) == [found.pop() for found in domains]
    assert 10 < plan.domains(both).count("dark") < 30


def test_a_batch_says_its_domains(both):
    sampler = EpisodeSampler(both, "val", 3, 1, 2)
    batch = sampler.sample(KEY, 12)
    assert batch.domain.tolist() == [both.domains.index(name) for name in sampler.plan(KEY, 12).domains(both)]
    assert torch.equal(batch.take(torch.tensor([3, 1])).domain, batch.domain[[3, 1]])
    assert torch.equal(batch.task(5).domain, batch.domain[5:6])
    assert torch.equal(finish(sampler.raw(KEY, 12)).domain, batch.domain)
    assert any(tensor is batch.domain for tensor in batch.tensors())


def test_one_domain_alone(both):
    sampler = EpisodeSampler(both, "train", 3, 1, 2, domain="light")
    assert set(sampler.plan(KEY, 20).domains(both)) == {"light"}
    with pytest.raises(DataError, match="no classes of domain 'ligth'; did you mean 'light'"):
        EpisodeSampler(both, "train", 3, 1, 2, domain="ligth")


def test_more_ways_than_a_domain_has(both):
    with pytest.raises(DataError, match="domain 'dark': 4-way tasks need as many classes, it has 3"):
        EpisodeSampler(both, "train", 4, 1, 2)


def test_domains_do_not_change_the_draws_of_a_source_without(toy):
    named = replace(toy, classes=tuple(replace(entry, domain="one") for entry in toy.classes))
    plans = [EpisodeSampler(source, "train", 3, 1, 2).plan(KEY, 4) for source in (toy, named)]
    assert np.array_equal(plans[0].classes, plans[1].classes)
    assert named.content_sha256 == toy.content_sha256
    assert EpisodeSampler(toy, "train", 3, 1, 2).sample(KEY, 2).domain is None


def test_the_digest_covers_domains(both):
    moved = replace(both, classes=(replace(both.classes[0], domain="light"), *both.classes[1:]))
    assert moved.content_sha256 != both.content_sha256


def test_classes_keep_their_images_names_and_splits(both, dark, light):
    assert len(both.images) == len(dark.images) + len(light.images)
    for number, entry in enumerate(both.classes):
        source, own = (dark, number) if number < 9 else (light, number - 9)
        assert entry.name == f"{source.name}/c{own}"
        assert np.array_equal(both.images[entry.rows], source.images[source.classes[own].rows])
    assert both.split["test"] == (6, 7, 8, 15, 16, 17)


def test_varieties_of_two_sources_are_never_one(both):
    dark, light = both.variety[:72], both.variety[72:]
    assert set(dark.tolist()) == {0, 1}
    assert len(set(light.tolist())) == 72
    assert not set(dark.tolist()) & set(light.tolist())


def test_normalised_by_all_training_images(both):
    assert both.mean == pytest.approx([(40 + 200) / 2 / 255])
    assert both.std == pytest.approx([80 / 255])


def test_an_unseen_part_has_test_classes_only(dark, light, cache_folder):
    found = mixture([Part("dark", dark), Part("light", light, unseen=True)])
    assert {split: list(found.domain_classes(split)) for split in found.split} == {
        "train": ["dark"], "val": ["dark"], "test": ["dark", "light"],
    }  # fmt: skip
    assert found.mean == pytest.approx([40 / 255])


def test_what_cannot_be_mixed(dark, light, both, cache_folder):
    with pytest.raises(DataError, match="at least two sources of different names, given dark"):
        mixture([Part("dark", dark)])
    with pytest.raises(DataError, match="at least two sources of different names, given dark, dark"):
        mixture([Part("dark", dark), Part("dark", light)])
    with pytest.raises(DataError, match=r"one form \(channels, height, width\)"):
        mixture([Part("dark", dark), Part("light", plain("light", 9, size=7))])
    with pytest.raises(DataError, match="both has several domains itself"):
        mixture([Part("dark", dark), Part("both", both)])
    with pytest.raises(DataError, match="the training classes have no images"):
        mixture([Part("dark", dark, unseen=True), Part("light", light, unseen=True)])


def test_two_splits_of_one_data_set_are_refused(dark, light, cache_folder):
    """Whatever the classes are called: their images are the same."""
    images = np.random.Generator(np.random.Philox(1)).integers(0, 256, dark.images.shape, dtype=np.uint8)
    first = replace(dark, images=images)
    second = replace(first, name="again", split={"train": (6, 7, 8), "val": (3, 4, 5), "test": (0, 1, 2)})
    with pytest.raises(DataError, match="24 test images of again are among the train images of dark"):
        mixture([Part("dark", first), Part("again", second)])
    with pytest.raises(DataError, match="test images of again are among"):
        mixture([Part("dark", first), Part("again", second, unseen=True)])
    mixture([Part("dark", first), Part("again", replace(second, split=first.split))])


def test_a_part_without_classes_is_named(dark, light, cache_folder):
    with pytest.raises(DataError, match="light has no val classes"):
        mixture([Part("dark", dark), Part("light", replace(light, split={**light.split, "val": ()}))])
    with pytest.raises(DataError, match="light has no test classes"):
        mixture([Part("dark", dark), Part("light", replace(light, split={"train": (0, 1, 2)}), unseen=True)])


def write(path, value, classes=9, size=6):
    images = np.full((classes * 4, size, size), value, np.uint8)
    label = np.repeat(np.arange(classes), 4)
    np.savez(path, images=images, label=label, split=np.repeat([0, 1, 2], classes // 3))


def test_by_name(tmp_path, cache_folder, dark):
    """The largest side and the most channels, or what is asked for; places are relative."""
    write(tmp_path / "a.npz", 10)
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "b.npz", 90, size=8)
    sources = {"one": lambda place, **form: open_source("npz", place, **form)}
    from metadarts.core.variants import Variants

    table = Variants("source", {"npz": lambda place, **form: open_source("npz", place, **form), **sources})
    found = open_source("mixture:npz=a.npz,one=b/b.npz", tmp_path, sources=table)
    assert (found.domains, found.size, found.channels) == (("npz", "one"), (8, 8), 1)
    asked = open_source("mixture:npz=a.npz,-one=b/b.npz", tmp_path, sources=table, size=12, channels=3)
    assert (asked.size, asked.channels, list(asked.domain_classes("train"))) == ((12, 12), 3, ["npz"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mixture:", "unknown source ''"),
        ("mixture:glyphs,omniglott", "unknown source 'omniglott', .*did you mean 'omniglot'"),
        ("mixture:glyphs,npz=", "expected npz=PLACE"),
    ],
)
def test_names_that_say_no_mixture(name, message):
    with pytest.raises(ConfigError, match=message):
        open_source(name)


def test_another_form_is_kept_in_the_cache(dark, cache_folder):
    found = reformed(dark, 12, 3)
    assert (found.size, found.channels, found.classes) == ((12, 12), 3, dark.classes)
    assert (found.images == 40).all()
    assert list(cache_folder.glob("images/dark-12-*.npy"))
    assert reformed(dark, 6, 1) is dark
    with pytest.raises(DataError, match="its images are normalised"):
        reformed(replace(dark, mean=(0.5,), std=(0.5,)), 12)
