"""AutoKeras on one draw of `draws`, for so many seconds: a script for an environment of its own, without metadarts.

    python -m venv AK && AK/bin/pip install 'autokeras>=3' tensorflow-cpu
    AK/bin/python benchmarks/new_task/autokeras_peer.py DRAW.npz --seconds 60 --threads 1 --out ROW.jsonl

Keras runs on TensorFlow. `autokeras.ImageClassifier` searches as it does by default (the tuner of its task, its block
choices, early stopping, validation loss), with these settings:

* As many trials as the time allows. The clock runs from when the libraries are imported, starts no trial after the end,
  and stops a running one after a batch; its best epoch counts, where one had ended. A process that does not come back
  then (one batch of a large network can take minutes) is ended, and its trials are read from its files.
* One image of every class validates.
* A trial that is the best so far is fitted anew to all images, for its best number of epochs, as AutoKeras does with
  the best of all after the search if it may split off the validation images itself. It is done at once, for a search
  that is ended from outside to have it, and left out where the time is too short. Version 3.0.0 predicts with the
  weights of the trial all the same; here the network fitted anew predicts, and the row has the other accuracy besides.
* Nothing is downloaded: a trial that asks for pretrained weights fails at once and the search goes on.
* Batches of about an eighth of the training images: AutoKeras's 32 would make an epoch one step, and early stopping
  waits for ten epochs.
* AutoKeras 3.0.0 gives Keras sizes as numpy's numbers, which Keras 3.15 refuses; they become Python's. Its tuner
  imports tensorboard, which TensorFlow 2.21 does not bring, for a folder that nothing here needs; it does without.

A line of ROW.jsonl: draw, seconds_allowed, seconds (until search and fit were over), accuracy, accuracy_of_trial
(without the fit to all images), trials (that ended by themselves), trials_stopped (by the clock), trials_failed,
failures (message to count), best (the hyperparameters), happened, threads, seed, batch, versions.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

SEED = 1
"""AutoKeras takes 0 for none."""

MANY = 1_000_000
EPOCHS = "epochs.jsonl"
REPORT = "report.json"
PACKAGES = ("autokeras", "keras", "keras-tuner", "tensorflow-cpu", "tensorflow", "numpy")
REFIT_COST = 0.8
"""Of the time of the trial up to its best epoch: no validation, and no weights written after every epoch."""

_GRACE = 2.0
"""Seconds that a search that is told to stop may take to write its files, at least; also 2 % of the time allowed."""

Arrays = dict[str, Any]


def main() -> None:
    """Read the command line, fit, predict, and add a line to the file of rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("draw", type=Path, help="a file that benchmarks.new_task.draws has written")
    parser.add_argument("--seconds", type=float, required=True, help="for search and training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, help="default: an eighth of the training images, at least 4")
    parser.add_argument("--out", type=Path, required=True, help="file of rows to add to")
    options = parser.parse_args()
    row = measure(options.draw, options.seconds, options.threads, options.batch)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    print(json.dumps({name: row[name] for name in ("draw", "seconds", "accuracy", "trials", "happened")}))


def measure(draw: Path, seconds: float, threads: int, batch: int | None = None) -> dict[str, Any]:
    """The row of one draw."""
    _environment(threads)
    with np.load(draw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    batch = batch or _batch(len(arrays["support"]))
    with tempfile.TemporaryDirectory(prefix="autokeras-") as folder:
        place = Path(folder)
        used, ended = _search_within(arrays, seconds, threads, batch, place)
        with _written_to(place / "log"):
            found = _predict(arrays, threads, place)
        report = _tallied(place, ended)
        if "error" in report:
            found["happened"] += f"; the search broke off: {report.pop('error')}"
        if not ended:
            found["happened"] += "; ended from outside, within a batch or a build"
    settings = {"threads": threads, "seed": SEED, "batch": batch}
    times = {"draw": draw.stem, "seconds_allowed": round(seconds, 3), "seconds": round(used, 3)}
    return {**times, **found, **report, **settings, "versions": _versions()}


def _environment(threads: int) -> None:
    """For this process and its children, before either imports Keras."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ImportError:  # a package that is not installed
            continue
    return found


def _batch(images: int) -> int:
    return max(4, round(images * 0.8 / 8))


# ------------------------------------------------------------------------------------------------------------- search


def _search_within(arrays: Arrays, seconds: float, threads: int, batch: int, place: Path) -> tuple[float, bool]:
    """Search in a process of its own; the seconds it took after its imports, and whether it ended by itself."""
    context = multiprocessing.get_context("spawn")
    imported = context.Event()
    process = context.Process(target=_search, args=(arrays, seconds, threads, batch, place, imported), daemon=True)
    process.start()
    while not imported.wait(0.05):
        if not process.is_alive():
            raise RuntimeError(f"AutoKeras could not be imported:\n{(place / 'log').read_text(encoding='utf-8')}")
    start = time.perf_counter()
    process.join(seconds + max(_GRACE, 0.02 * seconds))
    used, ended = time.perf_counter() - start, not process.is_alive()
    if not ended:
        process.kill()
        process.join()
    return used, ended


def _search(arrays: Arrays, seconds: float, threads: int, batch: int, place: Path, imported: Event) -> None:
    with _written_to(place / "log"):
        _search_aloud(arrays, seconds, threads, batch, place, imported)
    os._exit(0)  # TensorFlow's own end takes seconds


@contextmanager
def _written_to(log: Path) -> Iterator[None]:
    """What is printed meanwhile, by libraries too, goes to ``log``."""
    streams = [sys.stdout.fileno(), sys.stderr.fileno()]
    before = [os.dup(number) for number in streams]
    with log.open("a", encoding="utf-8") as file:
        for number in streams:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            for number, old in zip(streams, before, strict=True):
                os.dup2(old, number)
                os.close(old)


def _search_aloud(arrays: Arrays, seconds: float, threads: int, batch: int, place: Path, imported: Event) -> None:
    autokeras = _libraries(threads)
    tuner = _tuner_class()
    imported.set()
    fitted, validated = _split(arrays)
    images, labels = _with_channels(arrays["support"]), arrays["support_labels"]
    tuner.place, tuner.deadline = place, time.perf_counter() + seconds
    tuner.everything = {"x": images, "y": labels, "batch_size": batch, "verbose": 0}
    report: dict[str, Any] = {}
    try:
        classifier = autokeras.ImageClassifier(
            max_trials=MANY, tuner=tuner, seed=SEED, directory=place, project_name="search", overwrite=True
        )
        classifier.fit(*fitted, validation_data=validated, batch_size=batch, verbose=0)
    except _SearchOver:
        pass
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    (place / REPORT).write_text(json.dumps(report), encoding="utf-8")


def _libraries(threads: int) -> Any:
    autokeras, keras, tensorflow = (import_module(name) for name in ("autokeras", "keras", "tensorflow"))
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(SEED)
    return autokeras


def _split(arrays: Arrays) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Images and labels to fit, and those to validate: one of every class, the rest in random order."""
    images, labels = _with_channels(arrays["support"]), arrays["support_labels"]
    order = np.random.default_rng(SEED).permutation(len(labels))
    validated = np.array([order[labels[order] == label][-1] for label in np.unique(labels)])
    fitted = order[~np.isin(order, validated)]
    return (images[fitted], labels[fitted]), (images[validated], labels[validated])


def _with_channels(images: Any) -> Any:
    return images if images.ndim == 4 else images[..., None]


class _SearchOver(Exception):
    """AutoKeras would go on to load the best network, which is done elsewhere."""


def _tuner_class() -> Any:
    """AutoKeras's tuner for images, with a clock and a log of epochs; a function, for the late import."""
    keras: Any = import_module("keras")
    task_specific: Any = import_module("autokeras.tuners.task_specific")
    errors: Any = import_module("keras_tuner.errors")

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        """Stops a training at the deadline, and keeps whether it did."""

        def __init__(self, deadline: float) -> None:
            super().__init__()
            self.deadline, self.stopped = deadline, False

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.perf_counter() > self.deadline:
                self.model.stop_training = self.stopped = True

    class Clocked(task_specific.ImageClassifierTuner):  # type: ignore[misc]
        """The attributes of the class are set before the first use."""

        place: Path
        deadline: float
        everything: dict[str, Any]

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.oracle.max_consecutive_failed_trials = None
            self.begun, self.epochs, self.stopped = 0.0, 0, False

        def _over(self) -> bool:
            return time.perf_counter() > self.deadline

        def pre_create_trial(self) -> None:
            if self._over():
                self.oracle.max_trials = max(1, len(self.oracle.trials))

        def on_trial_begin(self, trial: Any) -> None:
            self.begun, self.epochs, self.stopped = time.perf_counter(), 0, False
            self._log(trial)
            super().on_trial_begin(trial)

        def _try_build(self, hp: Any) -> Any:
            wanted = [name for name, value in hp.values.items() if name.endswith("/pretrained") and value]
            known = {entry.name for entry in hp.space}  # what a first trial is given is not there yet
            if any(name not in known or hp.is_active(name) for name in wanted):
                raise errors.FailedTrialError("asks for pretrained weights; nothing is downloaded")
            return super()._try_build(hp)

        def _configure_tensorboard_dir(self, *args: Any) -> None:
            return

        def _prepare_model_build(self, hp: Any, **kwargs: Any) -> Any:
            prepared = super()._prepare_model_build(hp, **kwargs)
            graph = self.hypermodel
            for holder in (*graph.inputs, *(node.in_blocks[0] for node in graph.outputs)):
                holder.shape = tuple(int(size) for size in holder.shape)
            return prepared

        def on_batch_end(self, trial: Any, model: Any, batch: int, logs: Any = None) -> None:
            if self._over():
                model.stop_training = self.stopped = True
                self._log(trial, stopped=True)
                if self.epochs == 0 and self._best() is not None:
                    raise errors.FailedTrialError("stopped by the clock in its first epoch")

        def on_epoch_end(self, trial: Any, model: Any, epoch: int, logs: Any = None) -> None:
            self.epochs += 1
            architecture = self.place / f"{trial.trial_id}.json"
            if not architecture.exists():
                architecture.write_text(model.to_json(), encoding="utf-8")
            self._log(trial, epoch=epoch, loss=float((logs or {}).get("val_loss", float("nan"))))

        def on_trial_end(self, trial: Any) -> None:
            said = (trial.message or "").strip().splitlines()
            self._log(trial, status=str(trial.status), message=said[-1] if said else "")
            super().on_trial_end(trial)
            best = self._best()
            if best is not None and best.trial_id == trial.trial_id and not self.stopped:
                self._fit_to_all(best)

        def _best(self) -> Any:
            """The best trial that has ended, or None; where too few have, Keras Tuner adds others."""
            return next((trial for trial in self.oracle.get_best_trials(1) if trial.status == "COMPLETED"), None)

        def on_search_end(self) -> None:
            raise _SearchOver

        def _fit_to_all(self, trial: Any) -> None:
            epochs = trial.best_step + 1
            expected = REFIT_COST * (time.perf_counter() - self.begun) * epochs / self.epochs + 0.5
            if time.perf_counter() + expected > self.deadline:
                return
            stop = Stop(self.deadline)
            try:
                _, model, _ = self.final_fit(**self.everything, epochs=epochs, callbacks=[stop])
            except Exception as error:  # the trial's own weights remain
                self._log(trial, message=f"when fitted to all images: {type(error).__name__}: {error}")
                return
            if not stop.stopped:
                file = self.place / f"{trial.trial_id}.keras"
                model.save(file)
                self._log(trial, refit=str(file))

        def _log(self, trial: Any, **what: Any) -> None:
            values = {k: v for k, v in trial.hyperparameters.values.items() if trial.hyperparameters.is_active(k)}
            left = round(self.deadline - time.perf_counter(), 2)
            line = {"trial": trial.trial_id, "left": left, **what}
            if what.get("epoch") == 0:
                line.update(weights=self._get_checkpoint_fname(trial.trial_id), values=values)
            with (self.place / EPOCHS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    return Clocked


# --------------------------------------------------------------------------------------------------------- prediction


def _log_of(place: Path) -> list[dict[str, Any]]:
    file = place / EPOCHS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _tallied(place: Path, ended: bool) -> dict[str, Any]:
    log = _log_of(place)
    stopped = {line["trial"] for line in log if "stopped" in line}
    begun = {line["trial"] for line in log}
    over = {line["trial"]: line["status"] for line in log if "status" in line}
    completed = {trial for trial, status in over.items() if status.endswith("COMPLETED")}
    file = place / REPORT
    report: dict[str, Any] = {}
    if ended:
        report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"error": "its process died"}
    return {
        **report,
        "trials": len(completed - stopped),
        "trials_stopped": len(stopped | (begun - set(over))),
        "trials_failed": len(set(over) - completed - stopped),
        "failures": Counter(line["message"] for line in log if line.get("message") and line["trial"] not in stopped),
    }


def _predict(arrays: Arrays, threads: int, place: Path) -> dict[str, Any]:
    """Accuracies on the held-out images, and what happened."""
    log = _log_of(place)
    trials = {line["trial"]: line for line in log if line.get("epoch") == 0}
    losses: dict[str, float] = {}
    for line in log:
        if "epoch" in line:
            losses[line["trial"]] = min(losses.get(line["trial"], float("inf")), line["loss"])
    _libraries(threads)
    for trial in sorted(trials, key=lambda name: losses[name]):
        accuracy = _accuracy(arrays, place / f"{trial}.json", Path(trials[trial]["weights"]))
        if accuracy is None:  # ended while it was written
            continue
        found = {"accuracy": accuracy, "accuracy_of_trial": accuracy, "best": trials[trial]["values"]}
        if file := next((line["refit"] for line in log if "refit" in line and line["trial"] == trial), None):
            accuracy = _refit_accuracy(arrays, Path(file))
            return {**found, "accuracy": accuracy, "happened": "fitted to all images"}
        return {**found, "happened": "no time to fit to all images: the best epoch's weights"}
    chance = round(1 / len(np.unique(arrays["support_labels"])), 4)
    return {"accuracy": chance, "accuracy_of_trial": None, "best": None, "happened": "no epoch ended in time: chance"}


def _accuracy(arrays: Arrays, architecture: Path, weights: Path) -> float | None:
    try:
        model = import_module("keras").models.model_from_json(architecture.read_text(encoding="utf-8"))
        model.load_weights(weights)
    except (OSError, ValueError, KeyError):
        return None
    return _scored(arrays, model)


def _refit_accuracy(arrays: Arrays, file: Path) -> float:
    return _scored(arrays, import_module("keras").models.load_model(file))


def _scored(arrays: Arrays, model: Any) -> float:
    """Columns of AutoKeras's output are the labels in order, as they are 0 to n - 1, n > 2."""
    outputs = model.predict(_with_channels(arrays["held_out"]), batch_size=32, verbose=0)
    return round(float(np.mean(np.argmax(outputs, axis=1) == arrays["held_out_labels"])), 4)


if __name__ == "__main__":
    main()
