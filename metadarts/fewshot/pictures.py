"""What a task folder shows: the adapted cell beside the meta-learned one, and the answers to held-out images."""

from __future__ import annotations

from metadarts.core.types import alphas_of
from metadarts.derive import derive_genotype
from metadarts.viz import Picture, draw_genotypes, draw_predictions

from .learn import HeldOutImages, derive
from .start import Start
from .task import SUPERNET, Task, logits


def task_pictures(task: Task, start: Start, held_out: HeldOutImages | None) -> dict[str, bytes]:
    """File name -> picture; "predictions.png" only with held-out images, answered by the task's first solution."""
    network = start.network
    if network.genotype is not None:
        genotypes = [("meta-learned", network.genotype)]
    else:
        genotypes = [("adapted", derive(task.solution(SUPERNET)))]
        if start.config.has_one_cell:
            meta = derive_genotype(alphas_of(start.params), network.space, network.relaxation)
            genotypes = [("meta-learned", meta), *genotypes]
    pictures = {name: Picture(name[-4:]) for name in ("cells.png", "cells.svg")}
    for picture in pictures.values():
        draw_genotypes(
            genotypes, picture, f"{start.name}, adapted to {len(task.support.classes)} classes",
            inputs=network.space.inputs, operations=network.operations,
        )  # fmt: skip
    if held_out is not None:
        solution = task.solution()
        shares = logits(task.support, solution.network, solution.with_axis(), held_out.pixels).softmax(1)
        best = shares.max(1)
        sheet = pictures["predictions.png"] = Picture(".png")
        draw_predictions(
            held_out.pixels.numpy(), held_out.labels.tolist(), best.indices.tolist(), best.values.tolist(),
            task.support.classes, sheet, f"held-out images, {solution.finish}",
        )  # fmt: skip
    return {name: picture.getvalue() for name, picture in pictures.items()}
