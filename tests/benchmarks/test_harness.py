"""A bug here shows numbers that were not measured, or attributes them to another machine."""

import json
from pathlib import Path

import harness
import pytest


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
