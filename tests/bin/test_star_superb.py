"""SUPERB from the command line: two of s3prl's own tasks to the end, and everything that fails."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import yaml
from superb_corpora import all_of_them, iemocap, voxceleb1

from espnet_star.bin.star_superb import main
from espnet_star.evaluate.superb.runner import GpuPool
from espnet_star.evaluate.superb.tasks import TASKS

CONF = Path(__file__).resolve().parents[2] / "conf"
FILES = [str(CONF / "superb.yaml"), str(CONF / "superb_rehearsal.yaml")]
S3PRL = all(importlib.util.find_spec(name) for name in ("s3prl", "sed_eval", "librosa"))

# Stands where an interpreter with s3prl would: it answers the probe, and "-m s3prl.main" by
# writing the task's result, failing, leaving nothing or waiting, as a file tells it.
STAND_IN = """
import json, pathlib, sys, time, yaml
told = json.loads(pathlib.Path(__file__).with_name("told.json").read_text())
if "-m" not in sys.argv:
    missing = {k: v for k, v in told["missing"].items() if k in sys.argv}
    print(json.dumps({"versions": {"espnet-s3prl": "1"}, "missing": missing}))
    raise SystemExit
name = sys.argv[3]
folder = pathlib.Path(sys.argv[sys.argv.index("--target_dir") + 1])
with (folder / "starts").open("a") as file:
    file.write("x")
what = told["tasks"].get(name, "work")
if what == "wait":
    print("ready", flush=True)
    time.sleep(60)
if what == "fail":
    raise RuntimeError("no such phoneme")
if what == "work":
    path = folder / told["results"][name]
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("per", "wer", "accuracy", "EER", "der", "slot_type_f1", "slot_value_cer")
    path.write_text(yaml.safe_dump(dict.fromkeys(keys, 0.25)))
"""


@pytest.fixture
def world(tmp_path, monkeypatch, tiny_student):
    """A home folder of its own, a student, and a way to lay YAML over the rehearsal."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tiny_student.save_pretrained(tmp_path / "student")
    return tmp_path


@pytest.fixture
def call(world, capsys, monkeypatch):
    """Run the command; returns its exit code and what it has written."""
    monkeypatch.setenv("PATH", os.environ["PATH"])

    def run(*options, upstream="student", files=(), ngpu="0"):
        command = ["--upstream", str(world / upstream), "--output_dir", str(world / "out")]
        command += ["--config", *FILES, *map(str, files), "--ngpu", ngpu, *options]
        status = 0
        try:
            main(command)
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr()

    return run


@pytest.fixture
def stand_in(world):
    """Writes the stand-in, and an overlay that names it with every corpus; returns both."""
    folder = world / "bin"
    folder.mkdir()
    (folder / "stand_in.py").write_text(STAND_IN)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/stand_in.py "$@"\n')
    (folder / "python").chmod(0o755)
    corpora = all_of_them(world / "data", world / "home")

    def write(missing=None, tasks=None, **content):
        told = {"missing": missing or {}, "tasks": tasks or {}}
        told["results"] = {task.problem: task.result for task in TASKS.values() if task.problem}
        (folder / "told.json").write_text(json.dumps(told))
        content = {"s3prl_python": str(folder / "python")} | content
        content["source"] = {n: str(p) for n, p in corpora.items()} | content.get("source", {})
        path = folder / "overlay.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.skipif(not S3PRL, reason="pip install espnet_star[s3prl]")
def test_two_of_s3prls_tasks_to_the_end(call, world):
    """VoxCeleb1 and IEMOCAP in miniature, in their own layouts, through s3prl itself."""
    data = [
        f"voxceleb1={voxceleb1(world / 'VoxCeleb1', world / 'home')}",
        f"iemocap={iemocap(world / 'IEMOCAP', world / 'home')}",
    ]
    status, captured = call("--tasks", "er", "sid", "--source", *data)
    logs = [path.read_text()[-2000:] for path in (world / "out").glob("*/*/s3prl.log")]
    assert status == 0, (captured, logs)
    for task, column in (("sid", "sid_acc"), ("er", "er_acc")):
        result = json.loads((world / "out" / task / "result.json").read_text())
        (run,) = result["runs"]
        written = world / "out" / task / ("fold0_seed0" if task == "er" else "seed0")
        scores = yaml.safe_load((written / TASKS[task].result).read_text())
        assert run["scores"] == scores
        assert result["metric"] == {column: pytest.approx(100 * scores["accuracy"])}
        assert result["versions"]["espnet-s3prl"]
        # The checkpoint of the last update: s3prl has trained, with the schedule given to it.
        assert (written / "train" / "step_4" / "scheduler.pt").is_file()
        used = yaml.safe_load(next(written.glob("configs/*.yaml")).read_text())
        assert used["build_scheduler"]["name"] == "OneCycleLR" and used["train"]["seed"] == 0
    table = (world / "out" / "results.md").read_text()
    assert table in captured.out and "| student | 0.0" in table
    assert "no overall and no generalizability score without PR PER" in table
    content = json.loads((world / "out" / "results.json").read_text())
    assert set(content["systems"][0]["values"]) == {"sid_acc", "er_acc"}

    # A second call finds everything done, and does not even ask s3prl.
    before = (world / "out" / "sid" / "seed0" / "s3prl.log").stat().st_mtime_ns
    status, captured = call("--tasks", "sid", "--source", *data)
    assert status == 0 and "started" not in captured.out
    assert (world / "out" / "sid" / "seed0" / "s3prl.log").stat().st_mtime_ns == before
    again = json.loads((world / "out" / "results.json").read_text())
    assert again["systems"][0]["values"] == content["systems"][0]["values"]


