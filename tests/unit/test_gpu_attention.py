"""Attention of flat batches on a GPU: what of it a CPU can run, and the rest where there is a GPU."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.backends.torch.gpu import attention
from isinglass.backends.torch.gpu.attention import FlashPlan, GpuPlan, PaddedPlan, TritonPlan, padded_length
from isinglass.backends.torch.gpu.dropout import KernelDropout, begin_dropout
from isinglass.backends.torch.gpu.engine import word_row_arrays
from isinglass.backends.torch.gpu.sequences import Projections, SequenceBounds
from isinglass.backends.torch.gpu.staging import to_device
from tests.interpreted import mend_products

CPU = torch.device("cpu")
N, D = 3, 8
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention runs on GPUs only")
in_every_kind = pytest.mark.parametrize("kind", [TritonPlan, FlashPlan, PaddedPlan])
of_pytorch = pytest.mark.parametrize("kind", [FlashPlan, PaddedPlan])
some_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(sorted)


def plan_for(
    kind, lengths, rows: int, dropout: KernelDropout | None = None, device: torch.device = CPU, heads: int = N
) -> GpuPlan:
    return kind.prepare(np.array(lengths), rows, heads, device, dropout)


def attend(q, k, v, weights_kept=1.0):
    """(Lq, N, D) of one example, written out."""
    scores = torch.einsum("qnd,knd->nqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("nqk,knd->qnd", scores.softmax(-1) * weights_kept, v)


def one_by_one(projections: Projections, bounds: SequenceBounds, rate: float) -> torch.Tensor:
    """What `_flash` promises without dropout, one example after another; rows that no sequence has are NaN."""
    (q, k, v), cu_q, cu_k = projections, bounds.cu_q, bounds.cu_k
    assert rate == 0 and cu_q.dtype == cu_k.dtype == torch.int32
    assert bounds.max_q >= int(cu_q.diff().max()) and bounds.max_k >= int(cu_k.diff().max())
    out = torch.full_like(q, math.nan)
    ranges = [(*pair, *keys) for pair, keys in zip(pairwise(cu_q), pairwise(cu_k), strict=True)]
    parts = [attend(q[a:b], k[c:d], v[c:d]) for a, b, c, d in ranges]
    return torch.cat(parts) if sum(map(len, parts)) == len(q) else out


def dropout_on(device: torch.device) -> KernelDropout:
    return KernelDropout(torch.from_numpy(begin_dropout(1, 2, device)).to(device))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


@of_pytorch
@settings(max_examples=25, deadline=None)
@given(lengths=some_lengths, rest=st.integers(1, 9))
def test_each_example_attends_as_if_it_were_alone(kind, lengths: list[int], rest: int):
    """Forward and gradients, with rows to spare: what lies in those must reach no example, and they stay finite."""
    T, H = sum(lengths), N * D
    qkv, q_first, kv = random(T + rest, 3 * H), random(len(lengths), H), random(T + rest, 2 * H)
    plan = plan_for(kind, lengths, T + rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_flash", one_by_one)
        out, first = plan.attend(qkv, 0.1), plan.attend_first(q_first, kv, 0.1)
    assert out.shape == (T + rest, H) and first.shape == (len(lengths), H) and out.isfinite().all()

    expected, expected_first, start = [], [], 0
    for i, length in enumerate(lengths):
        q, k, v = qkv[start : start + length].view(length, 3, N, D).unbind(1)
        expected.append(attend(q, k, v).reshape(length, H))
        k, v = kv[start : start + length].view(length, 2, N, D).unbind(1)
        expected_first.append(attend(q_first[i : i + 1].view(1, N, D), k, v).reshape(1, H))
        start += length
    pairs = ((out[:T], torch.cat(expected), (qkv,)), (first, torch.cat(expected_first), (q_first, kv)))
    for found, wanted, inputs in pairs:
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
        weights = torch.randn_like(wanted)
        of_found, of_wanted = (torch.autograd.grad(y, inputs, weights) for y in (found, wanted))
        for a, b in zip(of_found, of_wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=5e-6)


@of_pytorch
def test_the_real_operators_take_these_arguments(kind):
    """On the meta device, forward and backward: PyTorch may rename or reorder them."""
    lengths, rows, H = [2, 3, 7], 16, N * D
    tensors = {name: torch.from_numpy(array).to("meta") for name, array in kind.arrays(np.array(lengths), rows).items()}
    plan = kind(num_heads=N, max_length=padded_length(np.array(lengths), rows), dropout=dropout_on(CPU), **tensors)
    qkv = torch.empty(rows, 3 * H, dtype=torch.bfloat16, device="meta", requires_grad=True)
    first = torch.empty(3, H, dtype=torch.bfloat16, device="meta", requires_grad=True)
    out = plan.attend(qkv, 0.1).sum() + plan.attend_first(first, qkv[:, H:], 0.1).sum()
    out.backward()
    assert qkv.grad.shape == qkv.shape and first.grad.shape == first.shape
    assert out.dtype == torch.bfloat16


def test_a_plan_is_what_it_says():
    for kind, first in ((FlashPlan, [0, 1, 2, 3]), (TritonPlan, [0, 1, 2, 2])):
        arrays = kind.arrays(np.array([2, 3]), 8)
        assert arrays["cu_seqlens"].tolist() == [0, 2, 5, 8] and arrays["cu_first"].tolist() == first
    arrays = PaddedPlan.arrays(np.array([2, 3]), 6)
    assert arrays["position"].tolist() == [0, 1, 64, 65, 66, 128]
    assert arrays["is_real"].shape == (3, 1, 1, 64) and arrays["is_real"].sum() == 6


def test_rows_and_lengths_take_few_values():
    """Each is a recorded step more on a GPU."""
    tokens = np.arange(1, 10_000)
    rows = np.array([attention.ROWS.rows_for(count) for count in tokens.tolist()])
    assert (rows > tokens).all() and (rows[tokens > 2048] < tokens[tokens > 2048] * 33 / 32 + 1).all()
    assert len(set(rows[tokens < 2048])) == 32 and len(set(rows)) <= 32 + 32 + 32 + 16
    assert padded_length(np.array([3, 64]), 128) == 64 and padded_length(np.array([3, 65]), 128) == 128


@pytest.mark.parametrize(
    ("dtype", "capability", "head_size", "ours", "flash"),
    [
        (torch.bfloat16, (8, 0), 64, None, None),
        (torch.float16, (9, 0), 20, None, "multiple of 8"),
        (torch.float16, (12, 0), 256, "size 128 at most", None),
        (torch.float32, (9, 0), 64, "fp16 and bf16", "fp16 and bf16"),
        (torch.float16, (7, 5), 64, "8.0 is needed, and this one has 7.5", "8.0 is needed, and this one has 7.5"),
        (torch.bfloat16, (9, 0), 264, "size 128 at most", "up to 256"),
    ],
)
def test_a_kind_is_chosen_where_it_runs(monkeypatch, dtype, capability, head_size, ours, flash):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    for why_not, said in ((attention.why_not_triton, ours), (attention.why_not_flash, flash)):
        found = why_not(dtype, capability, head_size)
        assert found is None if said is None else said in found


def test_without_flash_it_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert "without FlashAttention" in attention.why_not_flash(torch.bfloat16, (9, 0), 64)


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Triton's kernels run in its interpreter, FlashAttention's part is taken by what it promises."""
    pytest.importorskip("triton")
    mend_products()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(attention, "_flash", one_by_one)
    return monkeypatch


