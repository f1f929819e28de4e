"""What needs no search: simple classifiers on pixels, on the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from metadarts.core.types import TaskBatch
from metadarts.tasks import nearest_class_mean
from metadarts.tasks.scaling import scaled

from .learn import HeldOutImages
from .task import Support


def pixel_baselines(support: Support, held_out: HeldOutImages) -> dict[str, float]:
    """Held-out accuracy of logistic regression and of the nearest class mean, both on pixels in [0, 1]."""
    return {
        "logistic regression on pixels": logistic_regression(support, held_out),
        "nearest class mean on pixels": float(nearest_class_mean(_batch(support, held_out))[0]),
    }


def logistic_regression(support: Support, held_out: HeldOutImages, c: float = 1.0) -> float:
    """Held-out accuracy of scikit-learn's logistic regression with inverse penalty ``c``."""
    from sklearn.linear_model import LogisticRegression

    flat = [scaled(pixels).flatten(1).numpy() for pixels in (support.pixels, held_out.pixels)]
    model = LogisticRegression(C=c, max_iter=2000).fit(flat[0], support.labels.numpy())
    return float(np.mean(model.predict(flat[1]) == held_out.labels.numpy()))


def _batch(support: Support, held_out: HeldOutImages) -> TaskBatch:
    rows = torch.arange(len(support.labels))
    plain = replace(support, form=replace(support.form, mean=None, std=None))
    return plain.batch(rows, held_out.pixels, held_out.labels)