def test_a_failing_task_is_named_and_the_others_go_on(call, world, stand_in):
    overlay = stand_in(tasks={"SuperbPR": "fail", "SuperbASR": "empty"})
    status, captured = call("--tasks", "pr", "asr", "sid", files=[overlay])
    assert status == 1
    log = world / "out" / "pr" / "seed0" / "s3prl.log"
    assert f"pr: failed: pr_seed0: RuntimeError: no such phoneme; log: {log}" in captured.out
    assert "asr: failed: " in captured.out and "is missing, though s3prl ended" in captured.out
    content = json.loads((world / "out" / "results.json").read_text())
    assert content["systems"][0]["values"] == {"sid_acc": 25.0}
    assert content["tasks"]["sid"] == {"status": "done", "reason": ""}

    # Mended, the same command runs those two alone.
    status, captured = call("--tasks", "pr", "asr", "sid", files=[stand_in()])
    assert status == 0, captured.out
    starts = {n: (world / "out" / n / "seed0" / "starts").read_text() for n in ("pr", "sid")}
    assert starts == {"pr": "xx", "sid": "x"}
    assert "failed" not in (world / "out" / "results.md").read_text()


def test_a_whole_benchmark_gets_its_scores(call, world, stand_in):
    """All tasks but QbE, whose result stands there from before."""
    status, captured = call(files=[stand_in(missing={"run_downstream": "no"})])
    assert status == 1 and "qbe: cannot run: in " in captured.out
    result = {"student": {"digest": ""}, "metric": {"qbe_mtwv": 0.05}}
    sid = json.loads((world / "out" / "sid" / "result.json").read_text())
    result["student"] = sid["student"]
    (world / "out" / "qbe" / "result.json").parent.mkdir(parents=True, exist_ok=True)
    (world / "out" / "qbe" / "result.json").write_text(json.dumps(result))
    names = [name for name in TASKS if name != "qbe"]
    status, captured = call("--tasks", *names, files=[stand_in()])
    assert status == 0 and "no overall" not in captured.out
    own = json.loads((world / "out" / "results.json").read_text())["systems"][0]
    assert own["missing"] == [] and own["overall"] > 0 and own["partial_mean"] is None


def test_tasks_without_data_are_listed(call, world, stand_in):
    overlay = stand_in(source={"snips": None, "iemocap": str(world / "nowhere")})
    status, captured = call(files=[overlay])
    text = captured.out
    assert "sf: no data: source: snips is not set; Audio SNIPS from https://" in text
    assert f"er: no data: source: iemocap: {world / 'nowhere'} does not exist; IEMOCAP from" in text
    assert "expected in it: Session1/sentences/wav/*/*.wav" in text
    # Nobody has asked for these by name, so they are no failure.
    tasks = json.loads((world / "out" / "results.json").read_text())["tasks"]
    bad = {name for name, task in tasks.items() if task["status"] != "done"}
    assert bad == {"sf", "er", "qbe"} and status == 1  # the stand-in knows no scorer of QbE
    status, captured = call("--tasks", "sid", files=[overlay])
    assert status == 0
    status, captured = call("--tasks", "sf", files=[overlay])
    assert status == 1


