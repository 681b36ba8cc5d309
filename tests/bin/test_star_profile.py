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
    status, captured = call(
        "--upstream", "starhubert", "--output", str(tmp_path / "new" / "p.json")
    )
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
        "--upstream", "distilhubert", str(tmp_path / "student"), "demo",
        "--lengths", str(tmp_path / "lengths"),
    )  # fmt: skip
    assert status == 0, captured.err
    header, _, *rows = captured.out.splitlines()
    assert "on disk (MB)" in header
    names = [row.split(" | ")[0].strip("| ") for row in rows[:3]]
    assert names == ["distilhubert", str(tmp_path / "student"), "demo"]
    size = (tmp_path / "student" / "model.safetensors").stat().st_size
    assert [row.split(" | ")[2] for row in rows[:3]] == ["-", f"{size / 1e6:.1f}", "-"]


def test_a_misspelled_model_stops_before_anything_is_measured(call):
    status, captured = call("--upstream", "starhubert", "starhuber")
    assert status == 2
    assert captured.out == ""
    assert "star_profile: error: unknown model (or directory) 'starhuber'" in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.fixture
def student(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return str(tmp_path / "student")


@pytest.fixture
def files(tmp_path):
    """Options for every file that can be written, and short lengths."""
    (tmp_path / "lengths").write_text("16000\n")
    metrics = {"sid_acc": 0.452}
    systems = [
        {"key": "student", "system": "STaR", "params": 1, "metrics": metrics},
        {"key": "logmel", "system": "logmel", "params": 0, "metrics": metrics},
    ]
    (tmp_path / "results.json").write_text(json.dumps({"systems": systems, "machine": {}}))
    options = {"--output": [str(tmp_path / "new" / f"p.{form}") for form in ("json", "md", "svg")]}
    options |= {"--results": str(tmp_path / "results.json"), "--y": "sid_acc"}
    return options | {"--leave_out": "logmel", "--lengths": str(tmp_path / "lengths")}


def flat(options):
    pairs = (
        (name, [given] if isinstance(given, str) else given) for name, given in options.items()
    )
    return [word for name, given in pairs for word in (name, *given)]


def test_everything_at_once(call, student, files, tmp_path, monkeypatch):
    """Fails if a number that was asked for is missing from a file, or files disagree."""
    monkeypatch.setattr("espnet_star.evaluate.cost.compare.load_average", lambda: 1.25)
    status, captured = call(
        "--upstream", "demo", f"student={student}", *flat(files), "--x", "rtf", "--speed", "true",
        "--memory", "true", "--seconds", "0.5", "--threads", "1", "--repeats", "2",
    )  # fmt: skip
    assert status == 0, captured.err
    assert "RTF of 0.5 s, 1 thread | peak memory of 0.5 s (MiB) |" in captured.out
    assert "star_profile: timing 0.5 s of audio, threads: 1" in captured.err
    assert "warning: other processes are at work (load 1.2)" in captured.err
    assert (tmp_path / "new" / "p.md").read_text() == captured.out
    content = json.loads((tmp_path / "new" / "p.json").read_text())
    assert [row["model"] for row in content["models"]] == ["demo", "student"]
    for row in content["models"]:
        assert row["rtf_0.5s_1t"] > 0 and len(row["all_rtf_0.5s_1t"]) == 2
        assert row["peak_bytes_0.5s"] > 0
    svg = (tmp_path / "new" / "p.svg").read_text()
    assert ">student<" in svg and ">demo<" not in svg
    assert ">real-time factor, 0.5 s of audio, 1 thread<" in svg


def test_what_is_there_is_replaced_only_when_told_to(call, student, files, tmp_path):
    (tmp_path / "new").mkdir()
    for path in files["--output"]:
        (tmp_path / path).write_text("kept")
        status, captured = call("--upstream", f"student={student}", *flat(files))
        assert (status, captured.out) == (2, "")
        assert f"--output {path}: already there; give --force true to replace it" in captured.err
        assert (tmp_path / path).read_text() == "kept"
        (tmp_path / path).unlink()
    figure = tmp_path / "new" / "p.svg"
    figure.write_text("old")
    status, _ = call("--upstream", f"student={student}", *flat(files), "--force", "true")
    assert status == 0
    assert ">student<" in figure.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speed", "true", "--threads", "1000"], "--threads 1000: there are "),
        (["--memory", "true", "--seconds", "0.02"], "--seconds 0.02: expected at least 0.025 s"),
        (["--speed", "true", "--seconds", "nan"], "--seconds nan: expected at least"),
        (["--x", "rtf"], "--x rtf needs --speed true"),
        (["--x", "memory"], "--x memory needs --memory true"),
        (["--x", "bytes", "--upstream", "student=demo"], "--x bytes: student has no files"),
        (["--y", "wer"], "--y: no system has wer; there are sid_acc"),
        (["--leave_out", "other"], "--leave_out: no system 'other', only student, logmel"),
        (["--upstream", "demo", "--leave_out", "student"], "no model for the system logmel; give"),
        (["--output", "cost.bmp"], "--output cost.bmp: expected a name that ends in .json"),
        (["--results", "absent.json"], "absent.json: cannot be read"),
    ],
)
def test_options_that_cannot_be(options, message, call, student, files, tmp_path, monkeypatch):
    """Each is told in one line before anything is measured or written."""
    monkeypatch.setattr("espnet_star.evaluate.cost.compare.profile", None)
    status, captured = call("--upstream", f"student={student}", *flat(files), *options)
    assert (status, captured.out) == (2, "")
    assert message in captured.err and len(captured.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made(call, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/p.json", "file/new/p.json"):
        status, captured = call("--upstream", "demo", "--output", str(tmp_path / name))
        assert (status, captured.out) == (2, "")
        assert f"--output {tmp_path / name}: no folder for it (" in captured.err
    (tmp_path / "d.json").mkdir()
    status, captured = call(
        "--upstream", "demo", "--output", str(tmp_path / "d.json"), "--force", "true"
    )
    assert status == 2 and "cannot be written there; choose another file" in captured.err


def test_a_figure_needs_all_its_options(call):
    status, captured = call("--upstream", "demo", "--output", "cost.svg", "--y", "sid_acc")
    assert status == 2 and "cost.svg: a figure needs --results FILE and --y METRIC" in captured.err
    status, captured = call("--upstream", "demo", "--y", "sid_acc")
    assert status == 2 and "give --output FILE.svg too" in captured.err
    status, captured = call("--upstream", "demo", "--threads", "0")
    assert status == 2 and "expected a positive integer, got '0'" in captured.err


def test_module_runs_through_the_dispatcher(tmp_path):
    (tmp_path / "lengths").write_text("400\n")
    command = [sys.executable, "-m", "espnet_star", "star_profile", "--upstream", "demo"]
    done = subprocess.run(
        [*command, "--lengths", str(tmp_path / "lengths")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("| model | params (M) |")
