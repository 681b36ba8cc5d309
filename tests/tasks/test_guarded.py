"""Trainings that share a folder, lose a rank, or get data that cannot fill a batch."""

import re
import signal

import pytest
from star_runs import distil, join, log_of, ranks, spoilt, start

from espnet_star.errors import StarError
from espnet_star.run_lock import exclusive


def test_two_runs_in_one_folder(command, tmp_path):
    """Fails if the second replaces config.yaml and checkpoints of the first."""
    made = command(tmp_path / "exp")
    with exclusive(tmp_path / "exp"):
        process = start(made)
        join(process, 1)
    assert "another run is writing here" in log_of(made).read_text()
    assert not (tmp_path / "exp" / "config.yaml").exists()


def test_the_rank_that_is_left_names_the_one_that_died(command, tmp_path):
    """Fails if it hangs, or says no more than "connection closed by peer"."""
    made = command(tmp_path / "exp", "--max_epoch", 3)
    killed, left = ranks(made, tmp_path / "meet", kill_at=("save", "checkpoint.pth", 2, None))
    join([killed, left], [-signal.SIGKILL, 1])
    assert re.search(r"StarError: rank 0 on \S+ \(process \d+\) has died", log_of(made).read_text())


def test_fewer_utterances_than_ranks(command, data_directory, tmp_path):
    made = command(tmp_path / "exp", data=spoilt(data_directory, tmp_path / "data", count=1))
    join(ranks(made, tmp_path / "meet"), 1)
    assert "1 utterances for 2 processes (train)" in log_of(made).read_text()


def test_an_endless_clip_is_refused_or_left_out(command, tmp_path):
    bins = ["--batch_type", "numel", "--batch_bins", "4600"]
    with pytest.raises(StarError, match="more than a whole batch of 4600"):
        distil(command(tmp_path / "one", *bins))
    made = command(tmp_path / "two", *bins, "--max_samples", "4600", "--max_epoch", 1)
    join(start(made))
    assert "longer than max_samples 4600 are left out" in log_of(made).read_text()


def test_an_effective_batch_that_was_not_meant(command, tmp_path):
    with pytest.raises(StarError, match=r"effective batch is 4\.0 utterances.*meant for 48"):
        distil(command(tmp_path / "one", "--expected_batch", "48"))


def test_the_plan_counts_all_ranks(command, tmp_path):
    """Fails if a rank's share is taken for the batch."""
    made = command(tmp_path / "exp", "--expected_batch", "4", "--dry_run", "false")
    join(ranks(made, tmp_path / "meet"))
    assert "Plan: effective batch 4.0 utterances" in log_of(made).read_text()
