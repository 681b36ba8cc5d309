"""Two ranks on CPU, through ESPnet's options and through torchrun, against one process."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from star_runs import (
    ZERO_DROPOUT,
    assert_same_updates,
    assert_same_weights,
    distill,
    join,
    log_of,
    pairs,
    ranks,
    spoiled,
    statistics,
    weights,
)

# Every rank takes every other utterance of a batch: of seven utterances in batches of
# four and three, one rank has fewer than the other. Plain SGD without clipping, since
# Adam and clipping hide a gradient that is off by a factor, and Adam turns rounding in
# gradients that are zero (biases of keys) into full steps.
LOSSES = "[{name: temporal_gram}, {name: attention_map, weight: 3.0}]"
SAME = ["--optim", "sgd", "--optim_conf", "lr=0.0001", "--grad_clip", "inf", "--batch_size", "3"]
SAME += [*pairs("--encoder_conf", ZERO_DROPOUT), "--losses", LOSSES]


@pytest.fixture(scope="module")
def seven(data_directory, tmp_path_factory):
    """Data of seven utterances."""
    return spoiled(data_directory, tmp_path_factory.mktemp("seven") / "data", count=7)


@pytest.fixture(scope="module")
def single(command, seven, tmp_path_factory):
    """The joint batches in one process."""
    exp = tmp_path_factory.mktemp("single") / "exp"
    distill(command(exp, *SAME, data=seven))
    return exp


@pytest.fixture(scope="module")
def start_weights(command, tmp_path_factory):
    """What the training starts from: a learning rate of zero moves nothing."""
    exp = tmp_path_factory.mktemp("start") / "exp"
    distill(command(exp, *SAME, "--optim_conf", "lr=0.0", "--max_epoch", 1))
    return weights(exp)


def test_two_ranks_equal_one_process(command, seven, tmp_path, single, start_weights):
    """Fails if gradients are averaged over ranks instead of utterances."""
    processes = ranks(command(tmp_path / "two", *SAME, data=seven), tmp_path / "meet")
    join(processes)
    assert_same_updates(tmp_path / "two", single, start_weights)
    for epoch in (1, 2):
        for section in ("train", "valid"):
            losses = [statistics(exp, epoch, section, "loss") for exp in (tmp_path / "two", single)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_with_accumulated_gradients_as_well(command, seven, tmp_path, start_weights):
    """Three batches of three and two, an update every two; heads are trained as well."""
    more = [*SAME, "--accum_grad", 2, "--batch_size", 2]
    more += ["--losses", "[{name: temporal_gram}, {name: frame_match}]"]
    distill(command(tmp_path / "one", *more, data=seven))
    join(ranks(command(tmp_path / "two", *more, data=seven), tmp_path / "meet"))
    assert_same_updates(tmp_path / "two", tmp_path / "one", start_weights)


def test_torchrun(command, seven, tmp_path, single, start_weights):
    """Fails if a job started by torchrun, which speaks through the environment, does not."""
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    train = ["espnet_star", "star_train", "--dist_backend", "gloo"]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            *launch,
            "-m",
            *train,
            *command(tmp_path / "two", *SAME, data=seven),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "0/2]" in run.stderr  # two ranks of one job, not two jobs
    assert_same_updates(tmp_path / "two", single, start_weights)


def test_a_bad_loss_on_one_rank_is_skipped_on_both(
    command, data_directory, tmp_path, start_weights
):
    """Fails if ranks go apart, or the good rank's loss is counted for both."""
    data = spoiled(data_directory, tmp_path / "data", "s1_3", value=math.inf)
    distill(command(tmp_path / "one", *SAME, data=data))
    made = command(tmp_path / "two", *SAME, data=data)
    join(ranks(made, tmp_path / "meet"))
    assert_same_updates(tmp_path / "two", tmp_path / "one", start_weights)
    for epoch in (1, 2):
        for section in ("train", "valid"):
            for name in ("nonfinite_steps", "loss"):
                one, two = (statistics(tmp_path / n, epoch, section, name) for n in ("one", "two"))
                assert one == pytest.approx(two, rel=1e-4)
            assert one > 0
    # Rank 0 names the utterance of rank 1.
    assert "the step is skipped. Utterances: s1_3\n" in log_of(made).read_text()


def test_nothing_but_bad_steps_ends_both_ranks(command, data_directory, tmp_path):
    """Fails if a rank waits for one that has given up."""
    data = spoiled(data_directory, tmp_path / "data", "s0_2", "s1_3")
    made = command(tmp_path / "two", *SAME, data=data)
    join(ranks(made, tmp_path / "meet"), 1)
    assert log_of(made).read_text().count("epoch 1 of training made no update") >= 2


def test_killed_and_resumed_on_two_ranks(command, tmp_path):
    """Fails if a resumed rank starts from another state than its neighbor; with dropout."""
    made = command(tmp_path / "whole", "--max_epoch", 3)
    join(ranks(made, tmp_path / "meet"))
    made = command(tmp_path / "exp", "--max_epoch", 3)
    kill_at = ("save", "checkpoint.pth", 2, 0.5)
    killed, left = ranks(made, tmp_path / "meet2", kill_at=kill_at)
    join(killed, -signal.SIGKILL)
    left.kill()
    join(left, [left.exitcode] if left.exitcode else -signal.SIGKILL)
    join(ranks(made, tmp_path / "meet3"))
    assert "one epoch earlier" in log_of(made).read_text()
    assert_same_weights(tmp_path / "exp", tmp_path / "whole")


def test_an_objective_over_the_batch_says_what_ranks_do_to_it(command, tmp_path):
    """Fails if a user is not told that two ranks optimize something else than one."""
    losses = "[{name: temporal_gram, conf: {scope: batch}}]"
    made = command(tmp_path / "two", "--losses", losses, "--dry_run", "true")
    join(ranks(made, tmp_path / "meet"))
    assert "scope batch relates utterances of the same rank only" in log_of(made).read_text()
