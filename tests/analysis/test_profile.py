import random

import pytest
import torch
import transformers

from espnet_star.analysis.profile import (
    LIBRISPEECH_LENGTHS,
    Column,
    count_macs,
    markdown,
    profile,
    read_lengths,
    report,
    seconds,
)
from espnet_star.analysis.subjects import SHAPES, find_subject
from espnet_star.data.errors import DataError
from espnet_star.errors import StarError
from espnet_star.students import PRESETS, StarEncoder

# All conv_dim entries are wider than one so that a swapped pair of sizes shows.
STRIDES = [(10, 5), (1, 1), (3, 2), (3, 2), (3, 2), (3, 2), (1, 1), (2, 2), (2, 2)]
FEW = (400, 16000, 47311)


def by_hand(config, samples):
    """MACs of an encoder from its sizes alone: outputs times inputs of each output."""
    frames, channels, convolutions = samples, 1, 0
    for out, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        frames = (frames - kernel) // stride + 1
        convolutions += frames * out * channels * kernel
        channels = out
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kernel = config.num_conv_pos_embeddings
    positions = frames + 2 * (kernel // 2) - kernel + 1  # one too many where kernel is even
    convolutions += positions * width * (width // config.num_conv_pos_embedding_groups) * kernel
    projection = 0 if getattr(config, "identity_projection", False) else frames * channels * width
    return {
        "convolutions": convolutions,
        "linear": projection + layers * frames * (4 * width**2 + 2 * width * inner),
        "attention": layers * 2 * frames**2 * width,
    }


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


@pytest.mark.parametrize("name", [*PRESETS, "hubert_base", "wav2vec2_base", "distilhubert"])
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


def test_a_student_directory(tiny_student, tmp_path):
    """Fails if the identity matrix that only transformers needs is counted."""
    tiny_student.save_pretrained(tmp_path)
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["params"] == sum(p.numel() for p in tiny_student.parameters())
    assert row["macs_by_kind"] == by_hand(tiny_student.config, 16000)
    assert row["bytes"] == (tmp_path / "model.safetensors").stat().st_size


def test_a_plain_hubert_directory(tiny_hubert, tmp_path):
    """Fails if a checkpoint in fp16 cannot be measured, or its .bin has no size."""
    hubert = tiny_hubert().half()
    hubert.save_pretrained(tmp_path)
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["params"] == sum(p.numel() for p in hubert.parameters())
    assert row["macs_by_kind"] == by_hand(hubert.config, 16000)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert find_subject(str(tmp_path)).bytes == row["bytes"] > 0


def test_a_distillation_experiment(tiny_student, tiny_options, tmp_path):
    """Fails if an experiment's folder is not measured like the student it gives."""
    config = {"encoder": "star", "encoder_conf": tiny_options, "losses": []}
    (tmp_path / "config.yaml").write_text(str(config))
    state = {f"encoder.{key}": value for key, value in tiny_student.state_dict().items()}
    torch.save(state, tmp_path / "valid.loss.best.pth")
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["macs_by_kind"] == by_hand(tiny_student.config, 16000)


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(StarError, match=r"unknown model .*Did you mean 'hubert_base'"):
        find_subject("hubert_bas")
    with pytest.raises(StarError, match=r"has no config\.json"):
        find_subject(str(tmp_path))
    with pytest.raises(StarError, match="neither a directory here nor a hub model"):
        find_subject(str(tmp_path / "absent"))


def test_a_model_of_another_kind(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(StarError, match=r"has model_type 'bert'; measured are hubert, "):
        find_subject(str(tmp_path))


def test_every_shape_can_be_run():
    """Fails if a shape cannot be built with weights, as a measurement of time needs."""
    model = find_subject("distilhubert").build()
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert set(SHAPES) >= {"hubert_base", "wav2vec2_base", "distilhubert"}


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


def test_columns_can_be_added():
    """Fails if another measurement's numbers do not find their way into the table."""
    rows = [
        {"model": "a|b", "params": 22_308_592, "bytes": None, "macs": 1.5e9, "rtf_5s": 0.0123},
        {"model": "c", "params": 1_000_000, "bytes": None, "macs": 1e9},
    ]
    columns = (Column("params", "params (M)", 1e6), Column("rtf_5s", "RTF", digits=3))
    lines = markdown(report(rows, [16000, 8000]), columns).splitlines()
    assert lines[:4] == [
        "| model | params (M) | RTF |",
        "| --- | ---: | ---: |",
        "| a\\|b | 22.31 | 0.012 |",
        "| c | 1.00 | - |",
    ]
    assert "2 utterances, 1.50 s in all" in lines[-1]
    assert "on disk" not in markdown(report(rows, [16000]))
