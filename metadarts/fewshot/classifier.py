"""`FewShotClassifier`: a new task in a few steps, in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.modes import plain_torch
from metadarts.export import Check, export_model
from metadarts.spaces import Genotype

from .adapter import Adapter, PlacedModel
from .folder import load_task, save_task
from .input_spec import Scale, axes_of, require_several, scale_of, to_pixels
from .labelled import Labelled
from .learn import AdaptSettings, derive
from .start import AUTO
from .task import CHUNK, INHERITED, RETRAINED, SUPERNET, Task, finish_named


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An image classifier that learns 2 to 20 classes from a few images each, its architecture included.

    Args:
        start: one of `metadarts.fewshot.BUNDLED`, "auto" ("glyphs-cell" for grey images, "cifar-fs-cell" for colour), a
            run folder of `metadarts search`, or a file that `Start.save` wrote.
        steps: inner steps on weights, and on alphas of a supernet.
        seconds: take no step that would end later, and keep the best so far. Reading the images and freezing the
            statistics take additional time, and a discrete finish has the same limit again. None for no limit.
        finish: "supernet" (the adapted one), "inherited" (the derived cell with the adapted weights and as many more
            steps) or "retrained" (the derived cell trained from fresh weights on these images alone). Of a start that
            is one cell the first two are "cell", that cell adapted.
        weight_rate: inner rate of the weights; None is the start's. "retrained" has its own.
        alpha_rate: inner rate of the alphas; None is the start's.
        random_state: seed of the mini-batches and of new weights.
        device: where to compute: "cpu", "cuda", or "auto" for CUDA where there is one.
        plugins: modules or files with the user's entries that the start names; their code runs.

    Attributes (after `fit`):
        classes_: the labels, sorted.
        genotype_: the derived cell.
        history_: one dictionary per step: "step", "loss", "seconds".
        notes_: conversions of the images: sizes, channels, the background.
        task_: the `Task`, with everything that was learnt.
    """

    def __init__(
        self,
        start: str = AUTO,
        *,
        steps: int = 10,
        seconds: float | None = None,
        finish: str = SUPERNET,
        weight_rate: float | None = None,
        alpha_rate: float | None = None,
        random_state: int = 0,
        device: str = "cpu",
        plugins: Sequence[str] = (),
    ) -> None:
        self.start = start
        self.steps = steps
        self.seconds = seconds
        self.finish = finish
        self.weight_rate = weight_rate
        self.alpha_rate = alpha_rate
        self.random_state = random_state
        self.device = device
        self.plugins = plugins

    @plain_torch()
    def fit(self, X: Any, y: Any, steps: int | None = None) -> FewShotClassifier:
        """Adapt the start to images ``X`` with labels ``y``.

        Args:
            X: images, see `to_pixels`: an array, a tensor, or a sequence of paths, PIL images or arrays.
            y: one label for each; 2 to 20 different ones, in any numbers. Over 64 images are learnt in mini-batches.
            steps: replaces that of the constructor.

        Raises:
            DataError: for images that cannot be read, or labels that do not fit them.
            ConfigError: for a start that is not there, or an option out of range.
        """
        finish = finish_named(self.finish)
        asked = (self.steps if steps is None else steps, self.seconds, self.weight_rate, self.alpha_rate)
        settings = AdaptSettings(*map(_plain, asked))
        classes, labels = _labels(y)
        if isinstance(self.random_state, bool) or not isinstance(self.random_state, Integral):
            raise ConfigError(f"random_state: expected a whole number, got {self.random_state!r}")
        learnt, seed = Labelled(X, (), tuple(map(str, classes)), labels), int(self.random_state)
        adapter = Adapter.open(
            str(self.start), learnt, settings=settings, seed=seed, device=self.device, plugins=self.plugins
        )
        made = {"start": str(self.start), "steps": settings.steps, "random_state": seed, "finish": finish}
        kept = {name: value for name, value in self.get_params().items() if name != "plugins"}  # places on this disk
        given = {name: _plain(value) for name, value in kept.items()}
        scale = scale_of(X)
        adapter.task.facts |= {"unit floats": scale.floats, "unit integers": scale.integers}
        adapter.task.facts |= {"axes": axes_of(X), "parameters": given | made}
        if all(type(label) is int for label in classes.tolist()):
            adapter.task.facts["labels"] = classes.tolist()
        adapter.adapt()
        chosen = adapter.finish_of(finish)
        if chosen != adapter.finishes[0]:
            adapter.finish(chosen)
        self._settle(adapter.task, classes, chosen)
        self._adapter: Adapter = adapter
        return self

    def _settle(self, task: Task, classes: NDArray[Any], finish: str) -> None:
        task.put_first(finish)
        solution = task.solution()
        self.task_, self.classes_ = task, classes
        self.finish_ = finish
        self.genotype_: Genotype = solution.network.genotype or derive(solution)
        self.history_ = [{"step": s.step, "loss": s.loss, "seconds": s.seconds} for s in solution.history]
        self.notes_ = list(task.facts.get("notes", []))
        self.model_ = task.model()
        self._answer = PlacedModel.of(self.model_, self.device)

    @plain_torch()
    def discretise(self, finish: str = INHERITED, steps: int | None = None) -> FewShotClassifier:
        """A classifier with only the derived cell.

        Args:
            finish: "inherited" or "retrained".
            steps: K' steps of the discrete network; None is the number of steps taken, or 100 from new weights.

        Returns:
            A new fitted classifier; this one does not change.
        """
        check_is_fitted(self)
        finish = finish_named(finish, (INHERITED, RETRAINED), "no discrete one")
        before: Adapter | None = getattr(self, "_adapter", None)
        if before is None:
            raise ConfigError("a classifier that was loaded keeps no start: fit it anew to finish it in another way")
        own = replace(
            before, task=replace(self.task_, solutions=dict(self.task_.solutions), facts=dict(self.task_.facts))
        )
        found = own.finish(finish, steps).finish
        other = FewShotClassifier(**{**self.get_params(), "finish": finish})
        other._settle(own.task, self.classes_, found)
        other._adapter = own
        return other

    @plain_torch()
    def logits(self, X: Any) -> NDArray[np.float32]:
        """Logits [n, classes], in the order of ``classes_``. The logits of an image do not depend on other images."""
        check_is_fitted(self)
        return np.concatenate([self._answer(part).numpy() for part in self._pixels(X).split(CHUNK)])

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """`logits`; of two classes, as scikit-learn wants it, [n] by how much the second is above the first."""
        found = self.logits(X)
        return found[:, 1] - found[:, 0] if found.shape[1] == 2 else found

    @plain_torch()
    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities [n, classes], in the order of ``classes_``."""
        shares: NDArray[np.float32] = torch.from_numpy(self.logits(X)).softmax(1).numpy()
        return shares

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely label of each image."""
        places = self.logits(X).argmax(1)
        labels: NDArray[Any] = self.classes_[places]
        return labels

    def _pixels(self, images: Any) -> Tensor:
        form = self.task_.support.form
        told = (self.task_.facts.get(name) for name in ("unit floats", "unit integers"))
        scale = Scale(*(known if isinstance(known, bool) else None for known in told))
        require_several(images, self.task_.facts.get("axes"))
        return torch.from_numpy(to_pixels(images, form.channels, form.height, scale)[0])

    @plain_torch()
    def export(self, path: str | Path, format: str | None = None) -> Check:
        """Write the fitted model and check it against the original network.

        Args:
            path: ending in .safetensors, .py, .pt2 or .onnx.
            format: a key of `metadarts.export.SUFFIXES`; None: by the suffix of the path.

        Raises:
            ModelError: when the outputs of the file differ from the network's, or a package for the format is missing.
        """
        check_is_fitted(self)
        real = self.task_.support.pixels[:CHUNK]
        return export_model(
            self.model_,
            Path(path),
            format,
            self.task_.source(self.finish_),
            real,
            self.task_.source(self.finish_, "fp64"),
        )

    @plain_torch()
    def save(self, path: str | Path) -> None:
        """Write a task folder, which `metadarts predict` and `metadarts export` also take; it must not exist."""
        check_is_fitted(self)
        save_task(self.task_, Path(path))

    @classmethod
    @plain_torch()
    def load(cls, path: str | Path, device: str = "cpu", plugins: Sequence[str] = ()) -> FewShotClassifier:
        """Load a task folder from `save` or `metadarts adapt`. Labels are integers again, otherwise text.

        Args:
            plugins: as the constructor's.

        Raises:
            RunError: when it is not a task folder, or is damaged.
            ConfigError: when a plug-in is missing.
        """
        task = load_task(Path(path), plugins)
        finish = task.solution().finish  # the first: what `metadarts predict` asks, too
        kept = task.facts.get("parameters")
        known = {name: value for name, value in kept.items() if name in PARAMETERS} if isinstance(kept, dict) else {}
        made = {"finish": finish, "random_state": task.support.seed, "device": device, "plugins": plugins}
        classifier = cls(**(known | made))
        classifier._settle(task, _saved_labels(task), finish)
        return classifier


PARAMETERS = ("start", "steps", "seconds", "weight_rate", "alpha_rate")
"""Of the constructor, what a saved classifier has again."""


def _plain(value: Any) -> Any:
    """A number of numpy or of torch as Python's, anything else as it is."""
    alone = isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0)
    return value.item() if alone else value


def _saved_labels(task: Task) -> NDArray[Any]:
    labels, names = task.facts.get("labels"), task.support.classes
    if isinstance(labels, list) and len(labels) == len(names) and all(type(label) is int for label in labels):
        return np.array(labels)
    return np.array(names)


def _labels(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    try:
        array = np.asarray(y)
        if array.ndim != 1:
            raise DataError(f"expected labels [n], got an array {list(array.shape)}")
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            raise DataError("labels hold NaN or infinite numbers")
        classes, numbers = np.unique(array, return_inverse=True)
    except (TypeError, ValueError) as error:  # rows of several lengths, labels without an order
        raise DataError(f"expected labels [n] of one kind, numbers or text ({error})") from error
    if len(set(map(str, classes))) != len(classes):
        raise DataError("two different labels read the same as text: give every class a name of its own")
    return classes, numbers.astype(np.int64)
