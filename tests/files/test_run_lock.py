"""One run at a time in a folder, and no lock that outlives its process."""

import multiprocessing
import os
import signal
import time

import pytest

from espnet_star.errors import StarError
from espnet_star.files.run_lock import exclusive


def hold(directory):
    with exclusive(directory):
        (directory / "held").touch()
        time.sleep(60)


def test_a_second_run_is_told_who_holds_the_folder_until_that_is_killed(tmp_path):
    """Fails if two runs may write to one folder, or a killed one blocks it for good."""
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    message = f"another run is writing here \\(process {process.pid} "
    with pytest.raises(StarError, match=message), exclusive(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with exclusive(tmp_path):
        pass


def test_one_after_the_other(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / "new"):
            assert (tmp_path / "new" / ".lock").read_text()
