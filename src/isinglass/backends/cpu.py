"""Facts about the CPU on which speed and results depend."""

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)
_NEVER: Final = 2**31 - 1


def describe_cpu(threads: int) -> str:
    """Return a description of the CPU, with the number of threads that compute."""
    name = _first_line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return f"CPU: {name}, {threads} threads"


def has_fast_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware."""
    flags = _flags() or ({"bf16"} if platform.machine() == "arm64" else set())
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)


def slow_bf16(device: str, *, widened: bool = False) -> str:
    """Return the note for a device without bf16 instructions; `widened`: whether it computes bf16 products in fp32."""
    wide = "its products run in fp32 and are rounded, which is no faster than fp32"
    return f"bf16 has no hardware support on {device}: {wide if widened else 'it runs, slowly'}."


def mkl_leaves_avx512_unused() -> bool:
    """Return whether MKL, which decides by vendor, computes in AVX2 on a CPU that has AVX-512."""
    return _first_line("/proc/cpuinfo", "vendor_id") == "AuthenticAMD" and "avx512f" in _flags()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees for the next step, instead of returning it to the kernel.

    Otherwise blocks above glibc's thresholds, as most activations are, begin with page faults in each step
    (docs/experiments.md). All threads share one heap, because the heap of a further thread holds no block above 64 MiB, and
    would map each such block again. Without glibc this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _NEVER)
            mallopt(_M_TRIM_THRESHOLD, _NEVER)
            mallopt(_M_ARENA_MAX, 1)


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had in RAM.

    Linux's getrusage would include the memory of the process that started this one.
    """
    high_water_mark = _first_line("/proc/self/status", "VmHWM")
    if high_water_mark:
        return int(high_water_mark.removesuffix("kB")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _flags() -> set[str]:
    return set(_first_line("/proc/cpuinfo", "flags", "Features").split())


def _first_line(path: str, *keys: str) -> str:
    """Return the first value of one of `keys` in a file of Linux's `/proc`; empty on other systems."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(keys)), "")
