"""A bug here makes every published timing unfair, or attributes it to another machine."""

import json
from pathlib import Path

import harness
import memory_work
import pytest

from espnet_star.errors import StarError

MEGABYTE = 10**6


def test_sides_take_turns_in_alternating_order():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = harness.interleaved(sides, repeats=3, warmup=1)
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

    harness.interleaved({"a": Result, "b": Result}, repeats=2)
    assert not alive


def test_peak_memory_of_a_known_allocation():
    size = 200 * MEGABYTE
    assert harness.peak_memory(memory_work.allocate, size) == pytest.approx(size, rel=0.2)


def test_a_killed_process_is_named():
    with pytest.raises(StarError, match=r"be_killed\(\).* exit code -9; it was killed, .*memory"):
        harness.peak_memory(memory_work.be_killed)


def test_a_failing_process_says_why():
    with pytest.raises(StarError, match=r"fail\(\).* raised ValueError: two lines"):
        harness.peak_memory(memory_work.fail)


@pytest.fixture
def args(tmp_path):
    """Options that write both files, in a folder to be made."""
    files = ["--json", str(tmp_path / "new" / "x.json"), "--markdown", str(tmp_path / "new/x.md")]
    return harness.arguments(None, repeats=3).parse_args(["--threads", "1", *files])


COLUMNS = {"model": ("model", ""), "seconds": ("s", ".2f")}
ROWS = [{"model": "a|b", "seconds": 1.25, "all": [1.0, 1.5]}, {"model": "c", "seconds": None}]


def test_publish_round_trip(args, capsys):
    text = harness.publish("Title", COLUMNS, ROWS, args, ["A note."])
    assert capsys.readouterr().out == text
    assert Path(args.markdown).read_text(encoding="utf-8") == text
    assert text.startswith(
        "# Title\n\n| model | s |\n|---|---:|\n| a\\|b | 1.25 |\n| c | - |\n\n- A note.\n"
    )
    content = json.loads(Path(args.json).read_text(encoding="utf-8"))
    assert content["rows"] == ROWS
    assert content["notes"] == ["A note."]
    assert content["machine"]["threads"] == 1
    assert {"cpu", "cores", "torch", "date", "command"} <= content["machine"].keys()
    assert f"{content['machine']['cores']} cores, at most 1 threads" in text


def test_one_table_for_each_group(args):
    text = harness.publish("Title", {"seconds": ("s", ".2f")}, ROWS, args, by="model")
    assert "## a|b\n\n| s |\n|---:|\n| 1.25 |\n\n## c\n\n| s |\n|---:|\n| - |\n" in text


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", ""])
def test_options_must_be_positive_integers(value, capsys):
    with pytest.raises(SystemExit):
        harness.arguments(None, repeats=3).parse_args(["--repeats", value])
    assert f"expected a positive integer, got {value!r}" in capsys.readouterr().err