def leaks(projections: Projections, bounds: SequenceBounds, rate: float) -> torch.Tensor:
    return one_by_one(projections._replace(k=projections.k.roll(1, 0)), bounds, rate)


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("no kernel image\nand more")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for Triton's interpreter")
def test_kernels_that_do_the_right_thing_are_taken(pretended_gpu):
    assert attention.choose_plan(CPU, torch.bfloat16, N, D) == (TritonPlan, None)


def test_flash_comes_second_and_the_reason_is_told(pretended_gpu):
    from isinglass.backends.torch.gpu.triton import attention as triton_attention

    pretended_gpu.setattr(triton_attention, "attend", fails)
    kind, note = attention.choose_plan(CPU, torch.bfloat16, N, D)
    assert kind is FlashPlan and "no kernel image" in note and "256ths" in note and "\n" not in note


@pytest.mark.skipif(torch.cuda.is_available(), reason="for Triton's interpreter")
def test_kernels_that_compute_something_else_are_not_taken(pretended_gpu):
    """Guards against a kernel that takes the arguments in another sense: a wrong model would train on in silence."""
    from isinglass.backends.torch.gpu.triton import attention as triton_attention

    attend = triton_attention.attend
    pretended_gpu.setattr(triton_attention, "attend", lambda qkv, *rest: attend(qkv._replace(k=qkv.k.roll(1, 0)), *rest))
    pretended_gpu.setattr(attention, "_flash", leaks)
    kind, note = attention.choose_plan(CPU, torch.bfloat16, N, D)
    assert kind is PaddedPlan and note.count("off") == 2 and "pads" in note


