"""The 4CONV-32 network of MAML (Finn et al., ICML 2017) in plain PyTorch."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

WIDTH = 32
BLOCKS = 4


def block(channels_in: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU, max-pool: [N, channels_in, H, W] to [N, 32, H // 2, W // 2]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(channels_in, WIDTH, 3, padding=1)
    layers["norm"] = nn.BatchNorm2d(WIDTH, eps=1e-5, track_running_stats=False)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


class Conv4(nn.Module):
    """Four blocks and a linear head; batch norm on the statistics of the batch at hand (transductive).

    Parameters: ``blocks.{0..3}.conv.{weight,bias}``, ``blocks.{0..3}.norm.{weight,bias}``, ``head.{weight,bias}``.

    Args:
        channels: image channels.
        size: image height and width.
        ways: classes per task.
    """

    def __init__(self, channels: int = 3, size: int = 84, ways: int = 5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(block(channels if index == 0 else WIDTH) for index in range(BLOCKS)))
        self.head = nn.Linear(WIDTH * (size >> BLOCKS) ** 2, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [N, channels, size, size]. Returns logits [N, ways]."""
        logits: Tensor = self.head(self.blocks(x).flatten(1))
        return logits
