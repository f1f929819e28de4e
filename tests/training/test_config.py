"""Configurations: what is written is read back, and every mistake is named before anything runs."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from metadarts.core.errors import ConfigError
from metadarts.training import Config, load_config, preset, with_settings
from metadarts.training.choice import Choice
from metadarts.training.config import dump_config, to_settings
from metadarts.training.presets import PRESETS

OTHER = {
    "tasks.file": "1e3",
    "tasks.shots": 2,
    "macro.stem": (8, 10),
    "model.affine": True,
    "model.head": "prototype",
    "inner.clip": 2.5,
    "inner.weight_rate": 1e-05,
    "outer.clip": None,
    "training.minutes": 0.25,
    "training.seed": -3,
}


def changed(**groups):
    return with_settings(
        Config(), {f"{g}.{name}": value for g, values in groups.items() for name, value in values.items()}
    )


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("settings", [{}, OTHER, *PRESETS.values()], ids=["defaults", "all types", *PRESETS])
def test_what_is_written_is_read_back(file, settings):
    config = with_settings(Config(), settings)
    assert load_config(file(dump_config(config))) == config


def test_the_file_names_every_field_and_needs_no_tag():
    text = dump_config(with_settings(Config(), OTHER))
    assert "!" not in text
    table = yaml.safe_load(text)
    assert table == to_settings(with_settings(Config(), OTHER))
    assert set(table) == {field.name for field in dataclasses.fields(Config)} - {"catalogue"}


def test_a_file_may_leave_fields_to_their_defaults(file):
    assert load_config(file("inner:\n  steps: 3\n")) == changed(inner={"steps": 3})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("inner.step", "did you mean 'steps'"),
        ("training.metasteps", "did you mean 'meta_steps'"),
        ("inner.steps.more", "valid names: .*steps"),
        ("innner.steps", "did you mean 'inner.steps'"),
        ("steps", "unknown setting 'steps'"),
        ("inner.", "unknown setting 'inner.'"),
        ("", "unknown setting ''"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(text, hint):
    with pytest.raises(ConfigError, match=f"unknown setting '{text}'.*{hint}" if "unknown" not in hint else hint):
        with_settings(Config(), {text: 1})


def test_all_wrong_settings_are_named_at_once():
    wrong = {"inner.step": 1, "inner.steps": "many", "inner.order": "third", "macro.stem": 3, "inner.rule": "sdg"}
    with pytest.raises(ConfigError) as caught:
        with_settings(Config(), wrong | {"training.seed": 1})
    for path in wrong:
        assert path in str(caught.value)
    assert "training.seed" not in str(caught.value)
    assert "did you mean 'sgd'" in str(caught.value)


def test_all_values_out_of_range_are_named_at_once():
    config = changed(
        tasks={"ways": 1, "shots": 0, "queries": 0},
        model={"bn": "suport", "precision": "fp23", "head": "linear", "nodes": 0},
        training={"engine": "lop", "tasks": 0, "validations": 0, "validation_tasks": 1, "micro_batch": -1},
        evaluate={"steps": -1, "queries": 0, "batch": 0},
    )
    with pytest.raises(ConfigError) as caught:
        config.check()
    text = str(caught.value)
    assert "nodes must be at least 1, got 0" in text
    for group in ("tasks", "model", "training", "evaluate"):
        for name, value in to_settings(config)[group].items():
            if value != to_settings(Config())[group][name]:
                assert f"{group}.{name}" in text
    assert "training.meta_steps or training.minutes" in text
    assert "did you mean 'support'" in text
    assert "did you mean 'loop'" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "setting",
    [
        *(f"outer.{name}" for name in ("weight_rate", "alpha_rate", "rate_rate", "alpha_decay", "final", "clip")),
        "outer.alpha_warmup",
        "training.minutes",
        "training.meta_steps",
    ],
)
def test_nothing_below_zero_reaches_the_outer_loop(setting):
    """A negative rate would climb the loss without a word."""
    config = with_settings(Config(), {"training.meta_steps": 1, "training.minutes": 1.0, setting: -1})
    with pytest.raises(ConfigError, match=f"{setting}: expected "):
        config.check()


@pytest.mark.parametrize("path", ["outer.weight_rate", "outer.clip", "training.minutes"])
def test_a_number_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match=f"{path}: expected "):
        with_settings(Config(), {"training.meta_steps": 1, path: ".nan"}).check()


def test_an_odd_number_of_channels_is_named_as_the_file_names_it():
    with pytest.raises(ConfigError, match=r"macro\.channels: expected an even number from 2 on, got 5"):
        changed(model={"channels": 5}, training={"meta_steps": 1}).check()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inner.steps", 2.5),
        ("inner.steps", True),
        ("inner.steps", None),
        ("inner.steps", "none"),
        ("inner.steps", [3]),
        ("inner.weight_rate", True),
        ("inner.weight_rate", "fast"),
        ("inner.weight_rate", None),
        ("inner.order", 2),
        ("inner.order", None),
        ("inner.clip", "tight"),
        ("model.affine", 1),
        ("model.affine", "maybe"),
        ("macro.stem", [24, 4.8]),
        ("macro.stem", "[24, true]"),
        ("macro.stem", "[24, 48"),
        ("macro.stem", {"a": 1}),
        ("tasks.file", 3),
    ],
)
def test_a_value_of_another_type_is_refused(path, value):
    with pytest.raises(ConfigError, match=f"^{path}: expected "):
        with_settings(Config(), {path: value})


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("inner.steps", "3", 3),
        ("inner.weight_rate", "0.5", 0.5),
        ("inner.weight_rate", "2", 2.0),
        ("inner.weight_rate", "1e-3", 1e-3),
        ("inner.weight_rate", "1.0e-3", 1e-3),
        ("inner.clip", "none", None),
        ("inner.clip", "null", None),
        ("inner.clip", "1", 1.0),
        ("inner.learn_rates", "true", True),
        ("macro.stem", "[8, 16]", (8, 16)),
        ("tasks.file", "12", "12"),
        ("tasks.file", "none", "none"),
    ],
)
def test_text_becomes_the_type_of_its_field(path, text, value):
    group, name = path.split(".")
    section = getattr(with_settings(Config(), {path: text}), group)
    found = section.options[name] if isinstance(section, Choice) else getattr(section, name)
    assert found == value
    assert type(found) is type(value)


def test_a_whole_number_is_a_fine_float(file):
    found = load_config(file("inner:\n  weight_rate: 1\n  alpha_rate: 3e1\n")).inner
    assert (found.weight_rate, found.alpha_rate) == (1.0, 30.0)
    assert type(found.weight_rate) is float


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system", "!mine"]
)
def test_a_tag_is_refused_and_not_run(file, tmp_path, tag):
    marker = tmp_path / "marker"
    path = file(f"tasks: {tag} ['touch {marker}']\n" if "name" not in tag else f"tasks:\n  source: {tag} ''\n")
    with pytest.raises(ConfigError, match="expected a YAML file of settings"):
        load_config(path)
    assert not marker.exists()


@pytest.mark.parametrize("text", ["", "3", "- inner", "inner: 3", "inner:", "inner: [steps]", "null"])
def test_a_file_of_something_else_is_refused(file, text):
    with pytest.raises(ConfigError, match="expected groups of settings") as caught:
        load_config(file(text))
    groups = {field.name for field in dataclasses.fields(Config)} - {"catalogue"} | {"plugins"}
    assert all(group in str(caught.value) for group in groups)
    assert ("for 'inner'" in str(caught.value)) == text.startswith("inner"), "the group at fault is named"


@pytest.mark.parametrize("settings", [{"model.network": "conv4"}, {"macro.name": "conv4"}])
def test_conv4_takes_the_settings_that_it_took(settings):
    config = with_settings(Config(), settings)
    assert with_settings(config, {"model.stem": "[4, 8]"}) == config
    with pytest.raises(ConfigError, match=r"set macro\.name too"):
        with_settings(config, {"model.network": "supernet"})
    assert with_settings(config, {"model.network": "supernet", "macro.name": "tnas"}) == Config()


@pytest.mark.parametrize("content", [b"inner: {steps: 3", b"\xff\xfe\x00", b"a: b: c"])
def test_unreadable_text_gives_one_line(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="could not read it") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_config(tmp_path / "gone.yaml")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    with_settings(Config(), preset(name)).check()


def test_an_unknown_preset_is_met_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown preset 'quik': did you mean 'quick'"):
        preset("quik")


def test_a_preset_is_a_copy():
    preset("quick")["inner.steps"] = 99
    assert preset("quick")["inner.steps"] != 99


def test_settings_leave_the_given_configuration_alone():
    config = Config()
    with_settings(config, {"inner.steps": 7})
    assert config == Config()
