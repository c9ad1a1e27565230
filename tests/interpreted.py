"""Fix Triton's interpreter, which multiplies tiles of bf16 as if their 16 bits were integers."""

import numpy as np


def mend_products() -> None:
    """Convert tiles of bf16 to fp32 before the interpreter multiplies them. Compiled kernels do not change."""
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

    if given.__module__ != __name__:  # not replaced yet
        interpreter.InterpreterBuilder.create_dot = create_dot
