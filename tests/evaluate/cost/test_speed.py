"""A bug here makes every published timing unfair, or times another model than is used."""

import math

import pytest
import torch

from espnet_star.evaluate.cost import speed
from espnet_star.evaluate.cost.speed import (
    interleaved,
    measure_memory,
    measure_speed,
    peak_key,
    real_time_factors,
    rtf_key,
)
from espnet_star.evaluate.cost.subjects import find_subjects
from espnet_star.kernels import prepared
from espnet_star.students import StarEncoder


def test_sides_take_turns_in_alternating_order():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(sides, repeats=3, warmup=1)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(time >= 0 for times in seconds.values() for time in times)


def test_a_result_is_gone_before_the_next_side_starts():
    """Else a side would run with the memory of another one in its way."""
    alive = []

    class Result:
        def __init__(self):
            assert not alive
            alive.append(1)

        def __del__(self):
            alive.pop()

    interleaved({"a": Result, "b": Result}, repeats=2)
    assert not alive


@pytest.fixture
def quick(monkeypatch):
    """A single run is long enough to be timed; who ran, and how, is kept."""
    runs = []

    def run(model, speech):
        ready = [module for module in model.modules() if module in prepared._PREPARED]
        runs.append((model, speech.shape, bool(ready), torch.is_inference_mode_enabled()))
        return real(model, speech)

    real = speed.run
    monkeypatch.setattr(speed, "SHORTEST_SAMPLE", 0.0)
    monkeypatch.setattr(speed, "run", run)
    return runs


def test_factors_are_seconds_per_second(monkeypatch, quick):
    """Fails if the number of runs in a sample or the length of the audio is left out."""
    monkeypatch.setattr(speed, "enough", lambda model, wave: 4)
    taken = {"a": [1.0, 3.0]}
    monkeypatch.setattr(speed, "interleaved", lambda sides, repeats, warmup: taken)
    assert real_time_factors({"a": torch.nn.Identity()}, 0.5, 2) == {"a": [0.5, 1.5]}


def test_a_sample_is_long_enough_for_a_clock(monkeypatch):
    """Fails if short runs are timed one by one: 1 + 2 + 4 runs of 1 s until 4 s are reached."""
    now = {"now": 0.0}
    monkeypatch.setattr(speed, "SHORTEST_SAMPLE", 4.0)
    monkeypatch.setattr(speed, "run", lambda *_: now.update(now=now["now"] + 1))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now["now"])
    assert speed.enough(torch.nn.Identity(), torch.zeros(1, 400)) == 4
    assert now["now"] == 7


def test_models_are_timed_as_they_are_used(quick, tiny_student, teacher_directory, tmp_path):
    """Fails if students are timed unprepared, with gradients or without their weights."""
    tiny_student.save_pretrained(tmp_path)
    subjects = find_subjects([f"student={tmp_path}", f"teacher={teacher_directory}"])
    said, threads = [], torch.get_num_threads()
    rows = measure_speed(subjects, [0.1, 0.2], [1], 3, said.append)
    assert torch.get_num_threads() == threads
    assert said == ["timing 0.1 s of audio, threads: 1", "timing 0.2 s of audio, threads: 1"]
    for row in rows:
        assert set(row) == {k for s in (0.1, 0.2) for k in (rtf_key(s, 1), f"all_{rtf_key(s, 1)}")}
        for s in (0.1, 0.2):
            every = row[f"all_{rtf_key(s, 1)}"]
            assert len(every) == 3 and min(every) > 0
            assert math.isclose(row[rtf_key(s, 1)], sorted(every)[1])
    assert {shape for _, shape, _, _ in quick} == {(1, 1600), (1, 3200)}
    assert all(inference for *_, inference in quick)
    students = [(model, ready) for model, _, ready, _ in quick if isinstance(model, StarEncoder)]
    assert 0 < len(students) < len(quick)
    assert all(ready is prepared.available() for _, ready in students)
    for key, value in students[0][0].state_dict().items():
        assert torch.equal(value, tiny_student.state_dict()[key])


def test_memory_of_a_model_at_work(tiny_student, tmp_path):
    """Fails if the new process cannot find a labeled model; 60 s of its first states alone
    take 8 channels of 192,000 floats."""
    tiny_student.save_pretrained(tmp_path)
    said = []
    (row,) = measure_memory(find_subjects([f"tiny={tmp_path}"]), [60.0], 1, said.append)
    assert row.keys() == {peak_key(60.0)}
    assert 8 * 192_000 * 4 <= row[peak_key(60.0)] < 10**9
    assert said == ["memory of tiny"]
