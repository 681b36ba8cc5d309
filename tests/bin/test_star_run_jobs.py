import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from espnet_star.bin.star_run import main
from espnet_star.jobs.display import JobsDisplay, shorten
from espnet_star.jobs.runner import Job, Run

TRAINER = """
import logging, time
logging.basicConfig(level="INFO", format="[h] %(asctime)s (x:1) %(levelname)s: %(message)s")
for epoch in (1, 2):
    logging.info(f"{epoch}/2epoch started")
    time.sleep(0.6)
    logging.info(f"{epoch}epoch results: [train] loss=3.0, [valid] loss={epoch}.25, acc=0.5")
"""
FAILING = """
for index in range(30):
    print("line", index)
raise RuntimeError("the cause")
"""
WAITING = """
import signal, sys, time
def stop(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def write(tmp_path):
    def call(**codes):
        lines = []
        for name, code in codes.items():
            command = code if isinstance(code, list) else [sys.executable, "-c", code]
            # Jobs are lines of a file, so programs go there as a file too.
            if "\n" in command[-1]:
                script = tmp_path / f"{name}.py"
                script.write_text(command[-1])
                command = [sys.executable, str(script)]
            log, done = tmp_path / "log" / f"{name}.log", tmp_path / "done" / name
            lines.append("\t".join([name, str(log), str(done), shlex.join(command)]))
        (tmp_path / "jobs.tsv").write_text("\n".join(["# a comment", "", *lines]) + "\n")
        return tmp_path / "jobs.tsv"

    return call


@pytest.fixture
def run(capsys):
    def call(jobs, *options):
        status = 0
        try:
            main(["--jobs", str(jobs), "--title", "Stage 9: ASR", *options])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out.splitlines()

    return call


def test_jobs_get_lines_logs_and_markers(run, write, tmp_path):
    status, lines = run(write(a=TRAINER, b="print('of b')"), "--nj", "2")
    assert status == 0
    assert lines[0] == f"Stage 9: ASR: 2 jobs, 2 at once; logs such as {tmp_path}/log/a.log"
    assert lines[1].startswith("Stage 9: ASR: b: done in ")
    assert lines[2].startswith("Stage 9: ASR: a: done in ")
    assert lines[2].endswith(", train loss 3, valid loss 2.25, valid acc 0.5")
    assert lines[3].startswith("Stage 9: ASR: 2/2 done in ")
    assert len(lines) == 4
    assert "of b" in (tmp_path / "log" / "b.log").read_text()
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["a", "b"]


def test_jobs_with_a_marker_are_skipped(run, write, tmp_path):
    jobs = write(a="print('a')", b="print('b')")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a").touch()
    status, lines = run(jobs)
    assert status == 0
    assert lines[0].startswith("Stage 9: ASR: 2 jobs, 1 of them done before, 1 at once; logs")
    assert lines[-1].startswith("Stage 9: ASR: 2/2 done in")
    assert lines[-1].endswith(", 1 of them before")
    assert not (tmp_path / "log" / "a.log").exists()
    assert run(jobs) == (0, ["Stage 9: ASR: all 2 jobs done before, skipped"])


def test_no_more_than_nj_at_once_and_in_order(run, write, tmp_path):
    code = "import time; print(time.time()); time.sleep(0.3); print(time.time())"
    assert run(write(**dict.fromkeys("abcd", code)), "--nj", "2")[0] == 0
    times = {
        name: [float(x) for x in (tmp_path / "log" / f"{name}.log").read_text().split("\n")[1:3]]
        for name in "abcd"
    }
    # c starts after the first of a and b has ended, d after two have.
    assert times["c"][0] >= min(times["a"][1], times["b"][1])
    assert times["d"][0] >= sorted(times[name][1] for name in "abc")[1]


def test_after_a_failure_the_running_ones_finish_and_none_starts(run, write, tmp_path):
    slow = "import time; time.sleep(1.5)"
    status, lines = run(write(bad=FAILING, slow=slow, never="print(1)"), "--nj", "2")
    assert status == 1
    assert (tmp_path / "done" / "slow").exists()
    assert not (tmp_path / "done" / "bad").exists()
    assert not (tmp_path / "log" / "never.log").exists()
    # Told at once, and in full after the last job has ended.
    failed = [index for index, line in enumerate(lines) if ": bad: failed" in line]
    slow_end = next(index for index, line in enumerate(lines) if ": slow: done" in line)
    assert failed[0] < slow_end < failed[1]
    assert lines[failed[1]] == lines[failed[0]]
    assert "with exit code 1 after " in lines[failed[0]]
    assert lines[failed[0]].endswith(f", log: {tmp_path}/log/bad.log")
    assert lines[failed[1] + 1] == "  RuntimeError: the cause"
    assert len([line for line in lines if line.startswith("  | ")]) == 15
    assert lines[-1].startswith("Stage 9: ASR: 1/3 done, 1 failed in ")
    assert lines[-1].endswith(", 1 not started")


def test_first_failure_gives_the_exit_code(run, write):
    slow = "import sys, time; time.sleep(1); sys.exit(3)"
    assert run(write(slow=slow, fast="import sys; sys.exit(7)"), "--nj", "2")[0] == 7


def test_program_that_does_not_exist(run, write):
    slow = "import time; time.sleep(0.5)"
    jobs = write(slow=slow, bad=["no-such-program-here", "x"], never="print(1)")
    status, lines = run(jobs, "--nj", "3")
    assert status == 2
    assert "Stage 9: ASR: bad: no-such-program-here: cannot be started" in lines[-2]
    assert "1/3 done, 1 failed in" in lines[-1]
    assert lines[-1].endswith("1 not started")


def test_environment_by_env_and_quotes_without_a_shell(run, write, tmp_path):
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.argv[1:])"
    command = ["env", "OMP_NUM_THREADS=3", sys.executable, "-c", code, "two words", "$HOME;ls"]
    assert run(write(a=command))[0] == 0
    content = (tmp_path / "log" / "a.log").read_text()
    assert "3 ['two words', '$HOME;ls']" in content


def start(jobs, *options):
    command = [sys.executable, "-m", "espnet_star.bin.star_run", "--jobs", str(jobs), "--nj", "2"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)


def wait_for(*logs, text="ready\n"):
    deadline = time.monotonic() + 20
    while not all(log.exists() and text in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_signal_reaches_every_running_job(write, tmp_path):
    runner = start(write(a=WAITING, b=WAITING, c=WAITING), "--title", "T")
    logs = [tmp_path / "log" / f"{name}.log" for name in "ab"]
    wait_for(*logs)
    runner.send_signal(signal.SIGTERM)
    output, _ = runner.communicate(timeout=20)
    assert runner.returncode == 143
    assert all("got SIGTERM" in log.read_text() for log in logs)
    # A job that ended well because it was told to has not done its work.
    assert not list((tmp_path / "done").iterdir())
    assert not (tmp_path / "log" / "c.log").exists()
    last = output.splitlines()[-1]
    assert last.startswith("T: interrupted by SIGTERM, 0/3 done in")
    assert last.endswith("1 not started; running the same command again resumes")


def test_second_signal_kills(write, tmp_path):
    runner = start(write(a=STUBBORN, b=WAITING))
    wait_for(tmp_path / "log" / "a.log", tmp_path / "log" / "b.log")
    runner.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "log" / "b.log", text="got SIGTERM")
    assert runner.poll() is None
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(timeout=20) == 143


def test_jobs_stop_when_the_display_cannot_be_written(write, tmp_path):
    quick = "import time; time.sleep(1)"
    runner = start(write(a=quick, b=WAITING))
    wait_for(tmp_path / "log" / "b.log")
    runner.stdout.close()
    assert runner.wait(timeout=20) != 0
    wait_for(tmp_path / "log" / "b.log", text="got SIGTERM")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\tx.log\tdone", "jobs.tsv:1: expected name, log, done-marker, command"),
        ("a x.log done ls", "found 1 of them"),
        ("a\tx.log\t\tls", "found 3 of them"),
        ("a\tx.log\tdone\tls 'x", "jobs.tsv:1: cannot split the command (No closing"),
        ("a\tx.log\td1\tls\nb\tx.log\td2\tls", "jobs.tsv:2: log x.log is that of line 1 too"),
        ("a\tx.log\td1\tls\na\ty.log\td2\tls", "jobs.tsv:2: name a is that of line 1 too"),
        ("a\tx.log\td1\tls\nb\ty.log\td1\tls", "done-marker d1 is that of line 1 too"),
        ("# nothing", "jobs.tsv: no job in it"),
    ],
)
def test_bad_lists(tmp_path, capsys, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    Path("jobs.tsv").write_text(line + "\n")
    with pytest.raises(SystemExit) as stop:
        main(["--jobs", "jobs.tsv"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("x.log").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "x", "--log", "y", "--done", "z"], "drop --log, --done"),
        (["--jobs", "x", "--", "ls"], "drop a command after --"),
        (["--jobs", "x", "--nj", "0"], "--nj must be at least 1, got 0"),
        (["--jobs", "no-such-file"], "no-such-file: cannot be read"),
        (["--log", "x", "--nj", "2", "--", "ls"], "--nj goes with --jobs"),
        ([], "give --log and a command after --, or --jobs"),
    ],
)
def test_options_that_contradict(capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_terminal_gets_one_line(write, tmp_path):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    jobs = write(first=TRAINER, second=TRAINER)
    command = [sys.executable, "-m", "espnet_star.bin.star_run", "--jobs", str(jobs)]
    runner = subprocess.Popen([*command, "--nj", "2", "--title", "T"], stdout=slave)
    assert runner.wait(timeout=30) == 0
    os.close(slave)
    output = os.read(master, 65536).decode()
    os.close(master)
    assert "\r\x1b[KT: 0:00:0" in output
    assert "0/2 done, first 1/2, second 1/2" in output
    assert "first 2/2 0:00:0" in output
    assert " left, second 2/2 " in output
    assert output.count("\n") == 2


@pytest.fixture
def runs(tmp_path):
    made = []
    for name in ("asr_star_librispeech_seed1", "asr_star_librispeech_seed2"):
        job = Job(name, tmp_path / f"{name}.log", ("true",))
        run = Run(job, threading.Event())
        run.progress.feed("1/40epoch started")
        run.progress.feed("2/40epoch started")
        made.append(run)
    return made


@pytest.mark.parametrize("width", [80, 120])
def test_names_make_room_for_the_progress(runs, width):
    state = JobsDisplay("Stage 9", io.StringIO(), 8, 3).state(runs, width)
    assert len(state) <= width
    assert state.startswith("Stage 9: 0:00:00, 3/8 done, a")
    assert state.count("2/40 0:00:00 left") == 2
    assert "1 2/40" in state and "2 2/40" in state


def test_shorten():
    texts = {width: shorten("abcdefghi", width) for width in (9, 8, 5, 0)}
    assert texts == {9: "abcdefghi", 8: "abc..ghi", 5: "a..hi", 0: ".."}


def test_start_is_light():
    code = (
        "import sys, espnet_star.__main__, espnet_star.bin.star_run;"
        "print(sorted({'torch', 'transformers', 'espnet2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
