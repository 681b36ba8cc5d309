"""How the processes of a training are started: a bug leaves GPUs idle, or trains each alone."""

from pathlib import Path

import pytest

from espnet_star.errors import StarError
from espnet_star.jobs.launch import Launch

LOG = Path("exp/train.log")
COMMAND = "py -m espnet_star star_train --config c.yaml"
TORCHRUN = "py -m torch.distributed.run"
TRAIN = "-m espnet_star star_train"
OUTSIDE = "--multiprocessing_distributed false"


@pytest.mark.parametrize(
    ("launch", "start"),
    [
        (Launch(), f"py {TRAIN} --ngpu 0"),
        (Launch(ngpu=4), f"py {TRAIN} --ngpu 4 --multiprocessing_distributed true"),
        (
            Launch(cpu_ranks=2),
            f"{TORCHRUN} --nnodes 1 --nproc_per_node 2 --standalone "
            f"{TRAIN} {OUTSIDE} --ngpu 0 --dist_backend gloo",
        ),
        (
            Launch("torchrun --rdzv_endpoint=n1:29500", 2, 8),
            f"{TORCHRUN} --nnodes 2 --nproc_per_node 8 --rdzv_endpoint=n1:29500 "
            f"{TRAIN} {OUTSIDE} --ngpu 1",
        ),
        (
            Launch("slurm --partition x", 2, 8),
            f"srun --nodes 2 --ntasks-per-node 8 --kill-on-bad-exit=1 --partition x py {TRAIN} "
            f"--dist_launcher slurm --dist_master_port 20000 {OUTSIDE} --ngpu 1",
        ),
        (
            Launch("espnet --cmd slurm.pl", 2, 8),
            "py -m espnet2.bin.launch --cmd slurm.pl --ngpu 8 --num_nodes 2 --log exp/node.log "
            "--init_file_prefix exp/.dist_init_ --multiprocessing_distributed true "
            f"-- py {TRAIN}",
        ),
    ],
)
def test_what_is_started(monkeypatch, launch, start):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    words, log = launch.start(COMMAND.split(), LOG)
    assert words == [*start.split(), "--config", "c.yaml"]
    assert log.parent == LOG.parent
    # Started on every node, torchrun would write into one file otherwise.
    assert (log == LOG) != ("nnodes 2" in start)


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (Launch("mpirun"), "--launcher mpirun: unknown"),
        (Launch(num_nodes=2, ngpu=1), "--num_nodes 2 needs --launcher"),
        (Launch("espnet --cmd slurm.pl", 2, 0, 2), "--cpu_ranks 2 on several nodes"),
    ],
)
def test_what_cannot_be_started(launch, message):
    with pytest.raises(StarError, match=message):
        launch.start(COMMAND.split(), LOG)
