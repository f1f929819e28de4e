"""The tail of an error message: the nearest valid name, and all of them."""

from __future__ import annotations

import pytest

from metadarts.core import errors
from metadarts.core.errors import MetadartsError, nearest


def test_nearest_names_the_close_one_and_lists_all_in_order():
    assert nearest("ddarts", ["nb201", "darts"]) == "did you mean 'darts'? valid names: darts, nb201"


def test_nothing_close_gives_the_list_alone():
    assert nearest("zzz", ("b", "a")) == "valid names: a, b"


def test_any_iterable_will_do():
    assert nearest("on", {"one": 1, "two": 2}) == nearest("on", iter(["two", "one"]))


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "GenotypeError", "RunError", "NumericsError"])
def test_every_error_is_a_metadarts_error(name):
    assert issubclass(getattr(errors, name), MetadartsError)
