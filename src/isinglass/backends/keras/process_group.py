"""Processes that find each other by TF_CONFIG: collective ops sum the gradients between two compiled programs."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from isinglass.backends.process_group import tensorflow_cluster
from isinglass.errors import ProcessLostError

_GROUP: Final = 1_000_000  # TensorFlow's own strategies count theirs from 1
_LONGEST_WAIT: Final = 7200.0  # seconds: others wait while process 0 tokenizes, or one of them compiles
_PIECE: Final = 1 << 22  # elements summed at once


class TensorFlowProcessGroup:
    """See `backends.process_group.ProcessGroup`: over gRPC between CPUs, as TensorFlow chooses between GPUs.

    TensorFlow's MultiWorkerMirroredStrategy only connects the processes. No variable is made under it: Keras' optimizers
    would clip each process's gradient for itself before they sum (Keras 3.15), and XLA compiles no collective op for CPUs
    (TensorFlow 2.21).
    """

    restarted = False
    has_launcher = False

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._keys = itertools.count(1)  # every call of an op has its own, the same in all processes

    def gather(self, values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """See ProcessGroup."""
        import tensorflow as tf

        sent = values.astype(np.int32) if values.dtype == np.uint8 else values  # which the op does not take
        with _others_present():
            found = tf.raw_ops.CollectiveGatherV2(input=np.array(sent[None], order="C"), **self._call()).numpy()
        return [part.astype(values.dtype) for part in found]

    def wait(self) -> None:
        """See ProcessGroup."""
        self.gather(np.zeros(1, np.int64))

    def speaks(self) -> bool:
        """See ProcessGroup: each has a terminal or a log of its own."""
        return True

    def total(self, vector: Any) -> Any:
        """The sum over all processes of a float32 (n,) that each has: the same in all of them, bit for bit."""
        import tensorflow as tf

        pieces = [vector[at : at + _PIECE] for at in range(0, len(vector), _PIECE)]
        with _others_present():
            sums = [tf.raw_ops.CollectiveReduceV2(input=p, merge_op="Add", final_op="Id", **self._call()) for p in pieces]
            return tf.concat(sums, 0)

    def _call(self) -> dict[str, Any]:
        return {
            "group_size": self.size,
            "group_key": _GROUP,
            "instance_key": next(self._keys),
            "ordering_token": [],
            "timeout_seconds": _LONGEST_WAIT,
        }


@contextmanager
def _others_present() -> Iterator[None]:
    """Turn TensorFlow's ways to say that a process is gone into a ProcessLostError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = str(error.message).split("\n")[0].split(". ")[0][:200]
        raise ProcessLostError(
            f"Another process of this run has ended or cannot be reached ({reason}); the last checkpoint stays: start all "
            f"again by the same command with --resume."
        ) from error


@contextmanager
def joined() -> Iterator[TensorFlowProcessGroup]:
    """Meet the others of TF_CONFIG, before this process does anything else with TensorFlow.

    Raises:
        ProcessLostError: they cannot be reached.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tensorflow.python.eager import context

    tf.get_logger().setLevel("ERROR")
    with _others_present():
        connected = tf.distribute.MultiWorkerMirroredStrategy()
    rank, size = tensorflow_cluster()
    try:
        yield TensorFlowProcessGroup(rank, size)
    except BaseException:
        # else the others notice only when this process has ended, which takes TensorFlow half a minute
        context.context().abort_collective_ops(tf.errors.ABORTED, "another process failed")
        raise
    del connected  # it holds the connections
