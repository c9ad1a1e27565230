"""The kernels compile for a GPU, which needs no GPU: Triton's interpreter accepts code that its compiler does not."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

# in a separate process: once the interpreter is enabled, nothing compiles any more
PROGRAM = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from isinglass.backends.torch.gpu.triton import attention as triton_attention, kernels

HALVES, NUMBERS = {"x", "out_half", "grad_half", "grad_x"}, {"scale", "factor", "eps", "rest1", "beta2", "rest2", "decay"}
COUNTS = {"place", "least", "rows", "H", "stride", "programs", "N", "D", "width"}
COUNTS |= {f"stride_{of}" for of in ("q", "k", "out", "grad_q", "grad_k")}

def compiles(kernel, half, halves=HALVES, numbers=NUMBERS, **constants):
    names = kernel.arg_names
    kinds = {name: half if name in halves else "fp32" if name in numbers else "i32" if name in COUNTS
             else "*i64" if name == "key" else "*i32" if name.startswith("cu_") else "*fp32" for name in names}
    source = ASTSource(kernel, kinds | dict.fromkeys(constants, "constexpr"), constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["cubin"]

for half in ("*bf16", "*fp16"):
    for drops in (True, False):
        compiles(kernels._add_norm, half, DROPS=drops, BLOCK=1024)
        compiles(kernels._add_norm_backward, half, HAS_GRAD=True, HAS_HALF=drops, DROPS=drops, BLOCK=1024)
    compiles(kernels._gelu_backward, half, HALVES | {"grad"}, BLOCK=1024)
    for drops in (True, False):
        for tile in (16, 64):
            attention = {"DROPS": drops, "TILE_Q": tile, "TILE_K": 64, "WIDTH": 64}
            compiles(triton_attention._attend, half, {"q", "k", "v", "out"}, **attention)
            halves = {"grad", "q", "k", "v", "out", "grad_q", "grad_k", "grad_v"}
            compiles(triton_attention._attend_backward, half, halves, **attention)
    compiles(kernels._adamw, half, {"half"}, NUMBERS - {"scale"}, HAS_HALF=True, BLOCK=2048)
compiles(kernels._column_sums, "", P=512, BLOCK=32)
"""


def test_all_kernels_compile_for_a_gpu_of_capability_9(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
