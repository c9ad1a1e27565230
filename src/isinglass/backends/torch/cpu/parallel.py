"""Run micro-batches in parallel on a CPU, each on its share of the threads.

One micro-batch on all threads waits at the end of every kernel for the slowest thread, a thousand times a step. Two parallel
micro-batches wait for each other once (docs/experiments.md).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

import torch

PARALLEL_BATCHES: Final = 2  # no more: a sum of two gradients is the same in either order
_POOL: Final = ThreadPoolExecutor(PARALLEL_BATCHES - 1, thread_name_prefix="batch")
Result = TypeVar("Result")


def in_parallel(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call up to PARALLEL_BATCHES tasks at the same time, each on its share of PyTorch's threads, and return their results.

    A task has to set for itself what PyTorch keeps for each thread, such as autocast and inference mode.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    threads = torch.get_num_threads()

    def run_on_share(task: Callable[[], Result]) -> Result:
        torch.set_num_threads(max(1, threads // len(tasks)))  # for the calling thread, and for threads that start later
        return task()

    others = [_POOL.submit(run_on_share, task) for task in tasks[1:]]
    try:
        first = run_on_share(tasks[0])
    finally:
        wait(others)
        torch.set_num_threads(threads)
    return [first, *(other.result() for other in others)]
