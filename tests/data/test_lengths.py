"""Too long utterances are left out by name; what ESPnet cannot deal out is refused."""

import argparse
import logging
from pathlib import Path

import espnet2
import pytest

from espnet_star.data.errors import DataError
from espnet_star.data.lengths import build_batches, drop_longer, long_clips


@pytest.fixture
def shape(tmp_path):
    path = tmp_path / "utt2num_samples"
    path.write_text("a 16000\nb 400\nendless 999999999\n")
    return str(path)


def test_the_long_are_left_out_and_named(shape, caplog):
    """Fails if one endless clip gets into a batch, or is dropped in silence."""
    with caplog.at_level(logging.WARNING), drop_longer([shape], 1.0) as (made,):
        assert Path(made).read_text().split() == ["a", "16000", "b", "400"]
    assert "1 utterances longer than 1 s are left out (--max_duration): endless" in caplog.text
    with drop_longer([shape], None) as files:
        assert files == [shape]


def test_nothing_left_is_an_error(shape):
    message = "all 3 utterances are longer than 0.001 s"
    with pytest.raises(DataError, match=message), drop_longer([shape], 0.001):
        pass


def options(kind, size=3, bins=5000, fold=(), drop=False):
    """ESPnet's options of batches."""
    given = dict(batch_type=kind, batch_size=size, batch_bins=bins, fold_length=list(fold))
    order = dict(sort_in_batch="descending", sort_batch="ascending", drop_last_iter=drop)
    data = dict(data_path_and_name_and_type=[("nowhere/wav.scp", "speech", "sound")])
    return argparse.Namespace(**given, **order, **data, min_batch_size=1)


@pytest.fixture
def clips(tmp_path):
    """Shape file of clips of these lengths."""

    def make(*lengths):
        path = tmp_path / "lengths"
        path.write_text("".join(f"u{i} {n}\n" for i, n in enumerate(lengths)))
        return [str(path)]

    return make


@pytest.mark.parametrize("kind", ["numel", "length"])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_clip_longer_than_a_batch_is_no_error(clips, kind, ranks):
    """Fails if a training is refused that ESPnet would do, or one clip drags others along."""
    files = clips(*[1000] * 7, 9000, 90000)
    batches = build_batches(options(kind), options(kind), files, ranks, "here (train)")
    assert sorted(key for batch in batches for key in batch) == [f"u{i}" for i in range(9)]
    assert min(map(len, batches)) >= ranks
    assert ranks > 1 or ["u8"] in [list(batch) for batch in batches]


@pytest.mark.parametrize(
    ("given", "count", "ranks", "message"),
    [
        (options("numel"), 3, 4, "here: 3 utterances for 4 processes; .* or more data"),
        (options("sorted", 2), 5, 3, "2 utterances in a batch of batch_size 2 for 3 processes"),
        (options("unsorted", 2), 5, 3, "fewer processes or a larger batch_size"),
        # ESPnet asks for batch_size at least, and makes more of it where it can.
        (options("sorted", 3), 5, 5, None),
        (options("unsorted", 4), 7, 5, None),
        (options("folded", 4, fold=[800]), 9, 2, None),
        (options("folded", 3), 9, 1, "with batch_type folded .*number of fold_lengths"),
        (options("numel", drop=True), 9, 4, None),
        (options("numel", bins=0), 9, 1, "ESPnet makes no batches of it for 1 process with"),
    ],
)
def test_only_what_espnet_cannot_deal_out_is_refused(clips, given, count, ranks, message):
    files = clips(*[1000] * count)
    if message is None:
        batches = build_batches(given, given, files, ranks, "here")
        assert min(map(len, batches)) >= ranks
        return
    with pytest.raises(DataError, match=message):
        build_batches(given, given, files, ranks, "here")


def test_an_error_of_espnets_sampler_is_one_line(clips):
    """Fails if users of ESPnet 202511 get its IndexError, or those of 202611 a refusal."""
    given = options("folded", 3, fold=[800])
    try:
        batches = build_batches(given, given, clips(*[1000] * 4), 3, "here")
    except DataError as error:
        assert "ESPnet makes no batches of it for 3 processes" in str(error)
        assert espnet2.__version__ < "202611"
    else:
        assert min(map(len, batches)) >= 3


def test_long_clips_are_counted_and_the_longest_named():
    counts = {"a": 16000, "b": 40000, "c": 64000}
    note = long_clips(counts, 32000)
    assert note.startswith("2 of 3 utterances are longer than a batch of 2.0 s (batch_bins 32000)")
    assert note.endswith("the longest is c with 4.0 s")
    assert "1 of 3 utterances is longer" in long_clips(counts, 40000)
    assert long_clips(counts, 64000) is long_clips(counts, None) is None
