"""A report in a real browser: every picture loads, nothing is complained of, and no script runs.

Chromium without a window is spoken to in its DevTools protocol over a pipe: no package, no port.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from metadarts.core.rng import Key
from metadarts.report import write_report
from metadarts.spaces import darts
from metadarts.training import RunFolder, open_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
SECONDS = 600.0


def find_browser() -> str | None:
    """The first Chromium there is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of the browser; ``complaints`` collects what it logs as errors."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._waiting, self._number = write, read, b"", 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Show the file ``path`` and wait until everything in it has loaded."""
        self._loaded = False
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._hear()

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it resolves to."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard
                return heard["result"]

    def _hear(self) -> dict[str, Any]:
        """The next message; an error among the events becomes a complaint."""
        limit = time.monotonic() + SECONDS
        while b"\0" not in self._waiting:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            assert time.monotonic() < limit, "the browser does not answer"
            self._waiting += part
        text, _, self._waiting = self._waiting.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        if method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            self.complaints.append(json.dumps(params))
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        return message


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of 3 and 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


@contextmanager
def browser(program: str, folder: Path, *flags: str) -> Iterator[Tab]:
    """A browser with a profile of its own in ``folder``; it ends with the block."""
    (their_read, our_write), (our_read, their_write) = _pipe(), _pipe()
    # The browser reads from descriptor 3 and writes to 4; the shell puts the pipes there.
    script = f'exec "$@" 3<&{their_read} 4>&{their_write}'
    command = ["bash", "-c", script, "bash", program, *FLAGS, f"--user-data-dir={folder}", *flags, "about:blank"]
    process = subprocess.Popen(
        command,
        pass_fds=(their_read, their_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_read)
    os.close(their_write)
    try:
        yield Tab(our_write, our_read)
    finally:
        os.close(our_write)
        os.close(our_read)
        process.kill()
        process.wait()


EVIL = "<script>document.title='run'</script><img src=x onerror=document.title='run'>"
PICTURES = """Promise.all([...document.images].map(image => image.decode())).then(() =>
  [...document.images].map(image => [image.alt, image.naturalWidth, image.getBoundingClientRect().height]))"""


@pytest.fixture
def report(make, tmp_path) -> Path:
    """The page of a run of two validations whose configuration holds markup."""
    experiment, space = make(), darts(2)
    run = RunFolder.create(tmp_path / "run", experiment.config, {EVIL: EVIL})
    run.save("best", experiment.fresh_state(), validation_accuracy=0.5)
    noise = torch.randn(3, 2, *space.alpha_shape, generator=Key.from_seed(0).torch()).tolist()
    for step in (1, 2):
        run.record(kind="alphas", step=step, **dict(zip(space.cell_types, noise[step], strict=True)))
        run.record(kind="train", step=step, loss=1.0 / step, accuracy=0.5, gradient_weights=2.0, rates={EVIL: 1.0})
        run.record(kind="validate", step=step, accuracy=0.5, interval95=0.1, curve_accuracy=[0.2, 0.5])
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("source: glyphs", f'source: "{EVIL}"'))
    assert run.config().tasks.source == EVIL
    return write_report(open_run(run.path))


def test_a_browser_shows_every_picture_and_complains_of_nothing(report, tmp_path, record_property):
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    started = time.monotonic()
    with browser(program, tmp_path / "profile", "--window-size=1000,800") as tab:
        tab.open(report)
        pictures = tab.value(PICTURES)
        assert len(pictures) == report.read_text(encoding="utf-8").count("<img ") >= 10
        assert all(width > 0 and height > 50 for _, width, height in pictures), pictures
        assert tab.value("document.title").startswith("<script>")
        assert tab.value("document.scripts.length") == 0
        assert tab.value("getComputedStyle(document.querySelector('figure')).borderTopStyle") == "solid"  # styled
        assert tab.value("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints == []
        with Image.open(io.BytesIO(tab.picture())) as screen:
            assert screen.width == 1000
            assert screen.height > 3000
            assert len(screen.convert("RGB").getcolors(1 << 24)) > 500
        record_property("seconds in the browser", round(time.monotonic() - started, 1))


def test_the_browser_would_complain(tmp_path):
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    page = tmp_path / "bad.html"
    page.write_text("<img src='data:image/png;base64,AAAA'><img src='gone.png'><script>throw 1</script>")
    with browser(program, tmp_path / "profile") as tab:
        tab.open(page)
        assert tab.value("[...document.images].map(image => image.naturalWidth)") == [0, 0]
        assert len(tab.complaints) >= 2
