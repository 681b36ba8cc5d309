"""Trainings that share a folder, lose a rank, or get data that cannot fill a batch."""

import re
import signal

import pytest
from star_runs import distill, join, log_of, ranks, spoiled, start

from espnet_star.errors import StarError
from espnet_star.files.run_lock import exclusive


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
    made = command(tmp_path / "exp", data=spoiled(data_directory, tmp_path / "data", count=1))
    join(ranks(made, tmp_path / "meet"), 1)
    assert "utt2num_samples (train): 1 utterances for 2 processes" in log_of(made).read_text()


def test_a_clip_longer_than_a_batch_trains(command, tmp_path, caplog):
    """Fails if such clips are refused, left out unasked, or trained on without a word."""
    caplog.set_level("INFO")
    bins = ["--batch_type", "numel", "--batch_bins", "4600", "--max_epoch", 1]
    distill(command(tmp_path / "one", *bins))
    assert "is longer than a batch of 0.3 s (batch_bins 4600)" in caplog.text
    assert "the longest is s1_7 with 0.3 s" in caplog.text
    assert "passes over 8 utterances" in caplog.text
    made = command(tmp_path / "ranks", *bins)
    join(ranks(made, tmp_path / "meet"))
    assert "1.0 passes over 8 utterances" in log_of(made).read_text()
    made = command(tmp_path / "two", *bins, "--max_duration", "0.2875")
    join(start(made))
    log = log_of(made).read_text()
    assert "longer than 0.2875 s are left out" in log
    assert "longer than a batch" not in log


def test_an_effective_batch_that_was_not_meant(command, tmp_path):
    with pytest.raises(StarError, match=r"effective batch is 4\.0 utterances.*meant for 48"):
        distill(command(tmp_path / "one", "--expected_batch", "48"))


def test_the_plan_counts_all_ranks(command, tmp_path):
    """Fails if a rank's share is taken for the batch."""
    made = command(tmp_path / "exp", "--expected_batch", "4", "--dry_run", "false")
    join(ranks(made, tmp_path / "meet"))
    assert "Plan: effective batch 4.0 utterances" in log_of(made).read_text()
