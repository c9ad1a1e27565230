"""Attention of flat batches on a GPU: the parts that a CPU can run, and the rest if there is a GPU."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from isinglass.backends.torch.batch import NO_DROPOUT, Dropout
from isinglass.backends.torch.gpu import attention
from isinglass.backends.torch.gpu.attention import (
    GpuPlan,
    KernelDropout,
    PaddedPlan,
    begin_dropout,
    padded_length,
    sequence_lengths,
)
from isinglass.backends.torch.gpu.backend import word_row_arrays
from isinglass.backends.torch.gpu.graphs import to_device
from isinglass.backends.torch.gpu.triton import attention as triton_attention
from isinglass.backends.torch.gpu.triton.attention import TritonPlan
from tests.interpreted import mend_products

CPU = torch.device("cpu")
N, D = 3, 8
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled kernels run on GPUs only")
in_every_kind = pytest.mark.parametrize("kind", [TritonPlan, PaddedPlan])
some_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(sorted)


def plan_for(kind, lengths, dropout: Dropout = NO_DROPOUT, device: torch.device = CPU, heads: int = N) -> GpuPlan:
    return kind.prepare(np.array(lengths), heads, device, dropout)


def attend(q, k, v, weights_kept=1.0):
    """Return the attention of one example, (Lq, N, D), computed explicitly."""
    scores = torch.einsum("qnd,knd->nqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("nqk,knd->qnd", scores.softmax(-1) * weights_kept, v)


def dropout_on(device: torch.device) -> KernelDropout:
    return KernelDropout(torch.from_numpy(begin_dropout(1, 2, device)).to(device))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


@settings(max_examples=25, deadline=None)
@given(lengths=some_lengths)
def test_each_example_attends_as_if_it_were_alone(lengths: list[int]):
    """What spare rows contain must reach no example, forward or backward, and outputs and gradients must stay finite."""
    T, H = sum(lengths), N * D
    rows = int(sequence_lengths(np.array(lengths)).sum())
    qkv, q_first, kv = random(rows, 3 * H), random(len(lengths), H), random(rows, 2 * H)
    plan = plan_for(PaddedPlan, lengths)
    out, first = plan.attend(qkv, 0.1), plan.attend_first(q_first, kv, 0.1)
    assert out.shape == (rows, H) and first.shape == (len(lengths), H) and out.isfinite().all()

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


def test_a_plan_is_what_it_says():
    arrays = TritonPlan.arrays(np.array([2, 3, 3]))
    assert arrays["cu_seqlens"].tolist() == [0, 2, 5, 8] and arrays["cu_first"].tolist() == [0, 1, 2, 2]
    arrays = PaddedPlan.arrays(np.array([2, 3, 1]))
    assert arrays["position"].tolist() == [0, 1, 64, 65, 66, 128]
    assert arrays["is_real"].shape == (3, 1, 1, 64) and arrays["is_real"].sum() == 6


def test_rows_and_lengths_take_few_values():
    """Each value costs another recorded step on a GPU."""
    tokens = np.arange(1, 10_000)
    rows = np.array([sequence_lengths(np.array([count])).sum() for count in tokens.tolist()])
    assert (rows > tokens).all() and (rows[tokens > 2048] < tokens[tokens > 2048] * 33 / 32 + 1).all()
    assert len(set(rows[tokens < 2048])) == 32 and len(set(rows)) <= 32 + 32 + 32 + 16
    assert padded_length(np.array([3, 64])) == 64 and padded_length(np.array([3, 65])) == 128


@pytest.mark.parametrize(
    ("capability", "head_size", "told"),
    [
        ((8, 0), 64, None),
        ((9, 0), 20, None),
        ((12, 0), 256, "size 128 at most"),
        ((7, 5), 64, "8.0 is needed, and this one has 7.5"),
    ],
)
def test_our_kernels_are_tried_where_they_may_run(capability, head_size, told):
    found = attention.why_not_triton(capability, head_size)
    assert found is None if told is None else told in found


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Triton's kernels run in its interpreter."""
    mend_products()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return monkeypatch


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("no kernel image\nand more")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for Triton's interpreter")
def test_kernels_that_do_the_right_thing_are_taken(pretended_gpu):
    assert attention.choose_plan(CPU, torch.bfloat16, N, D) == (TritonPlan, None)


def test_kernels_that_fail_are_not_taken_and_the_reason_is_told(pretended_gpu):
    pretended_gpu.setattr(triton_attention, "attend", fails)
    kind, note = attention.choose_plan(CPU, torch.bfloat16, N, D)
    assert kind is PaddedPlan and "no kernel image" in note and "pads" in note and "\n" not in note


