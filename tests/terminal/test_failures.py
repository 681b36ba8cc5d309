"""How commands end that do not succeed; a bug here shows a user forty lines, or hides why."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from espnet_star.bin.command import run_tool
from espnet_star.errors import StarError
from espnet_star.terminal import failures


def broken():
    """Fails inside of the package, with a message of several lines."""
    return torch.nn.Module().load_state_dict({"a": 1})


def failing(capsys, code, work=broken):
    with pytest.raises(SystemExit) as stop:
        run_tool("star_x", work)
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def kept(line):
    """Text of the file that a line names."""
    return Path(line.split("the traceback is in ")[1].split(" (")[0]).read_text()


def test_what_nobody_expected_is_a_line_and_a_file(tmp_path, capsys, monkeypatch):
    """Fails if a user sees a traceback, or whoever is to mend it sees none."""
    monkeypatch.setattr(sys, "argv", ["espnet-star", "star_x", "--output_dir", str(tmp_path)])
    line = failing(capsys, 1)
    assert line.startswith("star_x: error: unexpected RuntimeError in run_tool (espnet_star/bin/")
    assert "Error(s) in loading state_dict" in line
    assert "ESPNET_STAR_DEBUG=1" in line
    assert f"the traceback is in {tmp_path}/traceback.star_x." in line
    text = kept(line)
    assert "Unexpected key(s) in state_dict" in text
    assert "in broken" in text
    assert "--output_dir" in text.splitlines()[1]


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_no_folder_is_made_for_a_traceback(folder, tmp_path, capsys, monkeypatch):
    """Fails if a command that wants its folder to be new finds it there the next time."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(sys, "argv", ["x", f"--output_dir={tmp_path / folder}"])
    assert "in broken" in kept(failing(capsys, 1))
    assert not (tmp_path / "absent").exists()
    assert len(list(tmp_path.glob("traceback.star_x.*.txt"))) == 1


def test_a_folder_that_a_configuration_names(tmp_path, capsys):
    def work():
        failures.note_folder(tmp_path)
        broken()

    assert f"in {tmp_path}/traceback.star_x." in failing(capsys, 1, work)


def test_a_developer_sees_the_exception(monkeypatch):
    monkeypatch.setenv(failures.DEBUG, "1")
    with pytest.raises(RuntimeError, match="loading state_dict"):
        run_tool("star_x", broken)


def test_a_users_mistake_stays_what_it_was(capsys):
    def work():
        raise StarError("do this")

    assert failing(capsys, 2, work) == "star_x: error: do this"


def test_a_log_keeps_the_traceback(tmp_path):
    """Fails if the log of a training, which is sent to others, does not tell what happened."""
    code = "from espnet_star.bin.command import run_tool; run_tool('star_x', lambda: 1 / 0)"
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run([sys.executable, "-c", code], stderr=log, check=False)
    assert done.returncode == 1
    *trace, last = (tmp_path / "log").read_text().splitlines()
    assert "ZeroDivisionError: division by zero" in trace
    assert last.startswith("star_x: error: unexpected ZeroDivisionError")


def failing_rank(rank):
    with failures.one_line(f"rank {rank}", worker=True):
        if rank == 1:
            raise StarError("the disk is full")


def test_a_rank_says_itself_why_it_ends(capfd):
    """Fails if a rank's error of one line becomes the traceback of two processes."""

    def work():
        context = torch.multiprocessing.get_context("spawn")
        processes = [context.Process(target=failing_rank, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        started = torch.multiprocessing.ProcessContext(processes, ["", ""])
        while not started.join():
            pass

    with pytest.raises(SystemExit) as stop:
        run_tool("star_x", work)
    assert stop.value.code == 2
    said = capfd.readouterr().err
    # Some builds of torch log beside it that they end the other rank.
    assert [line for line in said.splitlines() if "Terminating process" not in line] == [
        "rank 1: error: the disk is full"
    ]
