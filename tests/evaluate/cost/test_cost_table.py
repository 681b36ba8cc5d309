"""A bug here shows a number under another one's heading."""

import json

import pytest

from espnet_star.evaluate.cost.table import Column, Timing, columns, markdown, report
from espnet_star.evaluate.machine import machine_facts

COUNTED = {"model": "a|b", "params": 22_308_592, "bytes": None, "macs": 1.5e9}
ROWS = [
    COUNTED
    | {"rtf_1s_1t": 0.0491, "rtf_1s_2t": 0.0374, "rtf_5s_1t": 0.02, "rtf_5s_2t": 0.01}
    | {"all_rtf_1s_1t": [0.04, 0.0491, 0.06], "peak_bytes_1s": 8 * 2**20, "peak_bytes_5s": 2**24},
    {"model": "c", "params": 1_000_000, "macs": 1e9, "macs_per_second": 2.5e8},
]


def test_a_table_of_counts():
    lines = markdown(report(ROWS[1:], [16000, 8000])).splitlines()
    assert lines[:3] == [
        "| model | params (M) | MACs (G) | MACs per second of audio (G) |",
        "| --- | ---: | ---: | ---: |",
        "| c | 1.00 | 1.0 | 0.25 |",
    ]
    assert "2 utterances, 1.50 s in all" in lines[-1]
    assert len(lines) == 5


def test_a_table_of_everything():
    lines = markdown(report(ROWS, [16000], Timing((1.0, 5.0), (1, 2), 3, 2, 4.46))).splitlines()
    assert lines[0] == (
        "| model | params (M) | MACs (G) | MACs per second of audio (G) | RTF of 1 s, 1 / 2 "
        "threads | RTF of 5 s, 1 / 2 threads | peak memory of 1 / 5 s (MiB) |"
    )
    assert lines[2] == "| a\\|b | 22.31 | 1.5 | - | 0.0491 / 0.0374 | 0.0200 / 0.0100 | 8 / 16 |"
    assert lines[3] == "| c | 1.00 | 1.0 | 0.25 | - / - | - / - | - / - |"
    text = "\n".join(lines)
    assert "median of 3, all models in turn in one process; students after prepare()" in text
    assert "threads: 2, a fresh process for each number" in text
    assert f"{machine_facts()['cores']} cores" in lines[-1]
    assert "; load before: 4.5. Command: " in lines[-1]
    assert machine_facts()["command"] in lines[-1]


@pytest.mark.parametrize("timing", [None, Timing((0.5,), (1,), 3), Timing((0.5,), (), 0, 1)])
def test_json_round_trip(timing):
    """Fails if a table cannot be written again from the JSON file."""
    content = report(ROWS, [16000], timing)
    again = json.loads(json.dumps(content))
    assert again == content
    assert markdown(again) == markdown(content)


def test_columns_follow_what_was_timed():
    """Fails if memory alone shows a column of times, or times one of memory."""
    found = columns(report([], [400], Timing((0.5,), (), 0, 1)))
    assert [column.key for column in found if "0.5" in column.key] == ["peak_bytes_0.5s"]
    timed = report([{"model": "a", "rtf_0.5s_1t": 0.5}], [400], Timing((0.5,), (1,), 3))
    assert markdown(timed).startswith("| model | RTF of 0.5 s, 1 thread |")


def test_a_cell_of_several_numbers():
    column = Column("a", "A", unit=10, digits=1, more=("b",))
    assert column.cell({"a": 5, "b": 20}) == "0.5 / 2.0"
    assert column.cell({"b": 0}) == "- / 0.0"
    assert column.fills({"b": 0}) and not column.fills({"a": None})
