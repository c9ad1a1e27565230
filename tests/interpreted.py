"""Triton's interpreter, mended: it multiplies tiles of bf16 as if the 16-bit integers that hold them were the numbers."""

import numpy as np


def mend_products() -> None:
    """Let tiles of bf16 be widened before the interpreter multiplies them. Nothing changes where kernels are compiled."""
    from triton import language as tl
    from triton.runtime import interpreter

    given = interpreter.InterpreterBuilder.create_dot

    def widened(handle: interpreter.TensorHandle) -> interpreter.TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        data = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def create_dot(self, a, b, *rest):  # noqa: ANN002
        return given(self, widened(a), widened(b), *rest)

    if given.__module__ != __name__:  # not yet
        interpreter.InterpreterBuilder.create_dot = create_dot
