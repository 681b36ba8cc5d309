"""An interruption that Python cannot hand on where it arrives."""

import os
import signal
import subprocess
import sys

from espnet_star.terminal.failures import INTERRUPTED_CODE

# Ctrl-C while an object is taken down, as a data loader is at the end of each epoch.
PROGRAM = """
import os, signal, time
from espnet_star.terminal.failures import one_line

class Loader:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

with one_line("star_train"):
    Loader()
    time.sleep(20)
    print("trained on")
"""


def test_an_interruption_during_the_end_of_an_object_is_not_lost():
    """Fails if Ctrl-C between two epochs, in a loader's __del__, leaves the run going on."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (ended.returncode, ended.stdout) == (INTERRUPTED_CODE, "")
    assert ended.stderr == "star_train: interrupted\n"
