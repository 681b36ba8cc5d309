import json
import subprocess
import sys

import pytest

from espnet_star.bin.star_profile import main


@pytest.fixture
def call(capsys):
    def run(*options):
        status = 0
        try:
            main(list(options))
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr()

    return run


def test_the_published_row(call, tmp_path):
    """Fails if the command's default lengths or its table are not the published ones."""
    status, captured = call("--models", "starhubert", "--json", str(tmp_path / "new" / "p.json"))
    assert status == 0, captured.err
    assert captured.out.splitlines()[2] == "| starhubert | 22.31 | 463.5 | 2.06 |"
    assert "224.86 s" in captured.out
    content = json.loads((tmp_path / "new" / "p.json").read_text())
    (row,) = content["models"]
    assert row["params"] == 22_308_592
    assert round(row["macs"] / 1e9, 1) == 463.5
    assert len(content["samples"]) == 32


def test_directories_and_lengths(call, tiny_student, tmp_path):
    """Fails if a directory's size is not shown beside presets, or the order changes."""
    tiny_student.save_pretrained(tmp_path / "student")
    (tmp_path / "lengths").write_text("16000\n")
    status, captured = call(
        "--models", "distilhubert", str(tmp_path / "student"), "demo",
        "--lengths", str(tmp_path / "lengths"),
    )  # fmt: skip
    assert status == 0, captured.err
    header, _, *rows = captured.out.splitlines()
    assert "on disk (MB)" in header
    names = [row.split(" | ")[0].strip("| ") for row in rows[:3]]
    assert names == ["distilhubert", str(tmp_path / "student"), "demo"]
    size = (tmp_path / "student" / "model.safetensors").stat().st_size
    assert [row.split(" | ")[2] for row in rows[:3]] == ["-", f"{size / 1e6:.1f}", "-"]


def test_a_misspelt_model_stops_before_anything_is_measured(call):
    status, captured = call("--models", "starhubert", "starhuber")
    assert status == 2
    assert captured.out == ""
    assert "star_profile: error: unknown model (or directory) 'starhuber'" in captured.err
    assert len(captured.err.splitlines()) == 1


def test_module_runs_through_the_dispatcher(tmp_path):
    (tmp_path / "lengths").write_text("400\n")
    command = [sys.executable, "-m", "espnet_star", "star_profile", "--models", "demo"]
    done = subprocess.run(
        [*command, "--lengths", str(tmp_path / "lengths")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("| model | params (M) |")
