import os
import signal
import subprocess
import sys
import time

import pytest

from espnet_star.bin.star_run import main

TRAINER = """
import logging, sys, time
logging.basicConfig(level="INFO", format="[h] %(asctime)s (x:1) %(levelname)s: %(message)s")
print("printed text", flush=False)
for epoch in (1, 2):
    estimate = ". Estimated time to finish: 1 second" if epoch > 1 else ""
    logging.info(f"{epoch}/2epoch started{estimate}")
    logging.info(f"{epoch}epoch:train:1-10batch: iter_time=1.0e-04, loss=3.5")
    time.sleep(0.1)
    valid = f"[valid] loss={epoch}.25"
    logging.info(f"{epoch}epoch results: [train] loss=3.0, time=1.2 seconds, {valid}")
"""
FAILING = """
import sys
for index in range(30):
    print("line", index)
raise RuntimeError("the cause")
"""
WAITING = """
import signal, subprocess, sys, time
# Quiet: what it says when it is stopped must not stand inside our own lines.
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.DEVNULL
)
def stop(number, frame):
    print("got " + signal.Signals(number).name + chr(10), end="", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("child " + "is " + str(child.pid) + chr(10), end="", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path, capsys):
    def call(code, *options):
        status = 0
        try:
            command = ["--", sys.executable, "-c", code]
            main(
                ["--log", str(tmp_path / "exp" / "x.log"), "--title", "Stage 5", *options, *command]
            )
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr(), tmp_path / "exp" / "x.log"

    return call


def test_epochs_are_shown_and_the_log_is_complete(run):
    status, captured, log = run(TRAINER)
    assert status == 0
    lines = captured.out.splitlines()
    assert lines[0] == f"Stage 5: started, output in {log}"
    assert lines[1].startswith("Stage 5: epoch 1/2 took")
    assert lines[2].endswith("train loss 3, valid loss 2.25")
    assert lines[3].startswith("Stage 5: done in ")
    assert len(lines) == 4
    assert "\r" not in captured.out
    content = log.read_text().splitlines()
    assert content[0].startswith("# 20")
    assert "python" in content[0]
    assert "printed text" in content


def test_former_logs_are_rotated(run):
    for word in ("first", "second", "third"):
        _, _, log = run(f"print('{word}')")
    assert "third" in log.read_text()
    assert "second" in log.with_name("x.log.1").read_text()
    assert "first" in log.with_name("x.log.2").read_text()


def test_failure_shows_the_cause_first_and_the_end_of_the_log(run):
    status, captured, log = run(FAILING)
    lines = captured.out.splitlines()
    assert status == 1
    assert lines[1].startswith("Stage 5: failed with exit code 1")
    assert str(log) in lines[1]
    assert lines[2] == "  RuntimeError: the cause"
    assert len(lines) == 3 + 15
    assert lines[-1] == "  | RuntimeError: the cause"


@pytest.mark.parametrize(
    ("code", "status"),
    [("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_exit_code_is_the_commands(run, code, status):
    assert run(code)[0] == status


def test_command_that_does_not_exist(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--log", str(tmp_path / "x.log"), "--", "no-such-program-here"])
    assert stop.value.code == 2
    assert "star_run: error: no-such-program-here: cannot be" in capsys.readouterr().err


def test_no_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--log", str(tmp_path / "x.log"), "--"])
    assert stop.value.code == 2
    assert "give the command after --" in capsys.readouterr().err


def test_standard_input_is_closed(run):
    assert run("import sys; sys.exit(len(sys.stdin.read()))")[0] == 0


def test_marker_is_written_on_success_and_skips_the_next_run(run, tmp_path):
    marker = tmp_path / "new" / "done"
    assert run("import sys; sys.exit(1)", "--done", str(marker))[0] == 1
    assert not marker.exists()
    assert run("print('second')", "--done", str(marker))[0] == 0
    assert marker.exists()
    status, captured, log = run("print('third')", "--done", str(marker))
    assert status == 0
    assert captured.out == "Stage 5: done before, skipped\n"
    assert "second" in log.read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_is_forwarded_to_the_group(tmp_path, number, status):
    log = tmp_path / "x.log"
    command = [sys.executable, "-m", "espnet_star.bin.star_run", "--log", str(log), "--"]
    runner = subprocess.Popen(
        [*command, sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while "child is" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    grandchild = int(log.read_text().split("child is")[1].split()[0])
    runner.send_signal(number)
    output, _ = runner.communicate(timeout=20)
    assert runner.returncode == status
    assert f"got {number.name}" in log.read_text()
    assert output.splitlines()[-1].endswith("running the same command again resumes")
    assert number.name in output
    deadline = time.monotonic() + 10
    while _running(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for is dead too.
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not status.stdout.strip().startswith("Z") and bool(status.stdout.strip())


def test_terminal_line_is_redrawn(tmp_path):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "espnet_star.bin.star_run", "--log", str(tmp_path / "x.log")]
    code = TRAINER.replace("0.1", "0.7")
    runner = subprocess.Popen(
        [*command, "--title", "T", "--", sys.executable, "-c", code], stdout=slave
    )
    assert runner.wait(timeout=30) == 0
    os.close(slave)
    output = os.read(master, 65536).decode()
    os.close(master)
    assert "\r\x1b[KT: 0:00:0" in output
    assert "epoch 1/2, batch 10, loss 3.5" in output
    assert output.count("\n") == 2
