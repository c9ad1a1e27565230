"""Two facts about memory that the CPU's speed and the result depend on."""

import ctypes
import resource
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_M_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, instead of handing it back to the kernel.

    Otherwise blocks above glibc's thresholds, which most activations are, begin with page faults anew in each step
    (docs/experiments.md). Elsewhere than on glibc this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _NEVER)
            mallopt(_M_TRIM_THRESHOLD, _NEVER)


def peak_resident_bytes() -> int:
    """The most memory that this process had in RAM so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
