"""A bug here runs a job in the wrong environment, loses its exit code, or leaves it running."""

import importlib
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from espnet_star.bin.fork import as_tool, modules, starter
from espnet_star.jobs.runner import Command, Job

TOOL = [sys.executable, "-m", "espnet_star"]


def job(name, command):
    return Job(name, Path(f"{name}.log"), tuple(command))


def test_only_our_tools_by_our_own_python_are_forked(tmp_path):
    """Another environment's Python would get this one's packages."""
    assert as_tool([*TOOL, "star_score", "table", "--output", "x"]) == (
        "star_score",
        ["table", "--output", "x"],
    )
    assert as_tool([*TOOL, "cls_train", "--x"]) == ("cls_train", ["--x"])
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    for command in (
        [str(other), *TOOL[1:], "star_score"],
        [*TOOL, "collect_stats"],
        TOOL,
        [sys.executable, "script.py", "espnet_star", "star_score"],
        ["env", "A=1", *TOOL, "star_score"],
    ):
        assert as_tool(command) is None, command


def test_modules_that_jobs_share_are_imported_once():
    """Fails if a stage of trainings imports ESPnet in each of them again."""
    for tool in ("star_score", "asr_train", "cls_inference"):
        for name in modules(tool):
            importlib.import_module(name)
    assert "espnet2.bin.asr_train" in modules("asr_train")
    assert modules("star_data", ["tokens", "--text", "x"]) == ["espnet_star.bin.star_data.tokens"]
    assert "espnet2.tasks.cls" in sys.modules


def test_a_single_job_is_a_process_of_its_own():
    """One fork would pay for the server and gain nothing."""
    tool = [*TOOL, "star_score"]
    assert starter([job("a", tool), job("b", ["ls"])]) is Command
    assert starter([job("a", tool), job("b", tool)]) is not Command


@pytest.fixture
def star_run(tmp_path):
    """Start ``star_run --jobs`` as its users do."""

    def call(jobs, **options):
        rows = []
        for name, command in jobs.items():
            log, done = tmp_path / f"{name}.log", tmp_path / f"{name}.done"
            rows.append("\t".join([name, str(log), str(done), shlex.join(command)]))
        (tmp_path / "jobs").write_text("\n".join(rows))
        return subprocess.Popen(
            [*TOOL, "star_run", "--jobs", str(tmp_path / "jobs"), "--nj", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )

    return call


def test_forks_write_their_logs_and_exit_as_processes_do(star_run, tmp_path):
    """Errors of one job must reach its own log, and its exit code the shell."""
    (tmp_path / "ref").write_text("u1 one two\nu2 three\n")
    (tmp_path / "hyp").write_text("u1 one\nu2 three\n")
    score = [*TOOL, "star_score", "asr", "--ref", str(tmp_path / "ref")]
    jobs = {
        "good": [*score, "--hyp", str(tmp_path / "hyp"), "--output", str(tmp_path / "good.json")],
        "bad": [*score, "--hyp", str(tmp_path / "absent"), "--output", str(tmp_path / "bad.json")],
    }
    process = star_run(jobs)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2, output
    assert (tmp_path / "good.done").exists()
    assert not (tmp_path / "bad.done").exists()
    header, *lines = (tmp_path / "good.log").read_text().splitlines()
    assert header.startswith("# ") and "star_score asr" in header
    assert lines and "absent" not in "\n".join(lines)
    assert (tmp_path / "good.json").exists()
    assert f"star_score: error: {tmp_path / 'absent'}" in (tmp_path / "bad.log").read_text()
    assert "bad: failed with exit code 2" in output


def test_what_the_imports_say_stays_off_the_terminal(star_run):
    """Fails if the process that imports ESPnet for all jobs tells what ESPnet lacks."""
    command = [*TOOL, "asr_train", "--print_config"]
    process = star_run({"a": command, "b": command})
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "Flash Attention" not in output and "nltk" not in output


SLOW = """
import multiprocessing, os, time

def main(cmd):
    print("starts by", multiprocessing.get_start_method())
    print("argv", cmd, "group", os.getpgrp() == os.getpid(), "threads", os.environ["THREADS"])
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print("ready", child)
    time.sleep(60)
"""


def test_a_signal_ends_forks_and_what_they_have_started(star_run, tmp_path):
    """Ctrl-C in a stage must not leave trainers and their data loaders behind."""
    # A tool that waits: a module put beside the real ones through the package's path.
    site = tmp_path / "site"
    site.mkdir()
    (site / "star_wait.py").write_text(SLOW)
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
        import espnet_star.bin
        espnet_star.bin.__path__.append({str(site)!r})
        """)
    )
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    tool = [*TOOL, "star_wait", "--x"]
    process = star_run(
        {"a": tool, "b": tool}, env=os.environ | {"PYTHONPATH": path, "THREADS": "3"}
    )
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    deadline = time.monotonic() + 60
    while not all(log.exists() and "ready" in log.read_text() for log in logs):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 143, output
    for log in logs:
        text = log.read_text()
        assert "argv ['--x'] group True threads 3" in text
        # Data loaders started by another server would import ESPnet in every epoch.
        assert f"starts by {multiprocessing.get_start_method()}\n" in text
        child = int(text.split("ready ")[1].split()[0])
        assert not is_running(child), f"{log.name}: its child is left"


def is_running(pid):
    """Whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except OSError:
        return False
