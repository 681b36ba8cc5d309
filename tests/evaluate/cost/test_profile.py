"""A bug here publishes wrong sizes and costs."""

import random

import pytest
import torch
from hand_count import by_hand

from espnet_star.data.errors import DataError
from espnet_star.evaluate.cost.profile import (
    LIBRISPEECH_LENGTHS,
    count_macs,
    profile,
    read_lengths,
    seconds,
)
from espnet_star.evaluate.cost.subjects import find_subject
from espnet_star.students import PRESETS, StarEncoder

# All conv_dim entries are wider than one so that a swapped pair of sizes shows.
STRIDES = [(10, 5), (1, 1), (3, 2), (3, 2), (3, 2), (3, 2), (1, 1), (2, 2), (2, 2)]
FEW = (400, 16000, 47311)


def built(name):
    with torch.device("meta"):
        return find_subject(name).build()


def published_macs(name):
    """Sum over the published lengths, from sizes alone."""
    config = built(name).config
    return sum(sum(by_hand(config, samples).values()) for samples in LIBRISPEECH_LENGTHS)


def random_options(seed):
    """An architecture of random sizes, the projection there or not."""
    rng = random.Random(seed)
    width = 8 * rng.randint(2, 6)
    dims = [rng.randint(2, 12) for _ in STRIDES]
    dims[-1] = rng.choice([width, width + 3])
    return {
        "conv_dim": dims,
        "conv_kernel": [kernel for kernel, _ in STRIDES],
        "conv_stride": [stride for _, stride in STRIDES],
        "hidden_size": width,
        "intermediate_size": rng.randint(5, 50),
        "num_attention_heads": rng.choice([2, 4]),
        "num_hidden_layers": rng.randint(1, 3),
        "num_conv_pos_embeddings": rng.randint(5, 12),
        "num_conv_pos_embedding_groups": rng.choice([1, 2, 8]),
        "do_stable_layer_norm": rng.random() < 0.5,
        "feat_extract_norm": rng.choice(["group", "layer"]),
    }


@pytest.mark.parametrize("seed", range(6))
def test_count_is_the_hand_count(seed):
    """Fails if torch's counter misses an operation or counts one twice, whatever the sizes."""
    with torch.device("meta"):
        student = StarEncoder(**random_options(seed)).eval()
        for samples in FEW:
            assert count_macs(student, samples) == by_hand(student.config, samples)


@pytest.mark.parametrize(
    "name", [*PRESETS, "hubert_base", "wav2vec2_base", "distilhubert_transformers"]
)
def test_count_of_presets_and_shapes_is_the_hand_count(name):
    """Fails if the attention kernel of some torch goes uncounted."""
    model = built(name)
    with torch.device("meta"):
        for samples in FEW[1:]:
            assert count_macs(model, samples) == by_hand(model.config, samples)


def test_wavlm_costs_its_gated_positions_more():
    """Fails if WavLM's attention, which is torch's own, goes uncounted."""
    model = built("wavlm_base")
    with torch.device("meta"):
        macs = count_macs(model, 16000)
    expected = by_hand(model.config, 16000)
    assert macs["attention"] == expected["attention"]
    assert macs["convolutions"] == expected["convolutions"]
    assert expected["linear"] < macs["linear"] < 1.01 * expected["linear"]


def test_the_lengths_are_those_of_the_published_numbers():
    """Fails on a mistyped length: both sums are those of the published list."""
    assert len(LIBRISPEECH_LENGTHS) == 32
    assert sum(LIBRISPEECH_LENGTHS) == 3_597_760
    assert seconds(LIBRISPEECH_LENGTHS) == 224.86


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("starhubert", 463.45, 463.55),
        ("starhubert_l", 511.85, 511.95),
        ("hubert_base", 1665, 1669),
    ],
)
def test_published_macs(name, low, high):
    """Fails if the architectures or lengths are not those of the publications."""
    assert low < published_macs(name) / 1e9 < high


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("starhubert", 22_308_592),
        ("starhubert_l", 26_626_672),
        ("hubert_base", 94_371_712),
        ("wav2vec2_base", 94_371_712),
    ],
)
def test_published_sizes(name, expected):
    assert profile(find_subject(name), [16000])["params"] == expected


def test_distilhubert_has_its_published_size():
    assert round(profile(find_subject("distilhubert"), [16000])["params"] / 1e6, 2) == 23.49


def test_a_row_adds_up():
    """Fails if repeated lengths are counted once or seconds are those of one utterance."""
    row = profile(find_subject("demo"), [16000, 16000, 8000])
    config = built("demo").config
    one, half = (sum(by_hand(config, samples).values()) for samples in (16000, 8000))
    assert row["macs"] == sum(row["macs_by_kind"].values()) == 2 * one + half
    assert row["macs_per_second"] == pytest.approx(row["macs"] / 2.5)
    assert (row["model"], row["bytes"]) == ("demo", None)


@pytest.mark.parametrize("text", ["16000\n8000\n", "a 16000\n\nb 8000\n"])
def test_lengths_from_a_file(text, tmp_path):
    (tmp_path / "lengths").write_text(text)
    assert read_lengths(tmp_path / "lengths") == (16000, 8000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("16000\n1.5\n", ":2: expected a number of samples, alone or behind a key, got '1.5'"),
        ("a b 16000\n", ":1: expected a number of samples"),
        ("-16000\n", ":1: expected a number of samples"),
        ("a 399\n", r":1: must be at least 400 samples \(one frame\), got 399"),
        ("\n", ": holds no length"),
    ],
)
def test_lengths_that_cannot_be(text, message, tmp_path):
    (tmp_path / "lengths").write_text(text)
    with pytest.raises(DataError, match=message):
        read_lengths(tmp_path / "lengths")
    with pytest.raises(DataError, match="absent: cannot be read"):
        read_lengths(tmp_path / "absent")