@pytest.mark.skipif(torch.cuda.is_available(), reason="for Triton's interpreter")
def test_kernels_that_compute_something_else_are_not_taken(pretended_gpu):
    """Guards against a kernel that interprets its arguments differently: a wrong model would train on silently."""
    attend = triton_attention.attend
    pretended_gpu.setattr(triton_attention, "attend", lambda qkv, *rest: attend(qkv._replace(k=qkv.k.roll(1, 0)), *rest))
    kind, note = attention.choose_plan(CPU, torch.bfloat16, N, D)
    assert kind is PaddedPlan and note.count("off") == 1 and "pads" in note


def test_nothing_is_told_in_fp32_which_has_no_faster_path(pretended_gpu):
    assert attention.choose_plan(CPU, torch.float32, N, D) == (PaddedPlan, None)


def test_dropout_depends_on_seed_step_part_and_rank_alone():
    qkv = random(64, 3 * N * D)

    def drawn(seed, step, part=0, rank=0):
        torch.rand(3)  # earlier draws must not matter
        dropout = KernelDropout(torch.from_numpy(begin_dropout(seed, step, CPU, part=part, rank=rank)))
        return plan_for(PaddedPlan, [5, 9], dropout).attend(qkv, 0.5)

    torch.testing.assert_close(drawn(1, 2), drawn(1, 2), rtol=0, atol=0)
    others = [drawn(2, 2), drawn(1, 3), drawn(1, 2, part=1), drawn(1, 2, rank=1)]
    assert not any(torch.equal(drawn(1, 2), other) for other in others)


def skip_if_too_old(kind, device: torch.device) -> None:
    if kind is not PaddedPlan and torch.cuda.get_device_capability(device) < attention.CAPABILITY:
        pytest.skip("too old for sequences end to end")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_do_on_this_gpu_what_padding_does(dtype):
    device = torch.device("cuda", torch.cuda.current_device())
    skip_if_too_old(TritonPlan, device)
    for head_size in (32, 64, 128):
        assert attention.find_failure(TritonPlan, device, dtype, 12, head_size) is None


@needs_gpu
@in_every_kind
def test_dropout_on_a_gpu_keeps_its_rate_and_uses_one_mask_for_both_passes(kind):
    """With equal scores and values of 1, each output is the share of weights kept. Heads and examples draw separately."""
    device, dtype, L, heads = torch.device("cuda", torch.cuda.current_device()), torch.float16, 128, 12
    skip_if_too_old(kind, device)
    H = heads * 64

    def attend_by_dropout(qkv):
        return plan_for(kind, [L] * 64, dropout_on(device), device, heads).attend(qkv, 0.1)

    rows = int(sequence_lengths(np.array([L] * 64)).sum())
    qk = torch.zeros(rows, 2 * H, device=device, dtype=dtype)
    qkv = torch.cat([qk, torch.ones(rows, H, device=device, dtype=dtype)], 1).requires_grad_()
    out = attend_by_dropout(qkv)
    (grad,) = torch.autograd.grad(out, qkv, torch.ones_like(out))
    out = out.detach()
    assert float(out.float().mean()) == pytest.approx(1, abs=1e-3)
    shares = out[: 64 * L].float().view(64, L, heads, 64)[..., 0]
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
    qkv = torch.randn(64, 3 * N * D, device=device, dtype=torch.float16, requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan_for(kind, [3, 20], dropout_on(device), device).attend(qkv, 0.1).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 9), min_size=1, max_size=40), pad=st.integers(0, 9))
def test_gradients_of_words_are_added_up_word_by_word(ids: list[int], pad: int):
    """The sums must equal those of `index_add`, which on a GPU adds in any order.

    Each token id is listed once. The pad id is listed often, but adds nothing.
    """
    arrays = {name: torch.from_numpy(array) for name, array in word_row_arrays(np.array(ids), pad).items()}
    order, bounds, words = arrays["order"], arrays["bounds"], arrays["token_ids"]
    gradient = torch.randn(len(ids), 3)
    sums = torch.segment_reduce(gradient[order], "sum", offsets=bounds, unsafe=True)
    expected = torch.zeros(10, 3).index_add(0, torch.tensor(ids), gradient)
    torch.testing.assert_close(torch.zeros(10, 3).index_add(0, words, sums), expected)
    met = len(set(ids))
    assert len(set(words[:met].tolist())) == met and (words[met:] == pad).all() and (sums[met:] == 0).all()


def test_arrays_come_to_the_device_as_they_were():
    """Shapes, dtypes and values must survive the copy in one buffer, also those of empty arrays."""
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
