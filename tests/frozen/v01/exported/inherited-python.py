# 3 classes: 'ash', 'birch', 'cedar'
# images: 1 channel(s), 28x28 pixels
# cell: Genotype(normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 1), ('skip_connect', 0)], normal_concat=range(2, 4), reduce=[('max_pool_3x3', 1), ('avg_pool_3x3', 0), ('avg_pool_3x3', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 4))
# weights: inherited-python.safetensors, SHA-256 526904fd6eaa798c7a1c490f18f978412ee23a11fcc5a8475bdc9ec12db70bee
"""A shipped classifier in plain PyTorch: it needs torch and safetensors, and Pillow to read pictures. Nothing else.

    model, facts = load("model.safetensors")
    pixels = prepare("photo.jpg", facts["image"])  # a picture in the form that the model takes: uint8 [1, C, H, W]
    logits = model(pixels)

or ``python THIS_FILE [model.safetensors] photo.jpg ...``. Batch norm is folded into the convolutions with the
statistics of the support set, so that the answer for an image does not depend on what else is in the batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = 'inherited-python.safetensors'  # the file of weights, where this one was written for a certain model


class Scale(nn.Module):
    """One factor and one offset for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class Halve(nn.Module):
    """ReLU, then the even and the odd pixels through a 1x1 convolution each, side by side: a skip at stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, channels // 2, 1, stride=2)
        self.odd = nn.Conv2d(channels, channels // 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return torch.cat([self.even(x), self.odd(shifted)], dim=1)


def separable(channels: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, a filter of its own for each channel, a mixture of the channels."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1),
    ]


def skip(channels: int, stride: int) -> nn.Module:
    """The identity, scaled; at stride 2 `Halve`."""
    return Halve(channels) if stride == 2 else Scale(channels)


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "max_pool_3x3": lambda c, s: nn.Sequential(nn.MaxPool2d(3, s, 1), Scale(c)),
    "avg_pool_3x3": lambda c, s: nn.Sequential(nn.AvgPool2d(3, s, 1, count_include_pad=False), Scale(c)),
    "skip_connect": skip,
    "sep_conv_3x3": lambda c, s: nn.Sequential(*separable(c, 3, s, 1), *separable(c, 3, 1, 1)),
    "sep_conv_5x5": lambda c, s: nn.Sequential(*separable(c, 5, s, 1), *separable(c, 5, 1, 1)),
    "dil_conv_3x3": lambda c, s: nn.Sequential(*separable(c, 3, s, 2)),
    "dil_conv_5x5": lambda c, s: nn.Sequential(*separable(c, 5, s, 2)),
}
"""Name -> (channels, stride) -> the operation of an edge, its batch norms and its weight in the mixture folded in."""


class Cell(nn.Module):
    """A cell: every node is the sum of the operations on its edges; the output is the nodes side by side.

    Args:
        spec: {"kind", "channels", "inputs": channels of the two input states, "concat": states of the output,
            "edges": [[node, source state, operation, stride], ...]}.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        channels = spec["channels"]
        self.concat: list[int] = list(spec["concat"])
        self.plan = [(int(node), int(source)) for node, source, _, _ in spec["edges"]]
        self.preprocess = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(incoming, channels, 1)) for incoming in spec["inputs"]
        )
        self.edges = nn.ModuleList(OPERATIONS[name](channels, stride) for _, _, name, stride in spec["edges"])

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        if before.shape[-2:] != last.shape[-2:]:  # a reduction cell lies between the two
            before = before[:, :, ::2, ::2]
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for node in range(1 + max(node for node, _ in self.plan)):
            parts = [
                edge(states[source]) for edge, (to, source) in zip(self.edges, self.plan, strict=True) if to == node
            ]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            states.append(total)
        return torch.cat([states[state] for state in self.concat], dim=1)


class Classifier(nn.Module):
    """Pixels in, logits out.

    Args:
        facts: the model's description, see `load`: "image", "stem", "cells", "classes".

    ``forward`` takes uint8 pixels [N, C, H, W] of the model's size and returns logits [N, classes].
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__()
        image, (first, second) = facts["image"], facts["stem"]
        self.invert = bool(image["invert"])
        self.mean = nn.Parameter(torch.empty(image["channels"], 1, 1))
        self.std = nn.Parameter(torch.empty(image["channels"], 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(image["channels"], first, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.MaxPool2d(2),
        )
        self.cells = nn.ModuleList(Cell(spec) for spec in facts["cells"])
        features = facts["cells"][-1]["channels"] * len(facts["cells"][-1]["concat"])
        self.head = nn.Linear(features, len(facts["classes"]))

    def forward(self, pixels: Tensor) -> Tensor:
        if self.invert:
            pixels = 255 - pixels
        x = (pixels.float() / 255.0 - self.mean) / self.std
        x = self.stem(x)
        before = x
        for cell in self.cells:
            before, x = x, cell(before, x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def build(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Classifier:
    """The classifier that ``facts`` describe, with ``tensors`` as its weights.

    Raises RuntimeError where the two do not fit each other.
    """
    with torch.device("meta"):
        model = Classifier(facts)
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    return model.eval().requires_grad_(False)


def load(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier in a .safetensors file, and its facts: classes, form of the images, accuracy, origin."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        facts = json.loads(file.metadata()["metadarts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    return build(facts, tensors), facts


def prepare(path: str | Path, image: Mapping[str, Any]) -> Tensor:
    """A picture as the model takes it, uint8 [1, C, H, W]: upright, its middle square, shrunk with Lanczos's filter."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits
            picture = picture.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
        if picture.has_transparency_data:
            over_white = Image.new("RGBA", picture.size, "white")
            over_white.alpha_composite(picture.convert("RGBA"))
            picture = over_white
        picture = picture.convert("L" if image["channels"] == 1 else "RGB")
    side, size = min(picture.size), (image["width"], image["height"])
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(1, picture.height, picture.width, -1).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    """Print the most likely class of each picture, and its probability."""
    words = sys.argv[1:]
    weights = str(Path(__file__).with_name(WEIGHTS)) if WEIGHTS else ""
    if words and words[0].endswith(".safetensors"):
        weights = words.pop(0)
    if not (weights and words):
        raise SystemExit("usage: python THIS_FILE [model.safetensors] photo.jpg ...")
    model, facts = load(weights)
    for word in words:
        share, place = model(prepare(word, facts["image"])).softmax(-1)[0].max(0)
        sys.stdout.write(f"{word}: {facts['classes'][int(place)]} ({float(share):.1%})\n")


if __name__ == "__main__":
    main()