def test_nothing_is_told_in_fp32_which_has_no_faster_path(pretended_gpu):
    assert attention.choose_plan(CPU, torch.float32, N, D) == (PaddedPlan, None)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_the_rate_given_to_flash_makes_kept_weights_and_divisor_agree(rate):
    """The kernel's arithmetic: it keeps bytes up to floor(255 * keep) of 256, and divides by keep."""
    keep = 1 - attention.flash_rate(rate)
    assert (math.floor(255 * keep) + 1) / 256 == keep or keep == 1
    assert abs(keep - (1 - rate)) <= 1 / 512
    assert attention.flash_rate(0.0) == 0


def test_dropout_depends_on_seed_step_part_and_rank_alone():
    qkv = random(14, 3 * N * D)

    def drawn(seed, step, part=0, rank=0):
        torch.rand(3)  # whatever happened before
        dropout = KernelDropout(torch.from_numpy(begin_dropout(seed, step, CPU, part=part, rank=rank)))
        return plan_for(PaddedPlan, [5, 9], 14, dropout).attend(qkv, 0.5)

    torch.testing.assert_close(drawn(1, 2), drawn(1, 2), rtol=0, atol=0)
    others = [drawn(2, 2), drawn(1, 3), drawn(1, 2, part=1), drawn(1, 2, rank=1)]
    assert not any(torch.equal(drawn(1, 2), other) for other in others)


def skip_if_too_old(kind, device: torch.device) -> None:
    if kind is not PaddedPlan and torch.cuda.get_device_capability(device) < attention.CAPABILITY:
        pytest.skip("too old for sequences end to end")


@needs_gpu
@pytest.mark.parametrize("kind", [TritonPlan, FlashPlan])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_do_on_this_gpu_what_padding_does(kind, dtype):
    device = torch.device("cuda", torch.cuda.current_device())
    skip_if_too_old(kind, device)
    for head_size in (32, 64, 128):
        assert attention.find_failure(kind, device, dtype, 12, head_size) is None


