"""Sequences that lie end to end in a tensor, as the attention kernels take them.

Shapes: N heads of D side by side make H columns.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Projections(NamedTuple):
    """Queries (queries, H), keys and values (keys, H), each possibly some columns of a wider tensor; or their gradients."""

    q: Tensor
    k: Tensor
    v: Tensor

    @staticmethod
    def split(packed: Tensor, q_first: Tensor | None = None) -> "Projections":
        """Return views of (rows, 3 * H); or q_first (S, H), and views of (rows, 2 * H)."""
        if q_first is None:
            return Projections(*packed.chunk(3, 1))
        return Projections(q_first, *packed.chunk(2, 1))


@dataclass(frozen=True)
class SequenceBounds:
    """Where S sequences begin and end.

    Attributes:
        cu_q: int32 (S + 1,), the first query of each sequence, and the number of queries.
        cu_k: int32 (S + 1,), the same for keys and values.
        max_q: at least the queries of the longest sequence, known on the host.
        max_k: at least its keys.
    """

    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int
