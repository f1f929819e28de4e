"""Fitting: what can be learnt is, what cannot is not claimed, and a file gives the same model back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metadarts.core.errors import ConfigError, DataError, NumericsError, RunError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.predictor import Footprints, MetaModel, Origin, PredictorSpec, TaskRecord, open_model, save_model, tune
from metadarts.predictor.head import choices_of
from metadarts.predictor.losses import alphas_loss, architecture_loss, ranking_loss
from metadarts.predictor.meta_dataset import meta_datasets
from metadarts.predictor.task_record import ADAPTED, TRAINED
from metadarts.predictor.tuning import _folds
from metadarts.spaces import Genotype, SearchSpace

SPACE = SearchSpace("toy", ("skip_connect", "max_pool_3x3"), nodes=1, cell_types=("normal",))
EXTRACTOR = Footprints(1, 1)
KEY = Key.from_seed(0).child("tests", "model")
SHOTS, SIDE = 3, 5


def image_key(number: int) -> Key:
    return KEY.child("task", number)


def is_bright(number: int) -> bool:
    """Of which of two kinds task ``number`` is."""
    return bool(image_key(number).child("kind").choose(2, 1)[0])


def support(origins: Sequence[Origin]) -> TaskBatch:
    """Two classes of noise; in tasks of the one kind they differ in brightness, in those of the other in contrast."""
    images, labels = [], torch.arange(2).repeat_interleave(SHOTS)
    for origin in origins:
        number = int(origin.facts["number"])
        noise = torch.randn(2 * SHOTS, 1, SIDE, SIDE, generator=image_key(number).torch())
        second = labels.view(-1, 1, 1, 1) == 1
        images.append(torch.where(second, noise + 2.0 if is_bright(number) else 3.0 * noise, noise))
    stacked, everyone = torch.stack(images), torch.ones(len(origins), 2 * SHOTS, dtype=torch.bool)
    return TaskBatch(
        stacked, labels.expand(len(origins), -1), everyone, stacked, labels.expand(len(origins), -1), everyone, 2
    )


def cell(operation: str) -> Genotype:
    return Genotype([(operation, 0), (operation, 1)], [2], [], [])


def record(number: int, operation: str, after: float, role: str = ADAPTED) -> TaskRecord:
    table = np.zeros(SPACE.alpha_shape, np.float32)
    table[:, SPACE.primitives.index(operation)] = 1.0
    return TaskRecord(
        Origin("one-edge teacher", {"number": number}), SPACE, {"normal": table}, cell(operation), 0.5, after, role, 0,
        "tests", {},
    )  # fmt: skip


def archive(tasks: range, both: bool = False) -> list[TaskRecord]:
    """The best operation follows the kind; with ``both``, the other is there too and worth less."""
    found = []
    for number in tasks:
        best, worse = SPACE.primitives if is_bright(number) else reversed(SPACE.primitives)
        found.append(record(number, best, 0.9))
        if both:
            found.append(record(number, worse, 0.6, TRAINED))
    return found


def named(model: MetaModel, tasks: range) -> float:
    """Share of tasks whose most probable cell is the best one."""
    right = 0
    said = model.predict(support([Origin("one-edge teacher", {"number": n}) for n in tasks])).genotypes()
    for number, genotype in zip(tasks, said, strict=True):
        right += genotype == cell(SPACE.primitives[0] if is_bright(number) else SPACE.primitives[1]).canonical()
    return right / len(tasks)


TRAIN, NEW = range(120), range(1000, 1100)


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel(SPACE, EXTRACTOR, PredictorSpec(width=16, embedding=8, rate=1e-2, epochs=15)).fit(
        archive(TRAIN), support
    )


def test_it_names_the_architecture_of_new_tasks(model):
    kinds = [is_bright(number) for number in NEW]
    assert 30 < sum(kinds) < 70, "neither kind is rare"
    assert named(model, NEW) > 0.95
    assert model.fitted == len(TRAIN)


def test_with_architectures_dealt_out_at_random_nothing_is_found():
    """The same tasks, each with the cell of another: a held-out task is then not told better than by chance."""
    own = archive(TRAIN)
    order = KEY.child("deal").permutation(len(own)).tolist()
    dealt = [replace(own[at], alphas=own[to].alphas, genotype=own[to].genotype) for at, to in enumerate(order)]
    fitted = MetaModel(SPACE, EXTRACTOR, PredictorSpec(width=16, embedding=8, rate=1e-2, epochs=15)).fit(dealt, support)
    assert 0.25 < named(fitted, NEW) < 0.75
    held = meta_datasets(archive(NEW), support, EXTRACTOR, SPACE)
    assert fitted.scores(held).architecture > np.log(2) / 3 - 0.02, (
        "one of two operations on two edges, no set: 3 choices"
    )


def test_ranking_alone_orders_candidates():
    spec = PredictorSpec(width=16, embedding=8, rate=1e-2, epochs=15, architecture=0.0, alphas=0.0)
    fitted = MetaModel(SPACE, EXTRACTOR, spec).fit(archive(TRAIN, both=True), support)
    scores = fitted.rank(
        support([Origin("one-edge teacher", {"number": n}) for n in NEW]), [cell(op) for op in SPACE.primitives]
    )
    first = (scores[:, 0] > scores[:, 1]).tolist()
    assert sum(a == is_bright(n) for a, n in zip(first, NEW, strict=True)) > 95


def test_the_best_of_a_tasks_records_is_its_target():
    (datasets,) = meta_datasets(archive(range(6), both=True), support, EXTRACTOR, SPACE)
    assert (len(datasets), len(datasets.worth)) == (6, 12)
    for task in range(6):
        best = SPACE.primitives[0] if is_bright(task) else SPACE.primitives[1]
        at = [int(origin.facts["number"]) for origin in datasets.origins].index(task)
        assert datasets.best.operations["normal"][at].tolist() == [SPACE.primitives.index(best)] * 2
    better, worse = datasets.pairs()
    assert len(better) == 6
    assert bool((datasets.worth[better] > datasets.worth[worse]).all())
    part = datasets.take(torch.tensor([4, 1]))
    assert [int(origin.facts["number"]) for origin in part.origins] == [
        int(datasets.origins[row].facts["number"]) for row in (4, 1)
    ]
    assert part.tried.rows.tolist().count(0) == part.tried.rows.tolist().count(1) == 2
    assert len(part.pairs()[0]) == 2


def test_losses_are_what_they_say(model):
    (datasets,) = meta_datasets(archive(range(8), both=True), support, EXTRACTOR, SPACE)
    said = model.predict_seen(datasets.seen)
    by_hand = -said.log_likelihood(datasets.best) / (SPACE.nodes * 3)
    torch.testing.assert_close(architecture_loss(said, datasets), by_hand)
    target = model.head.standardised(datasets.alphas)
    torch.testing.assert_close(
        alphas_loss({c: torch.zeros_like(t) for c, t in target.items()}, target), target["normal"].square().mean((1, 2))
    )
    better, worse = datasets.pairs()
    scores = said.log_likelihood(datasets.tried)
    expected = (1 + (scores[worse] - scores[better]).exp()).log().mean()
    torch.testing.assert_close(ranking_loss(said, datasets), expected)
    (alone,) = meta_datasets(archive(range(3)), support, EXTRACTOR, SPACE)
    assert ranking_loss(model.predict_seen(alone.seen), alone) is None


def test_the_same_seed_gives_the_same_model_and_another_another(model):
    again = MetaModel(SPACE, EXTRACTOR, model.spec).fit(archive(TRAIN), support)
    other = MetaModel(SPACE, EXTRACTOR, replace(model.spec, seed=1)).fit(archive(TRAIN), support)
    batch = support([Origin("one-edge teacher", {"number": 7})])
    assert torch.equal(*(each.predict(batch).alphas["normal"] for each in (model, again)))
    assert not torch.equal(*(each.predict(batch).alphas["normal"] for each in (model, other)))


def test_a_file_gives_the_same_model_back(model, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(model, path, {"archive_sha256": "ab"})
    opened, facts = open_model(path)
    batch = support([Origin("one-edge teacher", {"number": n}) for n in range(5)])
    for name in ("alphas", "operations", "edges"):
        assert torch.equal(*(getattr(each.predict(batch), name)["normal"] for each in (model, opened)))
    assert (opened.spec, opened.space, opened.fitted, facts) == (model.spec, SPACE, 120, {"archive_sha256": "ab"})


def test_a_file_that_is_no_model_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none", Path(__file__)):
        with pytest.raises(RunError, match="give what `metamodel train` wrote"):
            open_model(path)


def test_a_file_that_was_changed_is_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "m.safetensors"
    save_model(model, path, {})
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        told = file.metadata()
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith("weight"))
    for change in ({name: tensors[name][:1]}, {name: torch.full_like(tensors[name], torch.nan)}):
        save_file(tensors | change, path, metadata=told)
        with pytest.raises(RunError, match="is damaged"):
            open_model(path)


def test_what_cannot_be_learnt_from_is_refused(model):
    with pytest.raises(DataError, match="no record to learn from"):
        MetaModel(SPACE, EXTRACTOR).fit([], support)
    other = replace(record(0, "skip_connect", 0.5), space=replace(SPACE, name="another"))
    with pytest.raises(DataError, match="'another' with 1 nodes, expected 'toy'"):
        MetaModel(SPACE, EXTRACTOR).fit([other], support)
    with pytest.raises(ConfigError, match="learnt from nothing yet"):
        MetaModel(SPACE, EXTRACTOR).predict(support([Origin("one-edge teacher", {"number": 0})]))
    broken = replace(record(0, "skip_connect", 0.5), alphas={"normal": np.full(SPACE.alpha_shape, np.nan, np.float32)})
    with pytest.raises(NumericsError, match="not finite after epoch 1"):
        MetaModel(SPACE, EXTRACTOR).fit([broken, record(1, "skip_connect", 0.5)], support)


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"epochs": 0}, {"width": 0}, {"decay": float("nan")},
                                    {"architecture": 0.0, "alphas": 0.0, "ranking": 0.0}])  # fmt: skip
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="meta-model: "):
        PredictorSpec(**change)


def test_folds_hold_out_every_task_once_with_all_that_was_tried_on_it():
    datasets = meta_datasets(archive(range(11), both=True), support, EXTRACTOR, SPACE)
    held_out: list[int] = []
    for train, held in _folds(datasets, 3, KEY):
        names = [{int(o.facts["number"]) for part in side for o in part.origins} for side in (train, held)]
        assert not names[0] & names[1]
        assert names[0] | names[1] == set(range(11))
        assert sum(len(part.worth) for part in held) == 2 * len(names[1])
        held_out += sorted(names[1])
    assert sorted(held_out) == list(range(11))
    with pytest.raises(ConfigError, match="folds: expected 2 to 11"):
        _folds(datasets, 12, KEY)


def test_tuning_tells_its_settings_apart_by_held_out_tasks(monkeypatch):
    from metadarts.predictor import tuning

    monkeypatch.setattr(tuning, "GRID", ({"rate": 1e-2, "width": 16}, {"rate": 1e-9, "width": 16}))
    model = MetaModel(SPACE, EXTRACTOR, PredictorSpec(embedding=8, epochs=8))
    told: list[int] = []
    tried = tune(
        model, meta_datasets(archive(range(60)), support, EXTRACTOR, SPACE), 2, lambda now: told.append(now.done)
    )
    assert [each.spec.rate for each in tried] == [1e-2, 1e-9]
    assert tried[0].loss < tried[1].loss - 0.1
    assert told == [1, 2, 3, 4]
    assert 1 <= tried[0].spec.stop <= tried[0].spec.epochs == 8


def test_what_tuning_chose_is_trained_as_it_was_tried():
    """To stop after 2 of 8 epochs is to be where the whole course is after 2, its rate not yet fallen."""
    datasets = meta_datasets(archive(range(20)), support, EXTRACTOR, SPACE)
    course = MetaModel(SPACE, EXTRACTOR, PredictorSpec(width=8, epochs=8))
    looks = [course.scores(datasets).loss for _ in course.epochs(datasets)]
    stopped = MetaModel(SPACE, EXTRACTOR, PredictorSpec(width=8, epochs=8, stop=2)).learn(datasets)
    assert stopped.scores(datasets).loss == looks[1] != looks[-1]


def test_folds_of_tasks_of_several_sizes_have_none_empty_and_divergence_comes_last(monkeypatch):
    from metadarts.predictor import tuning

    (whole,) = meta_datasets(archive(range(4)), support, EXTRACTOR, SPACE)
    parts = [whole.take(torch.tensor(rows)) for rows in ([0, 1], [2], [3])]
    for train, held in _folds(parts, 4, KEY):
        assert (sum(map(len, train)), sum(map(len, held))) == (3, 1)
    monkeypatch.setattr(tuning, "GRID", ({"rate": 1e30, "width": 8}, {"rate": 1e-3, "width": 8}))
    tried = tune(MetaModel(SPACE, EXTRACTOR, PredictorSpec(embedding=4, epochs=2)), parts, 2)
    assert [each.spec.rate for each in tried] == [1e-3, 1e30]
    assert tried[1].loss == float("inf")


def test_images_of_other_channels_and_single_classes_are_refused(model):
    batch = support([Origin("one-edge teacher", {"number": 0})])
    colour = TaskBatch(
        batch.support_images.expand(-1, -1, 3, -1, -1), batch.support_labels, batch.support_mask, batch.query_images,
        batch.query_labels, batch.query_mask, 2,
    )  # fmt: skip
    with pytest.raises(DataError, match="images of 1 channels, the tasks have 3"):
        model.predict(colour)
    alone = TaskBatch(
        batch.support_images, batch.support_labels * 0, batch.support_mask, batch.query_images, batch.query_labels * 0,
        batch.query_mask, 1,
    )  # fmt: skip
    with pytest.raises(DataError, match="at least 2 classes"):
        model.predict(alone)


def test_without_a_word_from_the_vector_scores_are_those_of_all_tasks_together():
    datasets = meta_datasets(archive(TRAIN), support, EXTRACTOR, SPACE)
    fresh = MetaModel(SPACE, EXTRACTOR, PredictorSpec(rate=1e-9, epochs=1)).learn(datasets)
    assert fresh.scores(datasets).alphas == pytest.approx(1.0, abs=1e-3)
    overall = fresh.head.overall(1).log_likelihood(choices_of([cell("skip_connect")], SPACE))
    said = fresh.predict_seen(datasets[0].seen.take(torch.tensor([0]))).log_likelihood(
        choices_of([cell("skip_connect")], SPACE)
    )
    torch.testing.assert_close(overall, said, atol=1e-4, rtol=1e-4)