@needs_gpu
@in_every_kind
def test_dropout_on_a_gpu_keeps_its_rate_and_uses_one_mask_for_both_passes(kind):
    """With equal scores and values of 1 each output is the share of weights kept. Heads and examples draw apart."""
    device, dtype, L, heads = torch.device("cuda", torch.cuda.current_device()), torch.float16, 128, 12
    skip_if_too_old(kind, device)
    H = heads * 64

    def attend_by_dropout(qkv):
        return plan_for(kind, [L] * 64, 64 * L, dropout_on(device), device, heads).attend(qkv, 0.1)

    qk = torch.zeros(64 * L, 2 * H, device=device, dtype=dtype)
    qkv = torch.cat([qk, torch.ones(64 * L, H, device=device, dtype=dtype)], 1).requires_grad_()
    out = attend_by_dropout(qkv)
    (grad,) = torch.autograd.grad(out, qkv, torch.ones_like(out))
    out = out.detach()
    assert float(out.float().mean()) == pytest.approx(1, abs=1e-3)
    shares = out.float().view(64, L, heads, 64)[..., 0]
    assert float(shares.std()) == pytest.approx(math.sqrt(0.1 / 0.9 / L), rel=0.05)
    assert abs(float(torch.corrcoef(shares.permute(2, 0, 1).reshape(heads, -1))[0, 1])) < 0.05
    assert abs(float(torch.corrcoef(shares.reshape(64, -1))[0, 1])) < 0.15
    torch.testing.assert_close(grad[:, 2 * H :].float().sum(), out.float().sum(), rtol=1e-3, atol=0)
    torch.testing.assert_close(attend_by_dropout(qkv).detach(), out, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@needs_gpu
@in_every_kind
def test_nothing_waits_for_the_gpu(kind):
    device = torch.device("cuda", torch.cuda.current_device())
    skip_if_too_old(kind, device)
    qkv = torch.randn(24, 3 * N * D, device=device, dtype=torch.float16, requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan_for(kind, [3, 20], 24, dropout_on(device), device).attend(qkv, 0.1).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 9), min_size=1, max_size=40), pad=st.integers(0, 9))
def test_gradients_of_words_are_added_up_word_by_word(ids: list[int], pad: int):
    """As `index_add` does, which on a GPU adds in any order: each word once, the padding word often, but with nothing."""
    arrays = {name: torch.from_numpy(array) for name, array in word_row_arrays(np.array(ids), pad).items()}
    order, bounds, words = arrays["order"], arrays["bounds"], arrays["token_ids"]
    gradient = torch.randn(len(ids), 3)
    sums = torch.segment_reduce(gradient[order], "sum", offsets=bounds, unsafe=True)
    expected = torch.zeros(10, 3).index_add(0, torch.tensor(ids), gradient)
    torch.testing.assert_close(torch.zeros(10, 3).index_add(0, words, sums), expected)
    met = len(set(ids))
    assert len(set(words[:met].tolist())) == met and (words[met:] == pad).all() and (sums[met:] == 0).all()


def test_arrays_come_to_the_device_as_they_were():
    """In one buffer: their shapes, dtypes and values, empty ones too."""
    arrays = {
        "tokens": {"ids": np.arange(5, dtype=np.int32), "empty": np.zeros((0, 3), np.float32)},
        "rest": {
            "labels": np.array([[1.5, -2.5]], np.float32),
            "long": np.array([2**40, -1]),
            "mask": np.array([[True], [False], [True]]),
        },
    }
    tensors = to_device(arrays, CPU)
    assert len({tensor.untyped_storage().data_ptr() for group in tensors.values() for tensor in group.values()}) == 1
    assert {name: list(group) for name, group in tensors.items()} == {name: list(group) for name, group in arrays.items()}
    for name, group in arrays.items():
        for field, array in group.items():
            assert tensors[name][field].numpy().dtype == array.dtype
            np.testing.assert_array_equal(tensors[name][field].numpy(), array)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@needs_gpu
def test_a_copy_to_a_gpu_waits_for_nothing_and_survives_the_next():
    device = torch.device("cuda", torch.cuda.current_device())
    arrays = [{"long": np.full(100_000, i), "short": np.arange(i + 1, dtype=np.int32)} for i in range(50)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [to_device({"pair": pair}, device)["pair"] for pair in arrays]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for pair, tensors in zip(arrays, found, strict=True):
        for name, array in pair.items():
            np.testing.assert_array_equal(tensors[name].cpu().numpy(), array)
