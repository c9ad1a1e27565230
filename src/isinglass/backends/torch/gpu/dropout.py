"""Dropout on a GPU, drawn within kernels: a pure function of (seed, step, micro-batch, rank)."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from isinglass.backends.torch.attention import Dropout

_KERNELS: Final = 0x6B65726E  # "kern": keeps these keys apart from the seeds of anything else
_LEVELS: Final = 1 << 31


def begin_dropout(seed: int, step: int, device: torch.device, *, part: int = 0, rank: int = 0) -> Int64[np.ndarray, "1"]:
    """Return the key of a micro-batch's dropout, and seed the device's default generator with it.

    Everything that is dropped then depends on (seed, step, part, rank) and on the order of the kernels alone. This sets a
    number on the host: each of PyTorch's kernels is launched with (seed, offset), and keeps both for its backward pass. A
    recorded step (`graphs`) reads them from the generator too, so that this has to come before each replay.
    """
    sequence = np.random.SeedSequence([_KERNELS, seed, step, part, rank])
    key = (sequence.generate_state(1, np.uint64) >> np.uint64(2)).astype(np.int64)
    generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
    generator.manual_seed(int(key[0]))
    return key


@dataclass(frozen=True)
class PlacedDropout:
    """Dropout at one place of a micro-batch, as the kernels in `triton` draw it.

    Attributes:
        rate: from 0 to below 1.
        key: int64 (1,), of the micro-batch.
        place: number of the place in the micro-batch.
    """

    rate: float
    key: Tensor
    place: int

    def arguments(self) -> tuple[Tensor, int, int, float]:
        """Return what a kernel takes: key, place, the least 31-bit number that keeps an element, and 1 / (keep rate)."""
        least = round(self.rate * _LEVELS)
        return self.key, self.place, least, _LEVELS / (_LEVELS - least)


class KernelDropout(Dropout):
    """The dropout of one micro-batch.

    PyTorch's kernels draw from the device's default generator, those in `triton` by the key and the number of the place.

    Attributes:
        key: int64 (1,), what `begin_dropout` returned, on the device.
    """

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self._places = 0

    def at_next_place(self, rate: float) -> PlacedDropout:
        """Return the dropout of the next place that drops by the key. Places count from 0."""
        self._places += 1
        return PlacedDropout(rate, self.key, self._places - 1)

    def apply(self, x: Tensor, rate: float) -> Tensor:
        """See Dropout."""
        return x if rate == 0 else F.dropout(x, rate)
