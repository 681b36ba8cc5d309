"""Ctrl-C, as a terminal sends it: to the process that trains and to its data loaders."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from star_runs import distillation, training

LM = ["--token_type", "char", "--lm", "transformer", "--lm_conf", "unit=8"]
LM += ["--lm_conf", "layer=1", "--lm_conf", "head=2", "--lm_conf", "att_unit=8"]


@pytest.mark.parametrize("tool", ["star_train", "lm_train"])
def test_workers_do_not_turn_it_into_a_crash(
    tool, teacher_directory, data_directory, tiny_options, tmp_path
):
    """Fails if Ctrl-C with --num_workers ends in tracebacks of the workers and exit code 1."""
    exp = tmp_path / "exp"
    if tool == "star_train":
        options = distillation(teacher_directory, data_directory, exp, tiny_options)
    else:
        options = [*training(data_directory, exp), *LM, "--token_list", f"{data_directory}/tokens"]
        options = [part.replace("wav.scp,speech,sound", "text,text,text") for part in options]
    options += ["--num_workers", "2", "--max_epoch", "100000", "--keep_nbest_models", "1"]
    started = subprocess.Popen(
        [sys.executable, "-m", "espnet_star", tool, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        seen = []
        for line in started.stderr:
            seen.append(line)
            if "3/100000epoch started" in line:
                break
        assert started.poll() is None, "".join(seen)[-3000:]
        time.sleep(0.3)
        os.killpg(started.pid, signal.SIGINT)
        _, rest = started.communicate(timeout=120)
        code = started.returncode
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    assert (code, "Traceback" in rest) == (130, False), rest[-3000:]
    assert rest.splitlines()[-1] == f"{tool}: interrupted"
