"""A shipped classifier in plain PyTorch: it needs torch and safetensors, and Pillow to read pictures. Nothing else.

    model, facts = load("model.safetensors")
    pixels = prepare("photo.jpg", facts["image"])  # a picture in the form that the model takes: uint8 [1, C, H, W]
    logits = model(pixels)

or ``python THIS_FILE [model.safetensors] photo.jpg ...``. Batch norm is folded into the convolutions with the
statistics of the support set, so that the answer for an image does not depend on what else is in the batch.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = ""  # the file of weights, where this one was written for a certain model


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


def add(*maps: Tensor) -> Tensor:
    """The sum of the maps."""
    return functools.reduce(torch.add, maps)


def concatenate(*maps: Tensor) -> Tensor:
    """The channels of the maps side by side."""
    return torch.cat(maps, dim=1)


def every_second(x: Tensor) -> Tensor:
    """Every second pixel of every second row."""
    return x[:, :, ::2, ::2]


def mean(x: Tensor) -> Tensor:
    """The mean over positions."""
    return x.mean((2, 3))


def flatten(x: Tensor) -> Tensor:
    """The positions side by side, the channels of one next to each other."""
    return x.permute(0, 2, 3, 1).flatten(1)


LAYERS: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "conv": nn.Conv2d,  # channels in and out, kernel, stride, padding, dilation, groups, whether it has a bias
    "scale": Scale,  # channels
    "halve": Halve,  # channels
    "relu": nn.ReLU,
    "max_pool": nn.MaxPool2d,  # kernel, stride, padding
    "avg_pool": functools.partial(nn.AvgPool2d, count_include_pad=False),  # the same
    "add": lambda: add,
    "cat": lambda: concatenate,
    "every_second": lambda: every_second,
    "mean": lambda: mean,
    "flatten": lambda: flatten,
}
"""Kind -> (options) -> layer. Kernel, stride, padding and dilation are pairs: of height and width."""


def insert(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` below ``module`` under a dotted name."""
    *above, last = name.split(".")
    for part in above:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.add_module(last, layer)


class Classifier(nn.Module):
    """Pixels in, logits out.

    Args:
        facts: the model's description, see `load`: "image", "classes", "features" (the length of the last layer's
            output) and "layers": [[name, reads, kind, option, ...], ...]. The name is that of the layer's weights, ""
            where it has none; ``reads`` are the numbers of the layers whose outputs it takes; the first is layer 1, and
            0 is the image.

    ``forward`` takes uint8 pixels [N, C, H, W] of the model's size and returns logits [N, classes].
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__()
        image = facts["image"]
        self.invert = bool(image["invert"])
        self.mean = nn.Parameter(torch.empty(image["channels"], 1, 1))
        self.std = nn.Parameter(torch.empty(image["channels"], 1, 1))
        self.steps: list[tuple[Callable[..., Tensor], list[int]]] = []
        for name, reads, kind, *options in facts["layers"]:
            layer = LAYERS[kind](*[tuple(option) if isinstance(option, list) else option for option in options])
            if name and isinstance(layer, nn.Module):  # those without weights are functions
                insert(self, name, layer)
            self.steps.append((layer, reads))
        self.last_read = {read: number for number, (_, reads) in enumerate(self.steps, 1) for read in reads}
        self.head = nn.Linear(facts["features"], len(facts["classes"]))

    def forward(self, pixels: Tensor) -> Tensor:
        if self.invert:
            pixels = 255 - pixels
        x = (pixels.float() / 255.0 - self.mean) / self.std
        outputs = {0: x}
        for number, (layer, reads) in enumerate(self.steps, 1):
            x = outputs[number] = layer(*[outputs[read] for read in reads])
            for spent in {read for read in reads if self.last_read[read] == number}:
                del outputs[spent]
        logits: Tensor = self.head(x)
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
