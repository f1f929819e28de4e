"""The shared part of `metadarts adapt`, `metadarts predict` and `FewShotClassifier`: from a start and labelled images
to a task that is learnt, finished, evaluated and saved. It also selects the device.

Images, solutions and written data are on the CPU; `Support.batch` and `Support.placed` move the computation to the
task's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metadarts.core.errors import ConfigError, DataError, nearest
from metadarts.core.machine import allow_tf32
from metadarts.export import ShippedModel
from metadarts.predictor import MetaModel
from metadarts.training.environment import choose_device

from .folder import save_task
from .input_spec import Scale, scale_of, to_pixels
from .labelled import Labelled
from .learn import (
    RETRAIN_STEPS,
    AdaptSettings,
    HeldOutImages,
    StepWatch,
    adapt_start,
    check_support,
    derive,
    inherited,
    retrained,
)
from .measure import gap, measured, size_of
from .pictures import task_pictures
from .pixels import pixel_baselines
from .predicted import predicted_start
from .start import AUTO, Start, open_start, suited_start
from .task import CELL, INHERITED, RETRAINED, SUPERNET, Solution, Support, Task, finish_named


@dataclass
class Adapter:
    """A task and the start that it is adapted from.

    Args:
        start: the meta-learned initialisation.
        task: the support set in the start's image format, and the solutions so far.
        settings: settings of the adaptation.
        held_out: images only for evaluation; None without any.
    """

    start: Start
    task: Task
    settings: AdaptSettings = field(default_factory=AdaptSettings)
    held_out: HeldOutImages | None = None

    @classmethod
    def open(
        cls,
        start: str,
        learnt: Labelled,
        *,
        settings: AdaptSettings | None = None,
        held_out: Labelled | None = None,
        seed: int = 0,
        device: str = "cpu",
        plugins: Sequence[str] = (),
        alphas: bool = False,
    ) -> Adapter:
        """Open a start and convert images to its image format.

        Args:
            start: "auto", or a start for `open_start`.
            learnt: the support set, of 2 to 20 classes.
            settings: settings of the adaptation; None for the default ones.
            held_out: images of the same classes, only for evaluation.
            seed: seed of the mini-batches and of new weights.
            device: "cpu", "cuda" or "auto".
            plugins: with the user's entries that the start names, see `metadarts.training.load_config`.
            alphas: whether "auto" must be a supernet, whose alphas are recorded or predicted.

        Raises:
            DataError: for images that cannot be read, labels that do not fit them, or a class without images.
            ConfigError: for a missing start or device, or an operation that cannot be exported.
        """
        if start == AUTO:
            start = suited_start(3 if _any_colour(learnt.images) else 1, alphas)
        opened = open_start(start, plugins)
        _require_folds(opened)
        scale = scale_of(learnt.images if held_out is None else [*learnt.images, *held_out.images])
        support, notes = _support_of(opened, learnt, seed, scale)
        support = replace(support, device=_chosen_device(device, opened))
        check_support(support)
        facts = {"start": _start_facts(opened), "notes": notes}
        return cls(
            opened,
            Task(support, facts=facts, config=opened.config),
            settings or AdaptSettings(),
            _held_out(opened, held_out, scale),
        )

    def begin_at_prediction(self, model: MetaModel | None) -> None:
        """Start from the alphas that ``model`` predicts from the support set; None for that of a start that gives
        each task its own alphas, which begins there anyway.

        Raises ConfigError where the start has no alphas, or what predicts them is missing or there twice.
        """
        if self.start.is_cell:
            raise ConfigError(
                f"the start {self.start.name} is one cell, which has no alphas to predict: give a supernet"
            )
        predicts = not self.start.config.has_one_cell
        if predicts == (model is not None):
            raise ConfigError(
                f"the alphas of the start {self.start.name} are predicted by itself: leave the meta-model out"
                if predicts
                else "predicted alphas need a meta-model (--metamodel FILE), or a start searched with alphas.name "
                "amortised or choice"
            )
        if model is not None:
            self.start = predicted_start(self.start, model, self.task.support)
            self.task.facts["start"] = _start_facts(self.start)

    @property
    def finishes(self) -> tuple[str, ...]:
        """The available finishes: the adapted start, then the discrete ones."""
        return (CELL, RETRAINED) if self.start.is_cell else (SUPERNET, INHERITED, RETRAINED)

    def finish_of(self, finish: str) -> str:
        """``finish`` for this start: if the start is one cell, that cell is both the network and the derived cell.

        Raises ConfigError for "cell" with a supernet.
        """
        if self.start.is_cell and finish in (SUPERNET, INHERITED):
            return CELL
        if finish not in self.finishes:
            raise ConfigError(
                f"finish {finish!r}: the start {self.start.name} is a supernet, which has no one cell; "
                f"{nearest(finish, self.finishes)}"
            )
        return finish

    def adapt(self, watch: StepWatch | None = None) -> Solution:
        """Learn the task: the finish "supernet", or "cell" if the start is a cell.

        Raises NumericsError when its first loss is not finite.
        """
        solution = adapt_start(self.start, self.task.support, self.settings, self.held_out, watch)
        self.task.solutions[solution.finish] = solution
        return solution

    @property
    def adapted(self) -> Solution:
        """The result of `adapt`."""
        return self.task.solution(self.finishes[0])

    def settings_of(self, finish: str, steps: int | None = None) -> AdaptSettings:
        """Settings of the derived cell's training: ``steps`` steps; None is the number of the supernet, or 100 from new
        weights."""
        usual = RETRAIN_STEPS if finish == RETRAINED else self.settings.steps
        return replace(self.settings, steps=usual if steps is None else steps)

    def finish(self, finish: str, steps: int | None = None, watch: StepWatch | None = None) -> Solution:
        """Add the discrete finish "inherited" or "retrained" of the adapted network, see `settings_of`.

        Raises ConfigError for another finish.
        """
        finish = self.finish_of(finish_named(finish, (INHERITED, RETRAINED), "no discrete one"))
        if finish == self.finishes[0]:
            if steps is not None:
                raise ConfigError(f"steps: the start {self.start.name} is one cell, adapted already; leave them out")
            return self.adapted
        support, settings = self.task.support, self.settings_of(finish, steps)
        if finish == RETRAINED:
            solution = retrained(self.start, support, derive(self.adapted), settings, watch=watch)
        else:
            solution = inherited(self.start, support, self.adapted, settings, watch=watch)
        self.task.solutions[finish] = solution
        return solution

    def measure(self) -> dict[str, str]:
        """Store in the task's facts the size of every solution and, on held-out images, accuracies and baselines.

        Returns:
            The gap of each other finish to the adapted network as text; empty without held-out images.
        """
        facts, hits = self.task.facts.setdefault("measured", {}), {}
        for finish, solution in self.task.solutions.items():
            own: dict[str, Any] = {}
            if self.held_out is not None:
                own, hits[finish] = measured(self.task, solution, self.held_out)
            facts[finish] = own | size_of(self.task.model(finish))
        if self.held_out is not None:
            self.task.facts["baselines"] = pixel_baselines(self.task.support, self.held_out)
        first = self.finishes[0]
        return {finish: gap(own, hits[first]) for finish, own in hits.items() if finish != first}

    def save(self, path: Path) -> None:
        """Write a task folder with pictures of its cells and of the held-out images. Raises RunError."""
        save_task(self.task, path, task_pictures(self.task, self.start, self.held_out))


@dataclass(frozen=True)
class PlacedModel:
    """An exported model on the device that answers: called with uint8 pixels [N, C, H, W], logits [N, classes]."""

    module: nn.Module
    device: str

    @classmethod
    def of(cls, model: ShippedModel, device: str) -> PlacedModel:
        """``model`` on "cpu", "cuda" or "auto". Raises ConfigError."""
        chosen = choose_device(device)
        return cls(model.module().to(chosen), chosen)

    def __call__(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.module(pixels.to(self.device)).cpu()
        return logits


def _chosen_device(device: str, start: Start) -> str:
    chosen = choose_device(device)
    if chosen == "cuda":
        allow_tf32(start.config.training.tf32)
    return chosen


def _start_facts(start: Start) -> dict[str, Any]:
    """What a task keeps of its start."""
    return {"name": start.name, **dict(start.facts), "bn": start.config.model.bn}


def _support_of(start: Start, learnt: Labelled, seed: int, scale: Scale) -> tuple[Support, list[str]]:
    """The support set in the start's form, and what was converted on the way. Raises DataError."""
    pixels, notes = to_pixels(learnt.images, start.form.channels, start.form.height, scale, strict=False)
    if len(pixels) != len(learnt.labels):
        raise DataError(f"expected one label for each image, got {len(pixels)} images and {len(learnt.labels)} labels")
    form = start.form.suited(pixels)
    if form.invert:
        notes.append(f"images have a {('light', 'dark')[form.background == 'light']} background, the start knows a "
                     f"{form.background} one: they are inverted")  # fmt: skip
    if start.config.model.bn != "support":
        notes.append(
            f"the start was meta-trained under {start.config.model.bn} batch statistics, and a shipped model has "
            "those of its support set: expect to lose accuracy; search with --set model.bn=support"
        )
    return Support(form, learnt.classes, torch.from_numpy(pixels), torch.from_numpy(learnt.labels), seed), notes


def _held_out(start: Start, images: Labelled | None, scale: Scale) -> HeldOutImages | None:
    if images is None or not len(images.labels):
        return None
    pixels, _ = to_pixels(images.images, start.form.channels, start.form.height, scale, strict=False)
    return HeldOutImages(torch.from_numpy(pixels), torch.from_numpy(images.labels))


def _any_colour(images: Any) -> bool:
    """Whether the images are in colour; `to_pixels` with 3 channels has grey ones with three equal planes."""
    pixels, _ = to_pixels(images, 3, 32)
    return bool((pixels != pixels[:, :1]).any())


def _require_folds(start: Start) -> None:
    """Require that whatever is adapted can be shipped, before a step is taken. Raises ConfigError."""
    network = start.network
    running = [name for name in network.space.primitives if network.operations[name].run is not None]
    if missing := [name for name in running if network.operations[name].fold is None]:
        raise ConfigError(f"operation {missing[0]!r} has no `fold`, which writes an adapted network: give it one")
