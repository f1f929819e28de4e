"""The list of settings: complete, true, and each with its meaning."""

from __future__ import annotations

import pytest

from metadarts.training import Config, preset, with_settings
from metadarts.training.choice import options_of
from metadarts.training.config import CHOICES, table_of, to_settings
from metadarts.training.listing import arguments_of, list_settings
from metadarts.training.presets import PRESETS


@pytest.mark.parametrize("name", ["quick", "tnas"])
def test_the_list_is_the_configuration(name):
    config = with_settings(Config(), preset(name))
    told = {path: value for path, value, _ in list_settings(config)}
    written = {f"{group}.{key}": value for group, part in to_settings(config).items() for key, value in part.items()}
    assert {path: list(value) if isinstance(value, tuple) else value for path, value in told.items()} == written


def test_every_setting_has_a_meaning():
    silent = [one.path for one in list_settings(Config()) if not one.meaning]
    silent += [
        f"{group}.{option} of {name}"
        for group in CHOICES
        for name, entry in table_of(Config(), group).items()
        for option in options_of(entry, CHOICES[group])
        if not arguments_of(entry).get(option)
    ]
    assert not silent


def test_a_meaning_is_one_line_and_ends_where_the_next_begins():
    def described(first: int, second: int, third: int) -> None:
        """What it does.

        Args:
            first, second: two of them, which
                take two lines: so.
            third: one.

        Raises:
            ValueError: never.
        """

    both = "two of them, which take two lines: so."
    assert arguments_of(described) == {"first": both, "second": both, "third": "one."}


def test_settings_listed_can_be_given():
    config = Config()
    for name in PRESETS:
        own = with_settings(config, preset(name))
        given = {setting.path: setting.text for setting in list_settings(own)}
        assert with_settings(config, given) == own
