"""star.sh starts a distillation on two nodes; processes of this machine stand in for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "star1"
# What Slurm's srun tells each of two tasks, one a node.
SRUN = """#!{python}
import os, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):  # "--nodes 2" and "--export=ALL"
    command = command[1 if "=" in command[0] else 2 :]
tasks = []
for rank in range(2):
    slurm = dict(SLURM_PROCID=rank, SLURM_NTASKS=2, SLURM_LOCALID=0, SLURM_NODEID=rank,
                 SLURM_STEP_NUM_NODES=2, SLURM_NNODES=2, SLURM_STEP_NODELIST="localhost")
    env = os.environ | {{key: str(value) for key, value in slurm.items()}}
    tasks.append(subprocess.Popen(command, env=env))
sys.exit(max(abs(task.wait()) for task in tasks))
"""
# ESPnet's slurm.pl: options, a log file, the command.
SLURM_PL = """#!/bin/sh
while [ "$1" != srun ]; do log=$1; shift; done
exec "$@" > "$log" 2>&1
"""


@pytest.fixture
def recipe(tmp_path, data_directory, teacher_directory, tiny_options):
    """A recipe with tiny data, teacher and student, and this machine's two nodes."""
    for name in ("star.sh", "path.sh", "parse_options.sh"):
        (tmp_path / name).symlink_to(TEMPLATE / name)
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "raw").mkdir()
    (tmp_path / "dump" / "raw" / "tiny").symlink_to(data_directory)
    (tmp_path / "conf").mkdir()
    lines = [
        "batch_type: sorted",
        "batch_size: 4",
        "max_epoch: 1",
        "num_workers: 0",
        "encoder_conf:",
    ]
    lines += [f"    {key}: {value}" for key, value in tiny_options.items()]
    (tmp_path / "conf" / "train_star.yaml").write_text("\n".join(lines))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("slurm.pl", SLURM_PL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(*options):
        named = ["--train_set", "tiny", "--valid_set", "tiny", "--teacher", str(teacher_directory)]
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "SLURM_JOB_ID": str(os.getpid()),
        }
        done = subprocess.run(
            ["./star.sh", *named, "--python", sys.executable, *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return tmp_path / "exp" / "train_star"

    return run


@pytest.mark.parametrize(
    "launcher", [["--launcher", "slurm"], ["--launcher", "espnet --cmd slurm.pl"]]
)
def test_two_nodes_share_the_batches(recipe, launcher):
    """Fails if each node trains by itself, or on the other's data."""
    stage = ["--stage", "5", "--stop_stage", "5"]
    made = recipe(*stage, "--num_nodes", "2", *launcher)
    log = "".join(path.read_text() for path in made.glob("*.log"))
    assert "Plan: effective batch 4.0 utterances" in log
    assert "0/2]" in log
    assert sorted(path.name for path in (made / ".ranks").iterdir()) == ["0", "1"]
    assert (made / "1epoch.pth").exists()
