"""Runs stopped by kill -9 at every point that matters, and what they end as."""

import resource
import shutil
import signal
import time

import pytest
import torch
from star_runs import assert_same_weights, distill, join, start, states, statistics, weights

from espnet_star.errors import StarError

# Dropout is on (the student's default). Four batches an epoch and an update every three
# leave one batch over, whose gradient ESPnet would carry into the next epoch, but not
# over a kill; the learning rate changes at every update.
EPOCHS = 3
TRAINING = ["--max_epoch", EPOCHS, "--batch_size", 2, "--accum_grad", 3, "--keep_nbest_models", 2]
TRAINING += ["--scheduler", "warmuplr", "--scheduler_conf", "warmup_steps=3"]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The same training, never stopped."""
    exp = tmp_path_factory.mktemp("whole") / "exp"
    distill(command(exp, *TRAINING))
    return exp


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy", symlinks=True)


def assert_same_training(exp, whole):
    """Weights, optimizer, schedule, averaged model and losses, bit by bit."""
    assert_same_weights(exp, whole)
    assert_same_weights(exp, whole, "valid.loss.ave.pth")
    one, other = states(exp), states(whole)
    assert repr(one["optimizers"]) == repr(other["optimizers"])
    assert one["schedulers"] == other["schedulers"]
    for epoch in range(1, EPOCHS + 1):
        for section in ("train", "valid"):
            losses = [statistics(run, epoch, section, "loss") for run in (exp, whole)]
            assert losses[0] == losses[1]


POINTS = {
    "in the first epoch": (("log", "1epoch:train:2-2batch"), False),
    "in the second epoch": (("log", "2epoch:train:2-2batch"), True),
    "in the second validation": (("log", "2epoch results"), True),
    "half a checkpoint": (("save", "checkpoint.pth", 2, 0.5), True),
    "half of the first checkpoint": (("save", "checkpoint.pth", 1, 0.5), False),
    "an empty checkpoint": (("save", "checkpoint.pth", 2, 0), True),
    "the checkpoint moved aside": (("save", "checkpoint.pth", 2, None), True),
    "after the checkpoint": (("save", "2epoch.pth", 1, None), True),
    "half a model": (("save", "2epoch.pth", 1, 0.5), True),
    "between epochs": (("log", "3/3epoch started"), True),
    "after the last epoch": (("log", "The training was finished"), True),
    "half an average": (("save", "valid.loss.ave_2best.pth", 1, 0.5), True),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed_is_never_stopped(whole, command, tmp_path, resumed, point):
    """Fails if order, dropout, optimizer, schedule or files depend on the interruption."""
    kill_at, goes_on = POINTS[point]
    stopped = command(tmp_path / "exp", *TRAINING)
    join(start(stopped, kill_at), -signal.SIGKILL)
    assert not (tmp_path / "exp" / "valid.loss.ave.pth").exists()
    distill(stopped)
    assert resumed() is goes_on
    assert_same_training(tmp_path / "exp", whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_moment(command, tmp_path, resumed, number):
    """Fails if a job that the cluster stops cannot go on as if nothing had happened."""
    long = ["--max_epoch", 12]
    process = start(command(tmp_path / "killed", *long))
    while not (tmp_path / "killed" / "2epoch.pth").exists() and process.is_alive():
        time.sleep(0.002)
    process.kill() if number == signal.SIGKILL else process.terminate()
    join(process, -number)
    distill(command(tmp_path / "killed", *long))
    assert resumed()
    distill(command(tmp_path / "whole", *long))
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


def test_one_epoch_and_then_another_is_two_at_once(whole, command, tmp_path, resumed):
    """Fails if training on after a run that ended is another training."""
    for epochs in range(1, EPOCHS + 1):
        distill(command(tmp_path / "exp", *TRAINING, "--max_epoch", epochs))
    assert resumed()
    assert_same_weights(whole, tmp_path / "exp")


def test_a_truncated_checkpoint_gives_way_to_the_epoch_before(whole, copy, command, resumed):
    """Fails if a full disk while the checkpoint is written costs the training."""
    path = copy / "checkpoint.pth"
    path.write_bytes(path.read_bytes()[:1000])
    distill(command(copy, *TRAINING))
    assert resumed()
    assert_same_training(copy, whole)


def test_a_missing_model_of_the_last_epoch_is_written_again(whole, copy, command):
    """Fails if the averaging at the end misses the last epoch's model."""
    (copy / f"{EPOCHS}epoch.pth").unlink()
    distill(command(copy, *TRAINING))
    assert_same_weights(whole, copy, f"{EPOCHS}epoch.pth")
    assert (copy / "valid.loss.ave_2best.pth").exists()


def test_the_checkpoint_is_read_once(copy, command, monkeypatch):
    """Fails if a resume reads gigabytes twice, to find out something small."""
    load, read = torch.load, []
    monkeypatch.setattr(
        torch,
        "load",
        lambda path, *args, **kw: (read.append(str(path)), load(path, *args, **kw))[1],
    )
    distill(command(copy, *TRAINING, "--max_epoch", EPOCHS + 1))
    assert read.count(str(copy / "checkpoint.pth")) == 1
    assert weights(copy, f"{EPOCHS + 1}epoch.pth")


def test_nothing_whole_beside_finished_epochs_is_not_trained_over(copy, command):
    """Fails if a training starts over, on top of what it has finished, or removes a file."""
    for name in ("checkpoint.pth", "checkpoint.previous.pth"):
        (copy / name).write_bytes((copy / name).read_bytes()[:1000])
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.pth")}
    with pytest.raises(StarError, match=r"2 epochs are finished.*3epoch.pth.*nothing whole"):
        distill(command(copy, *TRAINING))
    for name in ("checkpoint.pth", "checkpoint.previous.pth"):
        (copy / name).unlink()
        del before[name]
    with pytest.raises(StarError, match=r"no checkpoint\.pth"):
        distill(command(copy, *TRAINING))
    assert {path.name: path.stat().st_mtime_ns for path in copy.glob("*.pth")} == before


def test_another_student_in_the_same_folder(copy, command):
    """Fails if forty lines of names are the answer, or config.yaml is of the other one."""
    config = (copy / "config.yaml").read_text()
    narrow = ["--encoder_conf", "intermediate_size=20"]
    with pytest.raises(
        StarError, match=r"weights have other shapes, e\.g\. .*another --output_dir"
    ):
        distill(command(copy, *TRAINING, "--max_epoch", EPOCHS + 1, *narrow))
    assert (copy / "config.yaml").read_text() == config


def test_a_full_disk_is_named(command, tmp_path):
    """Fails if "unexpected pos 64 vs 0" is all that is said of it, or no run goes on after."""
    made = command(tmp_path / "exp", *TRAINING)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StarError, match=r"could not be written to its end; .* GB are free"):
            distill(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    distill([*made, "--max_epoch", "1"])
    assert (tmp_path / "exp" / "1epoch.pth").exists()
