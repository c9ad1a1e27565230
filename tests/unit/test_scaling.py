"""The plan for more than one machine: bytes, parts of a step, and schedules against their bound."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import scaling

A100, CPU = scaling.clusters()["a100-bf16"], scaling.clusters()["cpu-fp32"]


def jobs(seed: int, count: int, widest: int = 1) -> list[tuple[float, int]]:
    rng = np.random.default_rng(seed)
    return [
        (float(seconds), int(width)) for seconds, width in zip(rng.exponential(1, count), rng.integers(1, widest + 1, count))
    ]


def test_a_ring_sends_twice_what_the_others_hold():
    """Each device sends 2 (n - 1) / n of the gradient: with two devices each half there and back, with one nothing."""
    assert scaling.all_reduce_bytes(1000, 1) == 0
    assert scaling.all_reduce_bytes(1000, 2) == 1000
    assert scaling.all_reduce_bytes(1000, 4) == 1500
    assert scaling.all_reduce_bytes(1000, 10**6) < 2000


def test_an_exchange_takes_longer_with_more_devices_and_nothing_alone():
    times = [scaling.exchange_seconds(A100, n, 4e8) for n in scaling.DEVICES]
    assert times[0] == 0
    assert times == sorted(times)


def test_within_a_node_the_network_does_not_count():
    slow = dataclasses.replace(A100, network_bandwidth=1.0)
    assert scaling.exchange_seconds(slow, 8, 4e8) == scaling.exchange_seconds(A100, 8, 4e8)
    assert scaling.exchange_seconds(slow, 16, 4e8) > scaling.exchange_seconds(A100, 16, 4e8)


def test_bert_base_has_its_number_of_parameters():
    """Guards against a formula that omits a bias: the checkpoint of bert-base-uncased holds 109,482,240 parameters."""
    assert scaling.BERT_BASE.shared + scaling.BERT_BASE.vocabulary * scaling.BERT_BASE.hidden == 109_482_240
    assert scaling.MINILM.shared + scaling.MINILM.vocabulary * scaling.MINILM.hidden == 22_713_216


def test_operations_are_six_for_each_weight_of_the_layers_without_attention():
    H = 768
    assert scaling.BERT_BASE.flops(0) == 6 * 12 * (12 * H * H)
    assert scaling.BERT_BASE.flops(128) == pytest.approx(scaling.BERT_BASE.flops(0) * (1 + 128 / (6 * H)))


def test_more_devices_than_examples_change_nothing():
    assert scaling.step_parts(A100, "mnli", 32, 32) == scaling.step_parts(A100, "mnli", 32, 1024)


def test_the_waits_are_never_less_than_the_last_bucket_nor_more_than_all_exchanges():
    for n in scaling.WIDTHS[1:]:
        parts = scaling.step_parts(A100, "mnli", 32, n)
        small = scaling.SMALL_EXCHANGES * scaling.exchange_seconds(A100, n, 0)
        assert 0 < parts["waits"] <= parts["all_reduce"] + parts["rows"] + small
    parts = scaling.step_parts(CPU, "mnli", 32, 8)  # hides no exchange behind computation
    small = scaling.SMALL_EXCHANGES * scaling.exchange_seconds(CPU, 8, 0)
    assert parts["waits"] == pytest.approx(parts["all_reduce"] + parts["rows"] + small)


def test_a_run_never_gains_more_than_its_devices():
    """The lower bound of shared runs counts the work on one device. It holds only if sharing never saves work."""
    for task in ("cola", "mnli"):
        for one in (A100, CPU):
            times = [scaling.run_seconds(one, task, 32, n) * n for n in scaling.WIDTHS]
            assert times == sorted(times)


@pytest.mark.parametrize("devices", [1, 3, 8, 40])
def test_a_schedule_keeps_all_work_and_no_schedule_ends_before_the_bound(devices):
    for seed in range(20):
        work = jobs(seed, 30)
        free = scaling.schedule(work, devices)
        assert len(free) == devices
        assert sum(free) == pytest.approx(sum(seconds for seconds, _ in work))  # one device each: no job waits for another
        assert free[-1] >= scaling.lower_bound(work, devices) * (1 - 1e-12)


@pytest.mark.parametrize("devices", [2, 4, 16])
def test_wide_jobs_wait_for_all_their_devices(devices):
    for seed in range(20):
        work = jobs(seed, 25, widest=devices)
        free = scaling.schedule(work, devices)
        assert sum(free) >= sum(seconds * width for seconds, width in work) * (1 - 1e-12)
        assert free[-1] >= scaling.lower_bound(work, devices) * (1 - 1e-12)
    assert scaling.schedule([(3, 1), (2, devices)], devices) == [5] * devices


@pytest.mark.parametrize("devices", [2, 3, 5])
def test_longest_first_is_within_four_thirds_of_the_shortest_schedule(devices):
    """The bound is from Graham 1969. The shortest schedule is found by trying every assignment of eight jobs."""
    for seed in range(4):
        seconds = [one for one, _ in jobs(seed, 8)]
        loads = {(0.0,) * devices}
        for one in seconds:
            loads = {tuple(sorted((*load[:i], load[i] + one, *load[i + 1 :]))) for load in loads for i in range(devices)}
        shortest = min(load[-1] for load in loads)
        ends = scaling.schedule(scaling.longest_first([(one, 1) for one in seconds]), devices)[-1]
        assert shortest * (1 - 1e-12) <= ends <= (4 / 3 - 1 / (3 * devices)) * shortest * (1 + 1e-12)


@pytest.mark.parametrize("devices", [1, 16, 64, 1024])
def test_the_sweep_keeps_its_bounds_and_longest_first_within_four_thirds_of_them(devices):
    figures = scaling.sweep(scaling.clusters()["a100-fp32"], A100, devices)
    least = 1 - 1e-12
    assert figures["bound"] <= figures["bound_single"]
    assert figures["submitted"] >= figures["bound_single"] * least
    assert figures["bound_single"] * least <= figures["longest_first"] <= 4 / 3 * figures["bound_single"]
    assert figures["bound"] * least <= figures["shared"] <= figures["longest_first"] / least


def test_shards_by_tokens_are_never_fuller_than_by_counts_and_alike_at_the_ends():
    """With one rank, or with as many ranks as examples, both ways to form shards must give the same."""
    for task in ("mrpc", "rte"):
        for ranks in scaling.WIDTHS:
            by_tokens, by_counts = (scaling.unevenness(task, 32, ranks, cut) for cut in (True, False))
            assert 1 <= by_tokens <= by_counts
        assert scaling.unevenness(task, 32, 1) == 1
        assert scaling.unevenness(task, 32, 32) == pytest.approx(scaling.unevenness(task, 32, 32, False))
        assert scaling.unevenness(task, 32, 8) < 1.05


def test_the_line_through_measured_steps_finds_what_made_them():
    steps = [("bench", "rte", flops, 0.05 + flops / 1e11) for flops in (1e10, 4e10, 1e11)]
    rate, fixed = scaling.fit(steps)
    assert rate == pytest.approx(1e11)
    assert fixed == pytest.approx(0.05)


def test_an_assumption_is_changed_by_pattern_and_a_wrong_one_is_named():
    found = scaling.changed(scaling.clusters(), "a100-*.fixed_seconds=0.004")
    assert {name: one.fixed_seconds == 0.004 for name, one in found.items() if "cpu" not in name} == {
        "a100-fp32": True,
        "a100-bf16": True,
        "ethernet-fp32": False,
        "ethernet-bf16": False,
    }
    for wrong in ("a100-*.speed=1", "h100.overlap=1", "a100-bf16.overlap=x", "a100-bf16.node_devices=0", "overlap"):
        with pytest.raises(SystemExit, match=r"expected CLUSTER\.FIELD=NUMBER"):
            scaling.changed(found, wrong)


def test_every_assumption_has_a_source_and_the_result_file_all_tables():
    fields = {field.name for field in dataclasses.fields(scaling.Cluster)} - {"model"}
    assert fields == set(scaling.SOURCES)
    rows = [json.loads(line) for line in (scaling.RESULTS / "scaling.jsonl").read_text().splitlines()]
    assert {row["table"] for row in rows} == {
        "assumption",
        "lengths",
        "measured",
        "published",
        "run",
        "floor",
        "balance",
        "sweep",
    }
