"""MAML's four convolutional blocks, without cells (Finn et al., ICML 2017, section 5.2)."""

from __future__ import annotations

from metadarts.core.errors import ConfigError
from metadarts.networks.structure import Image, NetworkSpec, Style

BLOCKS = 4


def conv4(image: Image, style: Style, *, channels: int = 16) -> NetworkSpec:
    """4CONV. Its features are the positions of its last map, so it requires the size of an image.

    Args:
        channels: channels of every block.
    """
    if not image.height:
        raise ConfigError("macro conv4 needs a source that says its images' size; learn2learn's do not")
    flat = (image.height // 2**BLOCKS) * (image.width // 2**BLOCKS)
    return NetworkSpec(in_channels=image.channels, stem=(channels,) * BLOCKS, cells=(), flat=flat, head=style.head)


MACRO = conv4
