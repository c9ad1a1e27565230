"""Work on a CPU in two streams, each on half of the threads.

One stream on all threads stops at the end of every kernel until the slower thread is there, a thousand times a step; two
streams stop for each other once (docs/experiments.md).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

import torch

STREAMS: Final = 2  # not more: two gradients add up to the same in either order
_OTHERS: Final = ThreadPoolExecutor(STREAMS - 1, thread_name_prefix="stream")
Result = TypeVar("Result")


def side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call each of at most STREAMS tasks on its share of PyTorch's threads, at the same time, and give their results.

    What PyTorch keeps for each thread, such as autocast and inference mode, a task has to set for itself.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    threads = torch.get_num_threads()

    def on_its_share(task: Callable[[], Result]) -> Result:
        torch.set_num_threads(max(1, threads // len(tasks)))  # of the calling thread, and of those that start from now on
        return task()

    others = [_OTHERS.submit(on_its_share, task) for task in tasks[1:]]
    try:
        first = on_its_share(tasks[0])
    finally:
        wait(others)
        torch.set_num_threads(threads)
    return [first, *(other.result() for other in others)]
