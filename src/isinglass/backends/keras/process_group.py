"""Processes that find each other by TF_CONFIG. Collective ops sum the gradients between two compiled programs."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup, tensorflow_cluster
from isinglass.errors import ProcessLostError

_GROUP: Final = 1_000_000  # TensorFlow's own strategies count theirs from 1
_TIMEOUT: Final = 7200.0  # seconds: others wait while process 0 tokenizes, or one of them compiles
_PIECE: Final = 1 << 22  # elements of one collective op


class TensorFlowProcessGroup(ProcessGroup):
    """See `backends.process_group.ProcessGroup`. CPUs communicate over gRPC, GPUs as TensorFlow chooses.

    TensorFlow's MultiWorkerMirroredStrategy only connects the processes. No variable is created under it, because Keras'
    optimizers would clip the gradient of each process before the sum (Keras 3.15), and because XLA compiles no collective
    op for CPUs (TensorFlow 2.21).
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._instance_keys = itertools.count(1)  # one for each call of an op, the same in all processes

    def gather(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """See ProcessGroup."""
        import tensorflow as tf

        sent = values.astype(np.int32) if values.dtype == np.uint8 else values  # the op does not take uint8
        with _reporting_lost_processes():
            gathered = tf.raw_ops.CollectiveGatherV2(input=np.array(sent[None], order="C"), **self._options()).numpy()
        return [part.astype(values.dtype) for part in gathered]

    def total(self, vector: Any) -> Any:
        """Return the sum over all processes of a float32 (n,): the same in all of them, bit for bit."""
        import tensorflow as tf

        pieces = [vector[at : at + _PIECE] for at in range(0, len(vector), _PIECE)]
        with _reporting_lost_processes():
            sums = [tf.raw_ops.CollectiveReduceV2(input=p, merge_op="Add", final_op="Id", **self._options()) for p in pieces]
            return tf.concat(sums, 0)

    def _options(self) -> dict[str, Any]:
        key = {"group_size": self.size, "group_key": _GROUP, "instance_key": next(self._instance_keys)}
        return {**key, "ordering_token": [], "timeout_seconds": _TIMEOUT}


@contextmanager
def _reporting_lost_processes() -> Iterator[None]:
    """Turn TensorFlow's errors about other processes into a ProcessLostError."""
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
    """Connect to the other processes of TF_CONFIG, before this process does anything else with TensorFlow.

    Raises:
        ProcessLostError: they cannot be reached.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tensorflow.python.eager import context

    tf.get_logger().setLevel("ERROR")
    with _reporting_lost_processes():
        connected = tf.distribute.MultiWorkerMirroredStrategy()
    rank, size = tensorflow_cluster()
    try:
        yield TensorFlowProcessGroup(rank, size)
    except BaseException:
        # without this the others notice only when this process has ended, which takes TensorFlow half a minute
        context.context().abort_collective_ops(tf.errors.ABORTED, "another process failed")
        raise
    del connected  # it holds the connections
