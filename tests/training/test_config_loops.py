"""Settings of the inner and the outer loop: rates of groups and their short form, rules, warm-up, decays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from metadarts.core.errors import ConfigError
from metadarts.optim import momentum
from metadarts.training import Config, load_config, preset, with_settings
from metadarts.training.config import dump_config
from metadarts.training.presets import PRESETS

LENGTH = {"training.meta_steps": 1}


def rates(**settings):
    return with_settings(Config(), {name.replace("__", "."): value for name, value in settings.items()}).inner.rates


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rates_of_groups_have_a_short_form_in_a_file(file):
    found = load_config(file("inner: {rates: {head: 0.1, body: 0, alphas: 30}, steps: 3}\n")).inner
    assert found.rates == {"head": 0.1, "body": 0.0, "alphas": 30.0}
    assert (found.head_rate, found.weight_rate, found.alpha_rate, found.steps) == (0.1, 0.0, 30.0, 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"inner__rates__head": "0.2"}, {"head": 0.2, "body": 0.1, "alphas": 30.0}),
        ({"inner__rates__head": "none"}, {"head": 0.1, "body": 0.1, "alphas": 30.0}),
        ({"inner__rates__body": 0}, {"head": 0.0, "body": 0.0, "alphas": 30.0}),
        ({"inner__rates": "{head: 1e-2, body: 0}"}, {"head": 0.01, "body": 0.0, "alphas": 30.0}),
        ({"inner__rates": {"alphas": 1}, "inner__rates__body": 2}, {"head": 2.0, "body": 2.0, "alphas": 1.0}),
        ({"inner__rates": {}}, {"head": 0.1, "body": 0.1, "alphas": 30.0}),
    ],
)
def test_rates_of_groups_can_be_set_one_by_one(settings, expected):
    assert rates(**settings) == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("inner.rates", {"heads": 1.0}, "unknown setting 'inner.rates.heads': did you mean 'head'"),
        ("inner.rates.weights", 1.0, "unknown setting 'inner.rates.weights': .*valid names: alphas, body, head"),
        ("inner.rates", 0.1, "inner.rates: expected the rates of groups as .*, got 0.1"),
        ("inner.rates", "[0.1, 0.2]", "inner.rates: expected the rates of groups"),
        ("inner.rates", "{head: ", "expected the rates of groups"),
        ("inner.rates", {"head": "fast"}, "inner.head_rate: expected float | None, got 'fast'"),
        ("inner.rates", {"body": None}, "inner.weight_rate: expected float"),
        ("inner.rates.head", -1, "inner.head_rate: .*rates: expected finite numbers from 0 on"),
        ("inner.rule", "adamm", "inner.rule: unknown update rule 'adamm': did you mean 'adam'"),
        ("inner.rule", 3, "inner.rule: expected str"),
        ("inner.decay", -0.1, "inner.decay: .*decay: expected a finite number from 0 on"),
        ("inner.schedule", "cosin", "inner.schedule: .*did you mean 'cosine'"),
        ("inner.alpha_images", "half", "inner.alpha_images: .*alpha_images 'half' is unknown"),
        ("outer.rule", "sdg", "outer.rule: unknown update rule 'sdg': did you mean 'sgd'"),
        ("outer.rule", None, "outer.rule: expected str"),
        ("outer.rule", "exponentiated", "outer.rule: outer loop: .* for alphas alone"),
        ("outer.alpha_rule", "sdg", "outer.alpha_rule: unknown update rule 'sdg': did you mean 'sgd'"),
        ("inner.alpha_rule", 3, "inner.alpha_rule: expected str"),
        ("inner.rule", "exponentiated", "inner.rule: inner loop: .* for alphas alone"),
    ],
)
def test_wrong_settings_are_named(path, value, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(Config(), {path: value})


DECAYS = ("alpha_decay", "weight_decoupled_decay", "alpha_decoupled_decay")


@pytest.mark.parametrize("name", [*DECAYS, "warmup"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_no_decay_or_warm_up_is_below_zero(name, value):
    with pytest.raises(ConfigError, match=f"outer.{name}: expected at least 0"):
        with_settings(Config(), LENGTH | {f"outer.{name}": value}).check()


def test_a_warm_up_is_a_share_of_the_run_and_a_decay_no_slip():
    with pytest.raises(ConfigError, match=r"outer\.warmup: expected a share of the run, at most 1, got 20") as caught:
        with_settings(Config(), LENGTH | {"outer.warmup": 20, "outer.alpha_decoupled_decay": 1e6}).check()
    assert "outer.alpha_decoupled_decay: expected at most 1000" in str(caught.value)


def test_a_rule_that_is_an_object_cannot_be_written_down():
    settings = LENGTH | {"inner.rule": "momentum"}
    assert with_settings(Config(), settings).check().inner.rule == "momentum"
    config = with_settings(Config(), settings)
    for group in ("inner", "outer"):
        for name in ("rule", "alpha_rule"):
            changed = replace(config, **{group: replace(getattr(config, group), **{name: momentum()})})
            with pytest.raises(ConfigError, match=f"{group}.{name}: expected the name of a rule"):
                changed.check()


def test_l2_decay_of_alphas_on_the_simplex_is_refused_in_whatever_order_it_is_set():
    start = with_settings(Config(), preset("tnas") | {"outer.alpha_rule": "exponentiated"})
    with pytest.raises(ConfigError, match=r"configuration: outer\.alpha_decay: rule 'exponentiated' moves points"):
        start.check()
    assert with_settings(start, {"outer.alpha_decay": 0.0}).check().outer.alpha_rule == "exponentiated"


def test_what_is_written_is_read_back(file):
    loops = {
        "inner.rates": {"head": 0.2, "body": 0.0},
        "inner.rule": "adamw",
        "inner.decay": 0.1,
        "inner.schedule": "cosine",
        "inner.alpha_images": "two-fold",
        "tasks.shots": 2,
        "inner.alpha_rule": "exponentiated",
        "outer.rule": "sgd",
        "outer.alpha_rule": "exponentiated",
        "outer.warmup": 0.1,
        "outer.weight_decoupled_decay": 0.02,
        "outer.alpha_decoupled_decay": 0.01,
    }
    config = with_settings(Config(), LENGTH | loops).check()
    text = dump_config(config)
    assert load_config(file(text)) == config
    assert yaml.safe_load(text)["inner"]["head_rate"] == 0.2
    assert with_settings(config, {"inner.alpha_rule": "none"}).inner.alpha_rule is None


def test_two_folds_need_a_second_image_where_alphas_move():
    settings = LENGTH | {"inner.alpha_images": "two-fold", "tasks.shots": 1}
    with pytest.raises(ConfigError, match=r"second support image per class, got tasks.shots 1; set tasks.shots to 2"):
        with_settings(Config(), settings).check()
    with_settings(Config(), settings | {"inner.alpha_rate": 0.0}).check()
    with_settings(Config(), settings | {"tasks.shots": 2}).check()


def test_alphas_decay_in_tnas_alone():
    decays = {name: with_settings(Config(), preset(name)).outer.alpha_decay for name in PRESETS}
    assert Config().outer.alpha_decay == 0.0
    assert decays.pop("tnas") == 1e-3
    assert set(decays.values()) == {0.0}
