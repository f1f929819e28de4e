"""T-NAS's search network: a stem of two convolutions, a normal and a reduction cell (Lian et al., ICLR 2020)."""

from __future__ import annotations

from metadarts.networks.structure import Image, NetworkSpec, Style


def tnas(image: Image, style: Style, *, channels: int = 16, stem: tuple[int, ...] = (24, 48)) -> NetworkSpec:
    """The search network of T-NAS.

    Args:
        channels: channels C of the first cell; reduction cells double them.
        stem: channels of the stem convolutions, each of which halves the map; T-NAS has two.
    """
    return NetworkSpec(in_channels=image.channels, stem=stem, channels=channels, **style._asdict())


MACRO = tnas
