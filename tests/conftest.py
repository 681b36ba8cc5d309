"""Tiny networks, synthetic speech and reference files that every part's tests share."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "reference"
REFERENCE = Path(os.environ.get("ESPNET_STAR_REFERENCE") or BESIDE)

# Kernels for GPUs run in Triton's interpreter here, which must be asked for before its import.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell that runs the tests in the background or under nohup has them ignore these, and
# children inherit it; the tests of stopped runs need the signals to arrive.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    """A command sets ``sys.argv``, from which ESPnet reads its defaults: not for the next test."""
    monkeypatch.setattr(sys, "argv", sys.argv[:])


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def faulty(monkeypatch):
    """A processor that computes narrow grouped convolutions in bfloat16 wrongly.

    As oneDNN 3.11.2 does on AMX: by more than the result's own size, without a word. The
    student has none (its positions go by their spectrum), so a linear map of its shape is too.
    """
    convolve, linear = torch.nn.functional.conv1d, torch.nn.functional.linear

    def wrong(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        out = convolve(x, weight, bias, stride, padding, dilation, groups)
        narrow = groups > 1 and weight.shape[2] < 128
        return out.flip(1) if out.dtype == torch.bfloat16 and narrow else out

    def wrong_linear(x, weight, bias=None):
        out = linear(x, weight, bias)
        return out.flip(-1) if out.dtype == torch.bfloat16 and weight.shape == (24, 16) else out

    monkeypatch.setattr(torch.nn.functional, "conv1d", wrong)
    monkeypatch.setattr(torch.nn.functional, "linear", wrong_linear)


@pytest.fixture(params=["this processor", "faulty processor"])
def processor(request):
    """This one, whatever it does with bfloat16, and one that does it wrongly."""
    if request.param == "faulty processor":
        request.getfixturevalue("faulty")
    return request.param


@pytest.fixture
def reference():
    """Path of a file with values computed elsewhere; skips where it is absent."""

    def find(name):
        path = REFERENCE / name
        if not path.is_file():
            pytest.skip(f"the reference file {name} is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_options():
    """Architecture of a student that runs in milliseconds."""
    return dict(
        conv_dim=[8] * 8 + [16],
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )


@pytest.fixture
def tiny_student(tiny_options):
    """The student itself, in eval mode, every parameter away from its special value."""
    from espnet_star.students import StarEncoder

    student = StarEncoder(**tiny_options).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@pytest.fixture(scope="session")
def tiny_hubert():
    """Make a random HubertModel as transformers does: no identity in its projection."""

    def make(**changes):
        options = dict(
            conv_dim=(8,) * 7,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            vocab_size=5,
            apply_spec_augment=False,
            layerdrop=0.0,
        )
        torch.manual_seed(1)
        model = transformers.HubertModel(transformers.HubertConfig(**(options | changes)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def teacher_directory(tiny_hubert, tmp_path_factory):
    """Directory of a HuBERT-shaped teacher."""
    directory = tmp_path_factory.mktemp("teacher")
    tiny_hubert().save_pretrained(directory)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def onnx_files(tiny_options, tmp_path_factory):
    """Folder with a student's directory, ``student``, and all formats of it, ``files``."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    from espnet_star.bin import star_export
    from espnet_star.students import StarEncoder

    directory = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    student = StarEncoder(**tiny_options).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    student.save_pretrained(directory / "student")
    options = ["--precision", "float32", "float16", "int8", "--program", "true"]
    star_export.main(
        [
            "onnx",
            "--upstream",
            f"{directory}/student",
            "--output_dir",
            f"{directory}/files",
            *options,
        ]
    )
    return directory


@pytest.fixture
def batch():
    """Unequal utterances with rubbish past their ends, down to one frame."""
    lengths = torch.tensor([6000, 5999, 3000, 720, 719, 400])
    return 0.3 * torch.randn(len(lengths), 6400), lengths


def synthetic_speech(index, samples):
    """Two moving harmonics under a syllable-like envelope, and a little noise."""
    time = np.arange(samples) / 16000
    pitch = 100 + 15 * index
    tone = sum(np.sin(2 * np.pi * pitch * k * time + np.sin(7 * time)) / k for k in (1, 2, 5))
    envelope = np.abs(np.sin(2 * np.pi * (3 + index / 4) * time))
    noise = np.random.default_rng(index).normal(0, 0.02, samples)
    return (0.3 * tone * envelope + noise).astype(np.float32)


@pytest.fixture(scope="session")
def make_speech():
    """The function above."""
    return synthetic_speech


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    """Kaldi-style data of eight short clips: speech, text, label and lengths."""
    import soundfile

    directory = tmp_path_factory.mktemp("data")
    tables = {name: [] for name in ("wav.scp", "text", "label", "utt2spk", "utt2num_samples")}
    for index in range(8):
        samples, key = 2600 + 320 * index, f"s{index % 2}_{index}"
        soundfile.write(directory / f"{key}.wav", synthetic_speech(index, samples), 16000)
        word = "AB" if index % 2 else "BA"
        values = (directory / f"{key}.wav", word, f"s{index % 2}", f"s{index % 2}", samples)
        for rows, value in zip(tables.values(), values, strict=True):
            rows.append(f"{key} {value}\n")
    for name, rows in tables.items():
        (directory / name).write_text("".join(sorted(rows)))
    (directory / "tokens").write_text("<blank>\n<unk>\nA\nB\n<sos/eos>\n")
    (directory / "labels").write_text("s0\ns1\n<unk>\n")
    return directory


@pytest.fixture(scope="session")
def many_directory(tmp_path_factory):
    """Kaldi-style data of 24 clips of 0.13 to 0.7 s."""
    import soundfile

    directory = tmp_path_factory.mktemp("many")
    wavs, lengths = [], []
    for index in range(24):
        samples, key = 2000 + 400 * index, f"s{index % 3}/u{index:02d}"
        path = directory / f"{index}.{'flac' if index % 2 else 'wav'}"
        soundfile.write(path, synthetic_speech(index % 8, samples), 16000)
        wavs.append(f"{key} {path}\n")
        lengths.append(f"{key} {samples}\n")
    (directory / "wav.scp").write_text("".join(sorted(wavs)))
    (directory / "utt2num_samples").write_text("".join(sorted(lengths)))
    return directory


@pytest.fixture(scope="session")
def shards(many_directory, tmp_path_factory):
    """The same in eight shards of three."""
    pytest.importorskip("lhotse", reason="pip install espnet_star[shards]")
    from espnet_star.data.shard_writer import ShardOptions, write_shards

    directory = tmp_path_factory.mktemp("shards") / "train"
    write_shards(many_directory, directory, ShardOptions(size=3, min_shards=1))
    return directory
