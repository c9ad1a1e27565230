"""Facts about the CPU that speed and results depend on."""

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_NEVER: Final = 2**31 - 1


def describe_cpu(threads: int) -> str:
    """The CPU in words, with the threads that compute."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"CPU: {name}, {threads} threads"


def has_fast_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware."""
    flags = _flags() or ({"bf16"} if platform.machine() == "arm64" else set())
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)


def mkl_leaves_avx512_unused() -> bool:
    """Whether MKL, which chooses by the maker, computes in AVX2 on a CPU that has AVX-512."""
    return _cpuinfo("vendor_id") == "AuthenticAMD" and "avx512f" in _flags()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, instead of handing it back to the kernel.

    Otherwise blocks above glibc's thresholds, which most activations are, begin with page faults anew in each step
    (docs/experiments.md). All threads share one heap: another's could hold no block above 64 MiB, and would map such a one
    each time. Elsewhere than on glibc this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _NEVER)
            mallopt(_M_TRIM_THRESHOLD, _NEVER)
            mallopt(_M_ARENA_MAX, 1)


def peak_resident_bytes() -> int:
    """The most memory that this process had in RAM so far.

    Linux's getrusage would count what the process that started this one had.
    """
    found = _first_line(Path("/proc/self/status"), "VmHWM")
    if found:
        return int(found.removesuffix("kB")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> str:
    return _first_line(Path("/proc/cpuinfo"), key)


def _first_line(info: Path, key: str) -> str:
    """The first value of `key` in a file of Linux's `/proc`; empty elsewhere."""
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
