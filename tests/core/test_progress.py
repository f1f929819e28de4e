"""Progress as shares and words, and of parts within a whole."""

from __future__ import annotations

import math

import pytest

from metadarts.core.progress import Progress, tell, tell_images, tell_mean, within


def test_share_and_words():
    assert (Progress(3, 12).share, Progress(3, 12).text) == (0.25, "3/12")
    assert Progress(3, 12, figures="three").text == "three"
    assert Progress(0, 0).share == 0.0, "nothing to do"


def test_what_is_told():
    told: list[Progress] = []
    tell(told.append, 1, 2)
    tell_images(told.append, 3, 4)
    tell_mean(told.append, 5, 10, 0.5)
    assert [now.text for now in told] == ["1/2", "3/4 images", "5 tasks  50.00%"]
    assert math.isnan(told[1].value)
    assert (told[2].value, told[2].share) == (0.5, 0.5)
    tell(None, 1, 2)


def test_parts_of_parts():
    told: list[Progress] = []
    half = within(told.append, 0.5, 0.5, "second half")
    within(half, 0.0, 0.5)(Progress(1, 2, 0.25))
    (now,) = told
    assert (now.share, now.value, now.text) == (0.625, 0.25, "second half")
    within(told.append, 0.5, 0.5)(Progress(1, 2))
    assert told[-1].text == "1/2", "the words of the part, where the whole has none"
    within(None, 0.0, 1.0)(Progress(1, 2))


def test_a_watch_may_stop_the_work():
    def stop(now: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell(within(stop, 0.0, 1.0), 1, 2)
