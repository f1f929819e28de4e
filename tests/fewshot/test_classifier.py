"""`FewShotClassifier` as scikit-learn's users meet it."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from metadarts.core.errors import ConfigError, DataError, ModelError, RunError
from metadarts.core.rng import Key
from metadarts.export import SUFFIXES, open_model
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.learn import derive
from metadarts.training import with_settings
from metadarts.training.catalogue import load_plugins


def test_it_learns_what_is_easy(learnt, others):
    assert learnt.score(*others) > 0.6
    assert [step["step"] for step in learnt.history_] == [0, 1, 2]
    assert learnt.history_[-1]["loss"] < learnt.history_[0]["loss"]


def test_clone_and_parameters(grey):
    made = FewShotClassifier(grey, steps=3, seconds=4.0, finish="retrained", weight_rate=0.1, alpha_rate=1.0)
    copy = clone(made)
    assert copy is not made
    assert copy.get_params() == made.get_params()
    assert copy.get_params()["steps"] == 3
    assert copy.set_params(steps=1, random_state=7).get_params() == made.get_params() | {"steps": 1, "random_state": 7}


def test_cross_validation(cases, grey):
    pixels, labels = cases.images((5, 5, 6))
    scores = cross_val_score(FewShotClassifier(grey, steps=1), pixels, labels, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert scores.mean() > 0.5


def test_in_a_pipeline(cases, grey, others):
    pixels, labels = cases.images((4, 4, 4))
    pipeline = make_pipeline(FunctionTransformer(lambda images: images / 255.0), FewShotClassifier(grey, steps=1))
    plain = FewShotClassifier(grey, steps=1).fit(pixels, labels)
    np.testing.assert_array_equal(pipeline.fit(pixels, labels).predict(others[0]), plain.predict(others[0]))


def test_a_grid_of_steps(cases, grey):
    pixels, labels = cases.images((4, 4))
    grid = GridSearchCV(FewShotClassifier(grey), {"steps": np.arange(2)}, cv=2, error_score="raise")
    grid.fit(pixels, labels)
    assert grid.best_params_["steps"] in (0, 1)
    assert set(grid.best_estimator_.classes_) == {0, 1}


@pytest.mark.parametrize(
    ("names", "sorted_names"),
    [
        ([30, -1, 7], [-1, 7, 30]),
        (["pear", "apple", "fig"], ["apple", "fig", "pear"]),
        ([2.0, 1.0, -3.0], [-3.0, 1.0, 2.0]),
    ],
    ids=["ints", "strings", "floats"],
)
def test_labels_of_any_kind_come_back(cases, grey, others, names, sorted_names):
    pixels, labels = cases.images((4, 2, 5))
    found = FewShotClassifier(grey, steps=0).fit(pixels, np.array(names)[labels])
    assert found.classes_.tolist() == sorted_names
    assert found.score(others[0], np.array(names)[others[1]]) > 0.5
    assert found.predict_proba(others[0]).argmax(1).tolist() == [
        sorted_names.index(name) for name in found.predict(others[0]).tolist()
    ]


@pytest.mark.parametrize("kind", [bool, object, list])
def test_labels_of_two_kinds_of_truth_of_objects_and_in_lists(cases, grey, kind, tmp_path):
    pixels, labels = cases.images((3, 6))
    given = labels.tolist() if kind is list else labels.astype(kind)
    found = FewShotClassifier(grey, steps=0).fit(pixels, given)
    assert found.classes_.tolist() == [0, 1]
    assert (found.predict(pixels).astype(int) == labels).mean() > 0.5
    found.save(tmp_path / "task")
    assert FewShotClassifier.load(tmp_path / "task").classes_.tolist() == (
        ["False", "True"] if kind is bool else [0, 1]
    )


def test_probabilities(learnt, others):
    shares = learnt.predict_proba(others[0])
    assert shares.shape == (18, 3)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert (shares >= 0).all()
    assert (learnt.classes_[shares.argmax(1)] == learnt.predict(others[0])).all()


def test_an_image_alone_and_in_a_batch(learnt, others):
    together = learnt.logits(others[0])
    alone = np.concatenate([learnt.logits(others[0][place : place + 1]) for place in range(18)])
    np.testing.assert_allclose(alone, together, atol=1e-5 * np.abs(together).max())


def test_more_images_than_are_answered_at_once(learnt, others):
    many = np.concatenate([others[0]] * 15)
    assert learnt.logits(many).shape == (270, 3)


@pytest.mark.parametrize("counts", [(4, 2, 5), (40, 30)], ids=["together", "mini-batches"])
def test_the_same_seed_gives_the_same_to_the_bit(cases, grey, others, counts):
    data = cases.images(counts)
    first, second = (FewShotClassifier(grey, steps=2, finish="inherited").fit(*data) for _ in range(2))
    np.testing.assert_array_equal(first.logits(others[0]), second.logits(others[0]))
    for finish in ("supernet", "inherited"):
        own, same = (found.task_.solution(finish).params for found in (first, second))
        assert all(torch.equal(own[name], same[name]) for name in own)


def test_another_seed_draws_other_mini_batches(cases, grey):
    data = cases.images((40, 30))
    losses = [FewShotClassifier(grey, steps=1, random_state=s).fit(*data).history_[-1]["loss"] for s in (0, 1)]
    assert losses[0] != losses[1]


def test_more_than_512_images(cases, grey, others):
    data = cases.images((500, 120))
    found = FewShotClassifier(grey, steps=1).fit(*data)
    frozen = found.task_.support.labels[found.task_.support.frozen]
    assert torch.bincount(frozen).tolist() == [392, 120], "classes alike, as far as there are images"
    keep = others[1] < 2
    assert found.score(others[0][keep], others[1][keep]) > 0.6


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y: (x, y * 0), "expected 2 to 20 classes, got 1: 0"),
        (lambda x, y: (np.repeat(x, 2, 0), np.arange(22) % 21), "expected 2 to 20 classes, got 21"),
        (lambda x, y: (x[:0], y[:0]), "expected at least one image, got none"),
        (lambda x, y: ([], []), "expected at least one image, got none"),
        (lambda x, y: (x, y[:-1]), "one label for each image, got 11 images and 10 labels"),
        (lambda x, y: (np.where(x == x.max(), np.nan, x), y), "holds NaN"),
        (lambda x, y: (x, np.where(y == 0, np.nan, y)), "labels hold NaN"),
        (lambda x, y: (x, y[:, None]), "expected labels [n], got an array [11, 1]"),
        (lambda x, y: (x, [[1], [1, 2]]), "expected labels [n]"),
        (lambda x, y: (x, np.array([None, 1] * 5 + [2], dtype=object)), "of one kind"),
        (lambda x, y: (x, np.array([1.5, "1.5"] * 5 + ["2"], dtype=object)), "of one kind"),
        (lambda x, y: (x, np.array(["\ud83d", "b"] * 5 + ["b"])), "half a letter"),
        (lambda x, y: (x[0], y), "got 16 images and 11 labels"),
        (lambda x, y: (x.astype(str), y), "got an array [11, 16, 16]"),
        (lambda x, y: (x.astype(float) - 300, y), "holds numbers from"),
    ],
)
def test_data_that_do_not_fit(cases, grey, spoil, words):
    pixels, labels = spoil(*cases.images((4, 2, 5)))
    with pytest.raises(DataError) as raised:
        FewShotClassifier(grey).fit(pixels, labels)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": -1}, "steps: expected a whole number"),
        ({"steps": 1.5}, "steps: expected a whole number"),
        ({"steps": True}, "steps: expected a whole number"),
        ({"seconds": 0}, "seconds: expected a positive number"),
        ({"seconds": float("nan")}, "seconds: expected a positive number"),
        ({"seconds": "1"}, "seconds: expected a number"),
        ({"weight_rate": -1.0}, "rates: expected finite numbers"),
        ({"weight_rate": "fast"}, "weight_rate: expected a number"),
        ({"alpha_rate": float("inf")}, "rates: expected finite numbers"),
        ({"finish": "suprnet"}, "did you mean 'supernet'?"),
        ({"random_state": None}, "random_state: expected a whole number"),
        ({"random_state": "0"}, "random_state: expected a whole number"),
        ({"start": "glyps"}, "did you mean 'glyphs'?"),
        ({"start": "a\0b"}, "no start"),
        ({"start": "x" * 5000}, "start"),
    ],
)
def test_options_out_of_range(cases, grey, given, words):
    with pytest.raises(ConfigError) as raised:
        FewShotClassifier(**({"start": grey} | given)).fit(*cases.images((3, 3)))
    assert words in str(raised.value)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "save", "export", "discretise"])
def test_what_is_not_fitted_says_so(grey, method, others, tmp_path):
    arguments = {"save": [tmp_path / "a"], "export": [tmp_path / "a.onnx"], "discretise": []}
    with pytest.raises(NotFittedError):
        getattr(FewShotClassifier(grey), method)(*arguments.get(method, [others[0]]))


def test_steps_given_to_fit_stand_above_the_constructors(cases, grey):
    found = FewShotClassifier(grey, steps=5).fit(*cases.images((3, 3)), steps=1)
    assert len(found.history_) == 2
    assert found.steps == 5
    assert len(found.discretise().history_) == 2, "as many as were taken"


def test_discretise_makes_a_new_one_and_leaves_the_first_alone(learnt, others):
    before = learnt.logits(others[0])
    discrete = learnt.discretise(steps=1)
    assert (learnt.finish_, discrete.finish_, discrete.finish) == ("supernet", "inherited", "inherited")
    assert list(learnt.task_.solutions) == ["supernet"]
    np.testing.assert_array_equal(learnt.logits(others[0]), before)
    assert discrete.genotype_ == learnt.genotype_ == derive(learnt.task_.solution("supernet"))
    assert len(discrete.history_) == 2
    assert discrete.score(*others) > 0.5
    assert not np.array_equal(discrete.logits(others[0]), before)


def test_retrained_learns_the_derived_cell_anew(learnt, others):
    found = learnt.discretise("retrained", steps=30)
    assert found.genotype_ == learnt.genotype_
    assert found.score(*others) > 0.6
    assert len(found.history_) == 31


def test_finishes_under_the_names_of_version_0_1(cases, grey, learnt, others):
    found = FewShotClassifier(grey, steps=2, finish="soft").fit(*cases.images((4, 2, 5)))
    assert (found.get_params()["finish"], found.finish_) == ("soft", "supernet")
    np.testing.assert_array_equal(found.logits(others[0]), learnt.logits(others[0]))
    anew = found.discretise("scratch", steps=1)
    assert (anew.finish, anew.finish_, anew.task_.facts["parameters"]["finish"]) == ("retrained",) * 2 + ("supernet",)
    with pytest.raises(ConfigError, match=r"finish 'soft' is no discrete one; .*inherited, retrained"):
        found.discretise("soft")


@pytest.mark.parametrize("finish", ["supernet", "inhreited"])
def test_a_finish_that_is_no_discrete_one(learnt, finish):
    with pytest.raises(ConfigError, match="is no discrete one"):
        learnt.discretise(finish)


def test_finish_in_the_constructor_is_fit_and_discretise_in_one(cases, grey, learnt, others):
    together = FewShotClassifier(grey, steps=2, finish="inherited").fit(*cases.images((4, 2, 5)))
    apart = learnt.discretise()
    np.testing.assert_array_equal(together.logits(others[0]), apart.logits(others[0]))


@pytest.mark.parametrize("names", [[10, 20, 30], ["a", "b", "c"]], ids=["ints", "strings"])
@pytest.mark.parametrize("finish", ["supernet", "inherited"])
def test_saved_and_loaded_it_is_the_same(cases, grey, others, tmp_path, names, finish):
    pixels, labels = cases.images((4, 2, 5))
    names = np.array(names)
    found = FewShotClassifier(grey, steps=1, finish=finish, random_state=3).fit(pixels, names[labels])
    found.save(tmp_path / "task")
    loaded = FewShotClassifier.load(tmp_path / "task")
    assert loaded.classes_.tolist() == names.tolist()
    assert (loaded.finish, loaded.finish_, loaded.random_state) == (finish, finish, 3)
    assert loaded.history_ == found.history_
    assert loaded.genotype_ == found.genotype_
    assert loaded.notes_ == found.notes_
    np.testing.assert_array_equal(loaded.logits(others[0]), found.logits(others[0]))
    assert loaded.score(others[0], names[others[1]]) == found.score(others[0], names[others[1]])


def test_a_loaded_one_says_why_it_cannot_be_finished_otherwise(learnt, tmp_path):
    learnt.save(tmp_path / "task")
    with pytest.raises(ConfigError, match="keeps no start: fit it anew"):
        FewShotClassifier.load(tmp_path / "task").discretise()


def test_it_is_not_saved_over_what_is_there(learnt, tmp_path):
    (tmp_path / "task").mkdir()
    with pytest.raises(RunError, match="exists"):
        learnt.save(tmp_path / "task")
    with pytest.raises(RunError, match="cannot be read"):
        FewShotClassifier.load(tmp_path / "task")


def test_more_than_512_images_saved_and_loaded(cases, grey, others, tmp_path):
    found = FewShotClassifier(grey, steps=0).fit(*cases.images((300, 300)))
    found.save(tmp_path / "task")
    loaded = FewShotClassifier.load(tmp_path / "task")
    assert len(loaded.task_.support.labels) == 512
    np.testing.assert_array_equal(loaded.logits(others[0]), found.logits(others[0]))


def test_a_deep_copy_answers_alike(learnt, others):
    """Through the same protocol that joblib sends an estimator to other processes with."""
    np.testing.assert_array_equal(copy.deepcopy(learnt).logits(others[0]), learnt.logits(others[0]))


@pytest.fixture(scope="module")
def finished(cases, tmp_path_factory):
    """Of one node, which is quicker to export."""
    name = cases.save_start(cases.make_start(1, model__nodes=1), tmp_path_factory.mktemp("starts"))
    adapted = FewShotClassifier(name, steps=1).fit(*cases.images((4, 2, 5)))
    return {"supernet": adapted, "inherited": adapted.discretise(steps=0)}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("finish", ["supernet", "inherited"])
@pytest.mark.parametrize("format", list(SUFFIXES))
def test_a_shipped_one_predicts_the_same(finished, others, tmp_path, format, finish):
    if format == "onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(name)
    path = tmp_path / f"model{SUFFIXES[format]}"
    found = finished[finish]
    check = found.export(path)
    assert (check.format, check.path) == (format, path)
    opened = open_model(path)
    logits = opened.logits(torch.tensor(others[0][:, None]))
    assert opened.facts["classes"] == ["0", "1", "2"]
    wanted = found.logits(others[0])
    np.testing.assert_allclose(logits, wanted, atol=1e-5 * np.abs(wanted).max())
    assert (found.classes_[logits.argmax(1)] == found.predict(others[0])).all()


def test_a_file_of_no_known_name_is_not_written(learnt, tmp_path):
    with pytest.raises(ModelError):
        learnt.export(tmp_path / "model.h5")
    with pytest.raises(ModelError, match="name ends in"):
        learnt.export(tmp_path / "model.onnx", "safetensors")
    assert not list(tmp_path.iterdir())


def test_colour_images_channels_last_or_first(cases, colour):
    pixels, labels = cases.images((4, 4), channels=3)
    last = FewShotClassifier(colour, steps=1).fit(pixels, labels)
    first = FewShotClassifier(colour, steps=1).fit(pixels.transpose(0, 3, 1, 2), labels)
    np.testing.assert_array_equal(last.logits(pixels), first.logits(torch.tensor(pixels).permute(0, 3, 1, 2)))


def test_notes_say_what_was_converted(cases, grey, dark):
    pixels, labels = cases.images((3, 3), channels=3)
    assert FewShotClassifier(grey, steps=0).fit(pixels, labels).notes_ == ["6 of 6 images in colour were made grey"]
    light = np.full((4, 16, 16), 255, np.uint8)
    light[:2, 4:9, 4:9] = 0
    light[2:, 4:9, 9:12] = 0
    light[::2, 5, 5] = 255
    found = FewShotClassifier(dark, steps=0).fit(light, [0, 0, 1, 1])
    assert found.notes_ == ["images have a light background, the start knows a dark one: they are inverted"]
    assert found.model_.facts["image"]["invert"] is True
    turned = FewShotClassifier(dark, steps=0).fit(255 - light, [0, 0, 1, 1])
    assert turned.notes_ == []
    np.testing.assert_array_equal(turned.logits(255 - light), found.logits(light))


def test_a_start_of_transductive_statistics_is_warned_of(cases, start, tmp_path):
    config = replace(start.config, model=replace(start.config.model, bn="transductive"))
    replace(start, config=config).save(tmp_path / "a.safetensors")
    found = FewShotClassifier(str(tmp_path / "a.safetensors"), steps=0).fit(*cases.images((3, 3)))
    assert "search with --set model.bn=support" in found.notes_[0]


def test_a_start_of_a_shared_head(cases, others, tmp_path):
    name = cases.save_start(cases.make_start(1, model__head="shared"), tmp_path)
    found = FewShotClassifier(name, steps=3, finish="inherited").fit(*cases.images((4, 2, 5)))
    assert found.logits(others[0]).shape == (18, 3)
    assert found.history_[-1]["loss"] <= found.history_[0]["loss"]


def test_a_dark_float_image_means_the_same_alone_as_among_others_and_slight_overshoots_are_clipped(grey):
    key = Key.from_seed(3).child("floats")
    images = key.numpy().uniform(0, 1, (8, 16, 16))
    bright = images * 200.0
    fitted = FewShotClassifier(grey, steps=1).fit(bright, [0, 1] * 4)
    dark = bright[:1] / 60.0
    assert 1 < dark.max() < 4
    np.testing.assert_allclose(fitted.logits(dark), fitted.logits(np.concatenate([dark, bright]))[:1], atol=1e-5)
    unit = FewShotClassifier(grey, steps=1).fit(images, [0, 1] * 4)
    over = images.copy()
    over[0, 0, 0] = 1.0005
    np.testing.assert_allclose(unit.logits(np.minimum(over, 1.0)), unit.logits(over), atol=1e-5)
    with pytest.raises(DataError, match=r"scale them alike"):
        unit.logits(bright)
    with pytest.raises(DataError, match=r"scale them alike"):
        fitted.logits(images[:1])


def test_two_classes_have_one_decision_value_and_a_roc_curve(grey):
    from sklearn.metrics import roc_auc_score

    images = Key.from_seed(4).child("auc").numpy().integers(0, 256, (12, 16, 16)).astype(np.uint8)
    labels = [0, 1] * 6
    fitted = FewShotClassifier(grey, steps=1).fit(images, labels)
    assert fitted.decision_function(images).shape == (12,)
    assert ((fitted.decision_function(images) > 0) == fitted.predict(images)).all()
    assert 0 <= roc_auc_score(labels, fitted.decision_function(images)) <= 1


def test_after_a_fit_on_bytes_a_float_image_means_the_same_alone_as_among_others(grey):
    images = Key.from_seed(5).child("bytes").numpy().integers(0, 256, (8, 16, 16)).astype(np.uint8)
    fitted = FewShotClassifier(grey, steps=1).fit(images, [0, 1] * 4)
    dark, bright = images[:1] / 255.0, images[1:].astype(np.float64)
    np.testing.assert_allclose(fitted.logits(dark), fitted.logits(images[:1]), atol=1e-5)
    np.testing.assert_allclose(fitted.logits(np.concatenate([dark, bright]))[:1], fitted.logits(dark), atol=1e-5)


def test_a_loaded_classifier_has_the_parameters_it_was_made_with(grey, tmp_path):
    images = Key.from_seed(6).child("saved").numpy().integers(0, 256, (8, 16, 16)).astype(np.uint8)
    fitted = FewShotClassifier(grey, steps=3, alpha_rate=2.0, random_state=4).fit(images, [0, 1] * 4, steps=1)
    fitted.save(tmp_path / "task")
    loaded = FewShotClassifier.load(tmp_path / "task")
    assert loaded.get_params() == fitted.get_params() | {"steps": 1}


COOLING = str(Path(__file__).parents[1] / "extension" / "plugins" / "cooling.py")


def test_a_start_with_a_plugin(cases, start, others, tmp_path):
    config = with_settings(replace(start.config, catalogue=load_plugins([COOLING])), {"relaxation.name": "cooling"})
    name = cases.save_start(replace(start, config=config), tmp_path)
    images, labels = cases.images((4, 2, 5))
    with pytest.raises(ConfigError, match="uses the plug-in 'cooling'"):
        FewShotClassifier(name).fit(images, labels)
    plugins = [COOLING]
    fitted = clone(FewShotClassifier(name, steps=1, plugins=plugins)).fit(images, labels)
    assert fitted.get_params()["plugins"] == plugins
    assert fitted.discretise(steps=0).finish_ == "inherited"
    fitted.save(tmp_path / "task")
    with pytest.raises(ConfigError, match="uses the plug-in 'cooling'"):
        FewShotClassifier.load(tmp_path / "task")
    loaded = FewShotClassifier.load(tmp_path / "task", plugins=plugins)
    assert loaded.plugins is plugins
    assert loaded.task_.config.build_network().relaxation == config.build_relaxation()
    np.testing.assert_array_equal(loaded.logits(others[0]), fitted.logits(others[0]))
    assert COOLING not in (tmp_path / "task" / "task.json").read_text()


@pytest.mark.parametrize("number", [np.float32(0.1), np.float64(0.1), torch.tensor(0.1), np.array(0.1)], ids=repr)
def test_numbers_of_numpy_and_torch_are_parameters_that_can_be_saved(cases, grey, tmp_path, number):
    pixels, labels = cases.images((3, 3))
    fitted = FewShotClassifier(grey, steps=np.int64(1), weight_rate=number, seconds=np.float32(60)).fit(pixels, labels)
    fitted.save(tmp_path / "task")
    assert FewShotClassifier.load(tmp_path / "task").weight_rate == pytest.approx(0.1)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_one_image_for_many_is_refused(cases, grey, tmp_path, kind):
    pixels, labels = cases.images((3, 3))
    fitted = FewShotClassifier(grey, steps=0).fit(pixels[..., None], labels)
    fitted.save(tmp_path / "task")
    for classifier in (fitted, FewShotClassifier.load(tmp_path / "task")):
        assert classifier.predict(kind(pixels[:1, ..., None])).shape == (1,)
        for one in (pixels[0][..., None], pixels[0][None], np.stack([pixels[0]] * 3, -1)):
            with pytest.raises(DataError, match=r"looks like one image: give image\[None\]"):
                classifier.predict(kind(one))


def test_images_without_a_channel_axis_are_still_many(cases, grey):
    pixels, labels = cases.images((3, 3))
    fitted = FewShotClassifier(grey, steps=0).fit(pixels, labels)
    assert fitted.predict(pixels[:3]).shape == (3,)
    assert fitted.predict(pixels[:1]).shape == (1,)


@contextmanager
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "float64": double,
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_the_program_around_us_set_in_torch_changes_no_bit(cases, grey, tmp_path, mode):
    pixels, labels = cases.images((3, 3))
    plain = FewShotClassifier(grey, steps=1).fit(pixels, labels)
    with MODES[mode]():
        before = torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        found = FewShotClassifier(grey, steps=1).fit(pixels, labels)
        found.save(tmp_path / "task")
        loaded = FewShotClassifier.load(tmp_path / "task")
        found.export(tmp_path / "model.safetensors")
        answers = [one.logits(pixels) for one in (found, loaded, plain)]
        shipped = open_model(tmp_path / "model.safetensors").logits(torch.from_numpy(pixels)[:, None])
        assert (
            torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        ) == before  # fmt: skip
    for answer in answers:
        np.testing.assert_array_equal(answer, plain.logits(pixels))
    assert shipped.dtype == torch.float32
