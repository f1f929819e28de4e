"""Named random streams split from one seed. There is no global randomness anywhere in metadarts.

A `Key` is a path of names; its bits are the SHA-256 of that path. Two different paths give independent streams and the
same path gives the same stream on every machine, so drawing more numbers in one place never shifts another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Key:
    """One named random stream.

    Args:
        path: the names from the seed down to this stream, e.g. ``("seed 0", "train", "12")``.
    """

    path: tuple[str, ...]

    @staticmethod
    def from_seed(seed: int) -> Key:
        return Key((f"seed {int(seed)}",))

    def child(self, *names: str | int) -> Key:
        """The child stream with these ``names``; children with different names are independent."""
        return Key(self.path + tuple(str(name) for name in names))

    def digest(self) -> bytes:
        """32 bytes that identify this path; each name includes its length, so no two paths share a digest."""
        text = "".join(f"{len(name)}:{name}" for name in self.path)
        return hashlib.sha256(text.encode()).digest()

    def bits(self) -> np.random.Philox:
        """A Philox counter stream. Its ``random_raw`` is fixed by the algorithm, not by numpy's version."""
        return np.random.Philox(key=int.from_bytes(self.digest()[:16], "little"))

    def numpy(self) -> np.random.Generator:
        """A numpy generator for continuous draws (noise, jitter)."""
        return np.random.Generator(self.bits())

    def torch(self, device: str = "cpu") -> torch.Generator:
        """A torch generator on ``device``."""
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(int.from_bytes(self.digest()[16:23], "little"))
        return generator

    def permutation(self, count: int) -> np.ndarray:
        """A uniform permutation of ``range(count)``, the same under every numpy version."""
        return np.argsort(self.bits().random_raw(count), kind="stable") if count else np.zeros(0, dtype=np.int64)

    def choose(self, count: int, size: int) -> np.ndarray:
        """``size`` distinct numbers of ``range(count)`` in random order. Raises ValueError when ``size > count``."""
        if size > count:
            raise ValueError(f"cannot choose {size} distinct items from {count}")
        return self.permutation(count)[:size]
