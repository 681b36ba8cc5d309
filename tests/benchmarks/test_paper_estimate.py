"""A bug here promises the paper's run at a wrong price."""

import paper_estimate
import pytest
from paper_estimate import Assumptions, Card, Work, estimate

CARD = Card(half=100.0, float32=10.0, tf32=50.0)
WORK = Work(teacher_macs=10, student_macs=5, objective_macs=2, parameters=100, seconds=2.0)
ASSUMED = Assumptions(
    utilization=0.5,
    objective="float32",
    launch_seconds=0.1,
    nvlink=700.0,
    network=100.0,
    workers=2,
    decode_rate=10.0,
    file_rate=1000.0,
)


def test_the_objective_takes_the_cheaper_form():
    """2 frames: 4 * (2 * 8 + 9) = 100 against 2 * 2 * (18 + 30 + 25) = 292; 100: by width."""
    assert paper_estimate.objective_macs(2, 3, 5, layers=1) == 100
    assert paper_estimate.objective_macs(100, 1, 1, layers=1) == 2 * 100 * 5


def test_compute_counts_backward_twice_and_the_objective_at_its_own_rate():
    """2 * (10 + 15) / 100 + 2 * 2 / 10 = 0.9 s at full rate, 1.8 s at half of it."""
    seconds = paper_estimate.compute_seconds(WORK, 3, CARD, ASSUMED)
    assert seconds == pytest.approx(3 * 1.8)
    faster = Assumptions(**(vars(ASSUMED) | {"objective": "tf32"}))
    assert paper_estimate.compute_seconds(WORK, 1, CARD, faster) == pytest.approx(2 * 0.58)
    slower = Assumptions(**(vars(ASSUMED) | {"launch_seconds": 60.0}))
    assert paper_estimate.compute_seconds(WORK, 1, CARD, slower) == 60.0


def test_a_ring_sends_nearly_twice_the_gradients():
    """400 bytes: none alone, 700 within a node of 8, 787.5 over the network for 64."""
    found = [paper_estimate.exchange_seconds(100, gpus, ASSUMED) for gpus in (1, 8, 64)]
    assert found == pytest.approx([0.0, 1.0, 7.875])


def test_a_run_bound_by_the_gpus():
    """8 GPUs take 6 of 48 utterances each: 10.8 s and 1 s, 12 s of speech of 20 a second."""
    row = estimate(8, CARD, WORK, ASSUMED)
    assert (row["share"], row["batch"], row["updates"]) == (6, 48, 586_000)
    assert row["needed_rate"] == pytest.approx(12 / 11.8)
    assert row["data_bound"] == "no"
    assert row["hours"] == pytest.approx(586_000 * 11.8 / 3600)
    assert row["hours"] == pytest.approx(row["compute_hours"] + row["exchange_hours"])
    assert row["gpu_hours"] == pytest.approx(8 * row["hours"])
    assert row["disk_mb"] == pytest.approx(96 * 1000 / 11.8 / 1e6)


def test_a_run_bound_by_its_data():
    """0.05 s of speech decoded in a second by each of two workers: 20 s an utterance."""
    slow = Assumptions(**(vars(ASSUMED) | {"decode_rate": 0.05}))
    row = estimate(48, CARD, WORK, slow)
    assert row["share"] == 1
    assert row["data_bound"] == "yes"
    assert row["hours"] == pytest.approx(586_000 * 20 / 3600)
    assert row["loading_hours"] == row["hours"]


def test_more_gpus_than_utterances_get_one_each_and_say_so():
    row = estimate(64, CARD, WORK, ASSUMED)
    assert (row["share"], row["batch"], row["updates"]) == (1, 64, 439_500)
    assert row["hours"] == pytest.approx(439_500 * (1.8 + 7.875) / 3600)
    (said,) = [
        note
        for note in paper_estimate.notes(WORK, ASSUMED, [{"card": "X"} | row])
        if "cannot feed" in note
    ]
    assert "16 GPUs would idle" in said
    assert f"take {586_000 * 9.675 / 3600:.1f} h" in said
