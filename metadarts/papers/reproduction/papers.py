"""What the papers print, as facts: accuracies of 5-way tasks with the 95 % interval printed beside them, and cells.

All numbers are those of T-NAS's Tables 2 to 5 (Lian et al., "Towards Fast Adaptation of Neural Architectures with Meta
Learning", ICLR 2020), which quotes the other methods. How they were obtained is not how ours are: T-NAS's code chooses
the checkpoint on the test task, and all of them evaluate with transductive batch statistics without saying so.
"""

from __future__ import annotations

from metadarts.spaces import Genotype

CITATION = "Lian et al., Towards Fast Adaptation of Neural Architectures with Meta Learning, ICLR 2020, Tables 2 to 5"

Printed = dict[str, dict[int, tuple[float, float | None]]]
"""method -> shots -> (accuracy, half of its interval; None where none is printed)."""

OMNIGLOT: Printed = {
    "MAML": {1: (0.987, 0.004), 5: (0.999, 0.001)},
    "Auto-MAML": {1: (0.9895, 0.0038), 5: (0.9991, 0.0009)},
    "T-NAS": {1: (0.9936, 0.0034), 5: (0.9994, 0.0007)},
}
MINI: Printed = {
    "MAML": {1: (0.4870, 0.0184), 5: (0.6311, 0.0092)},
    "MAML, first order": {1: (0.4807, 0.0175), 5: (0.6315, 0.0091)},
    "Auto-MAML": {1: (0.5123, 0.0176), 5: (0.6410, 0.0112)},
    "T-NAS": {1: (0.5284, 0.0141), 5: (0.6788, 0.0092)},
}
FC100: Printed = {
    "MAML": {1: (0.381, None), 5: (0.504, None), 10: (0.562, None)},
    "Auto-MAML": {1: (0.388, None), 5: (0.522, None), 10: (0.575, None)},
    "T-NAS": {1: (0.397, None), 5: (0.531, None), 10: (0.589, None)},
}

_OPERATIONS = {
    "avg": "avg_pool_3x3",
    "max": "max_pool_3x3",
    "skip": "skip_connect",
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
}


def _cell(text: str) -> tuple[tuple[str, int], ...]:
    pairs = (pair.split(":") for pair in text.split())
    return tuple((_OPERATIONS[operation], int(state)) for operation, state in pairs)


def _genotype(normal: str, reduce: str) -> Genotype:
    return Genotype(_cell(normal), (2, 3, 4, 5), _cell(reduce), (2, 3, 4, 5))


AUTO_MAML = {
    1: _genotype("avg:0 avg:1 avg:1 avg:2 avg:1 avg:2 d3:3 avg:2", "avg:0 d5:1 avg:0 d5:1 skip:3 d5:2 skip:4 skip:3"),
    5: _genotype("d5:1 d5:0 d5:2 d3:1 s5:2 s3:3 skip:4 d3:3", "s5:0 avg:1 avg:1 skip:2 skip:2 avg:1 skip:2 max:1"),
}
"""shots -> the cell that Auto-MAML's release has for them: 23,213 and 26,061 weights on 84x84 colour, 5-way."""
