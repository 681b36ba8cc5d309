"""A rank that died is named; one that lives, starts late or has finished is not."""

import json
import os
import socket
import time

import pytest

from espnet_star.errors import StarError
from espnet_star.training.heartbeat import Heartbeat


def write(folder, rank, **changes):
    content = {"host": "node7", "pid": 41, "beat": "41:1", "state": "running"} | changes
    folder.mkdir(exist_ok=True)
    (folder / str(rank)).write_text(json.dumps(content))


def watcher(tmp_path, ready=True, **options):
    options = {"patience": 0.2, "interval": 0.05} | options
    return Heartbeat(tmp_path, 0, 2, ready=lambda: ready, **options)


def test_a_silent_rank_is_named_after_patience(tmp_path):
    """Fails if a silent rank is not noticed, or a live one is declared dead."""
    beat = watcher(tmp_path)
    for number in range(8):
        write(beat.folder, 1, beat=f"41:{number}")
        assert beat.lost() is None
        time.sleep(0.05)
    time.sleep(0.25)
    assert beat.lost().startswith("rank 1 on node7 (process 41) has died")


def test_a_file_of_the_run_before_proves_nothing_until_the_group_stands(tmp_path):
    """Fails if a restart is ended because of the rank that died before it."""
    beat = watcher(tmp_path, ready=False)
    write(beat.folder, 1, state="failed: RuntimeError: old")
    time.sleep(0.3)
    assert beat.lost() is None


def test_a_failed_rank_gives_its_reason_and_a_finished_one_none(tmp_path):
    beat = watcher(tmp_path)
    write(beat.folder, 1, state="failed: OSError: disk is full")
    assert beat.lost() == "rank 1 on node7 (process 41) failed: OSError: disk is full"
    beat = watcher(tmp_path)
    write(beat.folder, 1, state="finished")
    beat.lost()
    time.sleep(0.3)
    assert beat.lost() is None


def test_a_process_of_this_machine_is_missed_at_once(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    beat = watcher(tmp_path, patience=60)
    write(beat.folder, 1, host=socket.gethostname(), pid=child)
    assert "has died" in beat.lost()


def test_an_error_of_communication_becomes_the_name_of_the_dead_rank(tmp_path):
    """Fails if the user reads "connection closed by peer" and not which node to look at."""
    beat = watcher(tmp_path)
    write(beat.folder, 1)
    message = r"rank 1 on node7 .* has died.*run the same command"
    with pytest.raises(StarError, match=message), beat:
        raise RuntimeError("[gloo] Connection closed by peer")


@pytest.mark.parametrize("error", [StarError("bad key"), RuntimeError("shapes"), MemoryError()])
def test_other_errors_stay_what_they_are_and_are_left_for_the_others(tmp_path, error):
    beat = watcher(tmp_path, patience=60)
    write(beat.folder, 1)
    with pytest.raises(type(error)), beat:
        raise error
    assert json.loads((beat.folder / "0").read_text())["state"].startswith("failed: ")


def test_a_process_that_waits_in_vain_is_ended_with_a_message(tmp_path, capfd, monkeypatch):
    """Fails if NCCL's silent wait for a dead node goes on."""
    monkeypatch.setattr("espnet_star.training.heartbeat.GRACE", 0.1)
    codes = []
    beat = watcher(tmp_path, die=codes.append)
    write(beat.folder, 1)
    with beat:
        time.sleep(1.0)
    assert codes == [2]
    assert "error: rank 1 on node7 (process 41) has died" in capfd.readouterr().err


def test_an_absent_rank_is_named_while_the_group_forms(tmp_path, capfd):
    with watcher(tmp_path, ready=False):
        time.sleep(0.6)
    assert capfd.readouterr().err.count("rank 0: waiting for rank 1") == 1