def test_half_a_corpus_and_an_empty_list_are_no_data(call, world, stand_in):
    overlay = stand_in(check_counts=True)
    status, captured = call("--tasks", "asr", files=[overlay])
    assert status == 1 and "asr: incomplete data: source: librispeech: " in captured.out
    assert "has 1 of train-clean-100/*/*/*.flac, expected 28539" in captured.out
    (world / "home" / ".cache" / "s3prl" / "iden_split.txt").write_text("")
    status, captured = call("--tasks", "sid", files=[stand_in()])
    assert status == 1 and "iden_split.txt is empty, what s3prl leaves" in captured.out


def test_a_dry_run_writes_nothing(call, world, stand_in):
    status, captured = call("--dry_run", "true", files=[stand_in(source={"snips": None})])
    assert status == 0 and not (world / "out").exists()
    for name, task in TASKS.items():
        assert f"# {name}: {task.title}" in captured.out
        assert f" -m s3prl.main {task.problem} --config " in captured.out or not task.problem
    assert "# no data: source: snips is not set" in captured.out
    assert "-m s3prl.run_downstream -m evaluate -t dev" in captured.out


def test_force_begins_anew(call, world, stand_in):
    overlay = stand_in()
    assert call("--tasks", "sid", files=[overlay])[0] == 0
    changed = stand_in()
    content = yaml.safe_load(changed.read_text()) | {"tasks": {"sid": {"lr": 0.5}}}
    changed.write_text(yaml.safe_dump(content))
    status, captured = call("--tasks", "sid", files=[changed])
    assert status == 2 and "was begun with other settings" in captured.err
    assert call("--tasks", "sid", "--force", "true", files=[changed])[0] == 0
    assert json.loads((world / "out" / "sid" / "result.json").read_text())["lr"] == 0.5


def test_an_interrupted_run_says_so_and_continues(call, world, stand_in):
    overlay = stand_in(tasks={"SuperbSID": "wait"})
    command = [sys.executable, "-m", "espnet_star", "star_superb", "--ngpu", "0"]
    command += ["--upstream", str(world / "student"), "--output_dir", str(world / "out")]
    command += ["--tasks", "sid", "asv", "--config", *FILES, str(overlay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    log = world / "out" / "sid" / "seed0" / "s3prl.log"
    try:
        until = time.monotonic() + 120
        while not (log.exists() and "ready" in log.read_text()):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        status, captured = call("--tasks", "sid", "asv", files=[overlay])
        assert status == 2 and "another run is writing here" in captured.err
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert "sid: not finished: the same command again continues it" in out
    assert not (world / "out" / "asv" / "seed0" / "starts").exists()
    status, captured = call("--tasks", "sid", "asv", files=[stand_in()])
    assert status == 0, captured
    assert (world / "out" / "sid" / "seed0" / "starts").read_text() == "xx"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upstream": "none"}, "no such directory; write one with python -m espnet_star"),
        ({"ngpu": "-1"}, "--ngpu must not be negative"),
        ({"options": ("--tasks", "sdi")}, "unknown task 'sdi'"),
        ({"options": ("--source", "snip=/a")}, "unknown corpus 'snip'. Did you mean 'snips'?"),
    ],
)
def test_mistakes_are_one_line(call, world, options, message):
    status, captured = call(*options.pop("options", ()), **options)
    assert status == 2 and message in captured.err
    assert len(captured.err.strip().splitlines()) == 1 and not (world / "out").exists()


def test_gpus_that_are_not_there(call, stand_in, monkeypatch):
    overlay = stand_in(missing={"cuda": "AssertionError: torch.cuda.is_available() is False"})
    status, captured = call("--tasks", "sid", files=[overlay], ngpu="1")
    assert status == 2 and "sees no GPU" in captured.err and "--ngpu 0" in captured.err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    status, captured = call("--tasks", "sid", files=[overlay], ngpu="2")
    assert status == 2 and "CUDA_VISIBLE_DEVICES has 1 (3)" in captured.err


def test_each_run_has_a_gpu_of_its_own(tmp_path):
    """Fails if two runs share a GPU while another is idle."""
    gpus, wake = GpuPool(2, ["4", "7"]), threading.Event()
    code = textwrap.dedent("""
        import os, pathlib, sys, time
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        while not pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.02)
    """)

    def start(name):
        with (tmp_path / f"{name}.log").open("w") as log:
            return gpus.start([sys.executable, "-c", code, str(tmp_path / name)], log, wake)

    first, second = start("a"), start("b")
    (tmp_path / "b").touch()
    while not second.ended:
        time.sleep(0.02)
    third = start("c")
    for name in "ac":
        (tmp_path / name).touch()
    while not (first.ended and third.ended):
        time.sleep(0.02)
    assert [(tmp_path / f"{name}.log").read_text().strip() for name in "abc"] == ["4", "7", "7"]
