"""What TensorBoard shows of a run: every record as curves, the alphas and the derived cell as pictures.

TensorBoard's own writer hands records to a thread; where the disk is full, that thread prints a traceback and the run
hears of it later or never. Here a record is written before `TensorBoardWriter.add` returns, and a failure is one error.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metadarts.core.errors import RunError
from metadarts.core.types import FINISHED, with_alphas
from metadarts.networks import Network
from metadarts.spaces import Genotype
from metadarts.store.files import cannot_write
from metadarts.viz import CellMoment, Picture, draw_alphas, draw_curve, draw_fading_cells, draw_genotype, draw_history

from .lenient import as_alphas, as_number, as_numbers, as_step
from .sharpness import NAMES, measures, sharpness_panels

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch import Tensor

DPI = 90
PLACES = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "finite_tasks": "train/finite_tasks",
    "gradient_": "gradient_norm/",
    "entropy_": "alphas/entropy_",
    "share_": "alphas/share_",
    "margin_": "alphas/margin_",
    "skips_": "alphas/skips_",
    "mixing_": "mixing/",
}
"""Where a field of a "train" record goes; a name that ends in _ is the start of the field's. Under "alphas" stand the
final scores, under "mixing" the mixing weights in use."""


EVENTS = "events.out.tfevents."


class TensorBoardWriter:
    """An event file of a run, written record by record.

    Args:
        path: the run folder.
        network: whose alphas they are.
        purge_step: for a resumed run, its first step: TensorBoard hides what older files hold from it on.
        earlier: for a resumed run, its "alphas" records so far: pictures over the run begin with them.

    Raises:
        RunError: when the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        network: Network,
        purge_step: int | None = None,
        earlier: Iterable[dict[str, Any]] = (),
    ) -> None:
        self._network = network
        self._space, self._relaxation, self._operations = network.space, network.relaxation, network.operations
        self._drawn: Genotype | None = None
        self._sharpness = [measures(record) for record in earlier]
        self._events = _EventFile(path, purge_step)

    def add(self, record: dict[str, Any]) -> None:
        """Show ``record``, a line of metrics.jsonl; kinds, fields and values that it does not know are left out.

        Raises RunError when the event file cannot be written; it is then closed, and `close` has nothing left to do.
        """
        step, kind = as_step(record), record.get("kind")
        if step is None:
            return
        if kind == "train":
            self._events.write(step, dict(_train_scalars(record)), {})
        if kind == "validate":
            self._events.write(step, dict(_validate_scalars(record)), {})
            self._add_curves(step, record)
        if kind == "alphas":
            self._add_alphas(step, record)

    def close(self) -> None:
        """Close the event file; a second call does nothing. Raises RunError when the system could not write it."""
        self._events.close()

    def _add_curves(self, step: int, record: dict[str, Any]) -> None:
        curve = as_numbers(record.get("curve_accuracy"))
        if curve:
            picture = Picture(dpi=DPI)
            title = f"adapting to validation tasks, meta-step {step}"
            draw_curve({"query accuracy": curve}, picture, xlabel="inner step", ylabel="accuracy", title=title)
            self._events.write(step, {}, {"inner/query_accuracy": picture})

    def _add_alphas(self, step: int, record: dict[str, Any]) -> None:
        """The final scores of every cell, how far they have chosen over the run, and the derived cell if it is another
        than the one drawn last."""
        from metadarts.derive import derive_genotype

        alphas = as_alphas(record, self._space)
        if alphas is None:
            return
        pictures = {}
        for cell in self._space.cell_types:
            pictures[f"alphas/{cell}"] = Picture(dpi=DPI)
            alone = replace(self._space, cell_types=(cell,))
            own = {decision.name: alphas[decision.name] for decision in alone.decisions}
            draw_alphas(own, alone, pictures[f"alphas/{cell}"], f"meta-step {step}", self._relaxation)
        genotype = derive_genotype(alphas, self._space, self._relaxation).canonical()
        if genotype != self._drawn:
            pictures["genotype"] = Picture(dpi=DPI)
            draw_genotype(
                genotype, pictures["genotype"], f"derived at meta-step {step}",
                inputs=self._space.inputs, operations=self._operations,
            )  # fmt: skip
            self._drawn = genotype
        if pictured := self._fading(record, alphas):
            pictures["alphas/cells"] = pictured
        self._sharpness.append(measures(record))
        if panels := sharpness_panels(self._sharpness, self._space):
            pictures["alphas/over the run"] = Picture(dpi=DPI)
            draw_history(panels, pictures["alphas/over the run"], title="how far the alphas have chosen")
        self._events.write(step, dict(_alpha_scalars(record)), pictures)

    def _fading(self, record: dict[str, Any], alphas: dict[str, Tensor]) -> Picture | None:
        """The supernet's cells by the mixing weights in use; None where the record does not say how far the run was."""
        progress = as_number(record.get("progress"))
        if progress is None or not self._network.mixes:
            return None
        at, picture = FINISHED._replace(progress=progress), Picture(dpi=DPI)
        weights = self._network.weights_of(with_alphas({}, alphas), at)
        moments = [CellMoment(NAMES[cell], table) for cell, table in weights.items()]
        title = f"weights in use at meta-step {record['step']}"
        draw_fading_cells(moments, self._space, picture, title, operations=self._operations)
        return picture


