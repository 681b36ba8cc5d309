"""Too long utterances are left out by name; too few are refused."""

import logging
from pathlib import Path

import pytest

from espnet_star.data.errors import DataError
from espnet_star.data.lengths import capped, check_lengths


@pytest.fixture
def shape(tmp_path):
    path = tmp_path / "utt2num_samples"
    path.write_text("a 16000\nb 400\nendless 999999999\n")
    return str(path)


def test_the_long_are_left_out_and_named(shape, caplog):
    """Fails if one endless clip gets into a batch, or is dropped in silence."""
    with caplog.at_level(logging.WARNING), capped([shape], 16000) as (made,):
        assert Path(made).read_text().split() == ["a", "16000", "b", "400"]
    assert "1 utterances longer than max_samples 16000 are left out: endless" in caplog.text
    with capped([shape], None) as files:
        assert files == [shape]


def test_nothing_left_is_an_error(shape):
    message = "all 3 utterances are longer than max_samples 10"
    with pytest.raises(DataError, match=message), capped([shape], 10):
        pass


def test_fewer_utterances_than_processes_and_a_clip_larger_than_a_batch(shape):
    with pytest.raises(DataError, match="3 utterances for 4 processes"):
        check_lengths(shape, 4, None, "train")
    with pytest.raises(DataError, match="endless has 999999999 samples, more than a whole batch"):
        check_lengths(shape, 1, 320000, "train")
    check_lengths(shape, 3, None, "train")
