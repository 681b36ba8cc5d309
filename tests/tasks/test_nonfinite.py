"""Whole trainings over data that has a broken recording in it."""

import math

import pytest
import torch
from star_runs import (
    ZERO_DROPOUT,
    assert_same_weights,
    distill,
    pairs,
    spoiled,
    states,
    statistics,
)

from espnet_star.bin import star_train

# The same weights must come from fewer steps: no dropout, and no state but the weights.
PLAIN = ["--optim", "sgd", *pairs("--optim_conf", ["lr=0.001"])]
PLAIN += pairs("--encoder_conf", ZERO_DROPOUT)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_batch_is_skipped_counted_and_kept_out_of_averages(
    command, data_directory, tmp_path, caplog, value
):
    """Fails if one broken recording stops the training, changes it, or hides the best epoch."""
    caplog.set_level("WARNING")
    # Batches of four: the broken one is of the second, so a run of the first is the same.
    data = spoiled(data_directory, tmp_path / "data", "s1_3", value=value)
    few = spoiled(data_directory, tmp_path / "few", count=4)
    exp, clean = tmp_path / "exp", tmp_path / "clean"
    distill(command(exp, *PLAIN, data=data))
    assert "the loss is not finite; the step is skipped. Utterances: s1_3\n" in caplog.text
    distill(command(clean, *PLAIN, data=few))
    assert_same_weights(exp, clean)
    for epoch in (1, 2):
        for section in ("train", "valid"):
            assert statistics(exp, epoch, section, "nonfinite_steps") == 1
            assert statistics(clean, epoch, section, "nonfinite_steps") == 0
            losses = [statistics(run, epoch, section, "loss") for run in (exp, clean)]
            assert losses[0] == losses[1]
    assert (exp / "valid.loss.best.pth").resolve() == exp / "2epoch.pth"


def test_an_update_of_several_batches_is_skipped_as_a_whole(command, data_directory, tmp_path):
    """Fails if accum_grad lets a NaN into the weights, or a broken update through."""
    data = spoiled(data_directory, tmp_path / "data", "s1_3")
    more = ["--batch_size", 2, "--accum_grad", 2, "--grad_clip", "inf"]
    distill(command(tmp_path / "exp", *more, data=data))
    saved = states(tmp_path / "exp")
    # Two of the four batches come with the broken one or are it, whatever their order.
    steps = {int(state["step"]) for state in saved["optimizers"][0]["state"].values()}
    assert steps == {2}  # one in each of two epochs
    assert statistics(tmp_path / "exp", 1, "train", "nonfinite_steps") == 1
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def one_line(capsys, options):
    with pytest.raises(SystemExit) as stop:
        star_train.main(options)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("star_train: error: ")
    return line


@pytest.mark.parametrize("clip", ["5.0", "inf"])
def test_nothing_but_bad_steps_is_one_line(command, data_directory, tmp_path, capsys, clip):
    """Fails if a run that learns nothing ends as if it had finished."""
    data = spoiled(data_directory, tmp_path / "data", "s0_2", "s1_3")
    line = one_line(capsys, command(tmp_path / "exp", "--grad_clip", clip, data=data))
    assert "epoch 1 of training made no update: the loss of 2 of 2 batches is NaN" in line
    assert "e.g. with s0_2;" in line or "e.g. with s1_3;" in line
    assert not (tmp_path / "exp" / "checkpoint.pth").exists()


def test_a_validation_without_a_finite_loss_is_one_line(command, data_directory, tmp_path, capsys):
    """Fails if the best epoch is chosen by comparing NaN with NaN."""
    data = spoiled(data_directory, tmp_path / "data", "s0_2", "s1_3")
    options = command(tmp_path / "exp")
    place = options.index("--valid_data_path_and_name_and_type")
    options[place + 1] = f"{data}/wav.scp,speech,sound"
    assert "epoch 1: the loss of all 2 validation batches is NaN" in one_line(capsys, options)


def test_fewer_batches_than_accum_grad_is_one_line(command, tmp_path, capsys):
    """Fails if ESPnet's word about invalid gradients is all a user gets."""
    line = one_line(capsys, command(tmp_path / "exp", "--accum_grad", 3))
    assert "accum_grad 3 is more than the 2 batches of an epoch" in line