def _alpha_scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of what an "alphas" record alone measures."""
    if (number := as_number(record.get("stability"))) is not None:
        yield "alphas/stability", number


def _train_scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of everything that a "train" record measures."""
    for name, value in record.items():
        place, number = _place(name), as_number(value)
        if place and number is not None:
            yield place, number
    yield from _by_step("inner/support_loss", record.get("support_losses"))
    rates = record.get("rates")
    for name, value in rates.items() if isinstance(rates, dict) else ():
        number = as_number(value)
        yield from _by_step(name.replace(".", "/"), value) if number is None else [(name.replace(".", "/"), number)]


def _place(name: str) -> str:
    for start, place in PLACES.items():
        if name == start or (start.endswith("_") and name.startswith(start)):
            return place + name.removeprefix(start)
    return ""


def _validate_scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of everything that a "validate" record measures."""
    for name in ("accuracy", "interval95"):
        number = as_number(record.get(name))
        if number is not None:
            yield f"validate/{name}", number
    yield from _by_step("inner/query_accuracy", record.get("curve_accuracy"))
    yield from _by_step("inner/query_loss", record.get("curve_loss"))


def _by_step(tag: str, values: Any) -> Iterator[tuple[str, float]]:
    for step, value in enumerate(as_numbers(values)):
        yield f"{tag}/{step}", value


def _last_second(folder: Path) -> int:
    """The latest second that an event file of ``folder`` is named after; 0 where there is none."""
    named = (path.name.removeprefix(EVENTS).partition(".")[0] for path in folder.glob(f"{EVENTS}*"))
    return max((int(second) for second in named if second.isdecimal()), default=0)


class _EventFile:
    """TensorBoard's file format, written without its thread: a record is with the system when `write` returns."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads files by name: a clock that was set back must not put this one before the others.
        now = time.time()
        self._ahead = max(0.0, _last_second(folder) + 1 - now)
        second = int(now + self._ahead)
        self._path = folder / f"{EVENTS}{second:010d}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            self._writer = RecordWriter(self._path.open("xb"))
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._put(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._put(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: dict[str, float], pictures: dict[str, Picture]) -> None:
        """One event. Raises RunError."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        values += [Summary.Value(tag=tag, image=_image(picture)) for tag, picture in pictures.items()]
        if values:
            self._put(Event(step=step, summary=Summary(value=values)))

    def _put(self, event: Any) -> None:
        if self._writer.closed:
            raise RunError(f"{self._path} is closed: nothing can be added after close, or after a failure")
        event.wall_time = time.time() + self._ahead
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            with suppress(OSError):  # what is left in the buffer is reported as lost with the rest
                self._writer.close()
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            if not self._writer.closed:
                self._writer.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _image(picture: Picture) -> Summary.Image:
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = picture.getvalue()
    width, height = struct.unpack(">II", content[16:24])  # where a PNG keeps them
    return Summary.Image(encoded_image_string=content, width=width, height=height, colorspace=4)
