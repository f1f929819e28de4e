"""Ctrl-C, SIGTERM and a closed terminal, as a polite request to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 1.0
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class StopRequest:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + (self.signal or 0)


@contextmanager
def ended_by_sigterm() -> Iterator[StopRequest]:
    """Let SIGTERM end the program as an exception does, exit code 143, so that what is half-written is removed.

    Yields whether it came: where the exception passes through code that turns it into another, as imports do.
    """
    request = StopRequest()

    def end(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is cleaned up now is not interrupted again
        raise SystemExit(request.exit_code)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield request
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """The first signal is only noted. A second Ctrl-C, a second or more after it, acts at once.

    Other repetitions are left alone: a closed terminal, and some programs, send their signal twice.
    """
    request = StopRequest()
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    usual = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if request.signal is None:
            request.signal, request.since = number, now
        elif number == signal.SIGINT and now - request.since >= PATIENCE:
            raise KeyboardInterrupt

    for number in numbers:
        if usual[number] is not signal.SIG_IGN:  # nohup's wish to survive the terminal stands
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
