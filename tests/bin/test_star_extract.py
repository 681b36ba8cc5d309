import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch

from espnet_star.bin.star_extract import main
from espnet_star.data.kaldi import read_counts, read_table
from espnet_star.students import StarEncoder

TINY = {
    "conv_dim": [16] * 9,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_conv_pos_embedding_groups": 4,
}
# Seconds, rate, channels, ending of the file.
AUDIO = {
    "plain": (1.0, 16000, 1, "wav"),
    "short": (0.03, 16000, 1, "flac"),
    "phone": (0.7, 8000, 1, "wav"),
    "studio": (1.4, 44100, 2, "flac"),
    "stereo": (0.5, 16000, 2, "wav"),
}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    torch.manual_seed(0)
    encoder = StarEncoder(preset="starhubert", **TINY).eval()
    directory = tmp_path_factory.mktemp("student")
    encoder.save_pretrained(directory)
    return encoder, directory


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    paths = {}
    for name, (seconds, rate, channels, ending) in AUDIO.items():
        samples = generator.normal(scale=0.1, size=(int(seconds * rate), channels))
        paths[name] = tmp_path / "audio" / f"{name}.{ending}"
        paths[name].parent.mkdir(exist_ok=True)
        soundfile.write(paths[name], samples, rate)
    return paths


@pytest.fixture
def extract(student, tmp_path, capsys):
    def call(*options, outdir="out"):
        status = 0
        try:
            command = ["--upstream", student[1], "--output_dir", tmp_path / outdir, *options]
            main([str(option) for option in command])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr(), tmp_path / outdir

    return call


def alone(encoder, path):
    """Hidden states of one file by itself, ``(L+1, N, D)``."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = samples.mean(axis=1)
    if rate != 16000:
        wave = soxr.resample(wave, rate, 16000)
    if rate != 16000 or samples.shape[1] > 1:
        # Converted audio has 16 bits, as star_data prepare writes it.
        wave = (np.clip(np.rint(wave * 32768), -32768, 32767) / 32768).astype(np.float32)
    with torch.no_grad():
        speech = torch.from_numpy(wave)[None]
        states = encoder.encode(speech, torch.tensor([speech.shape[1]])).hidden_states
    return torch.cat(states).numpy()


@pytest.mark.parametrize("batch_seconds", ["60", "0.01"])
def test_all_layers_equal_the_encoder_alone(extract, student, files, batch_seconds):
    options = ["--layer", "all", "--batch_seconds", batch_seconds]
    status, captured, out = extract("--audio", *files.values(), *options)
    assert status == 0, captured.err
    assert "5 utterances, features (3, N, 16)" in captured.out
    entries, frames = read_table(out / "feats.scp"), read_counts(out / "utt2num_frames")
    assert list(entries) == sorted(AUDIO)
    for name, path in files.items():
        features, expected = np.load(entries[name]), alone(student[0], path)
        assert features.dtype == np.float32
        assert features.shape == expected.shape == (3, frames[name], 16)
        # A rounded sample may fall on either side of a half.
        np.testing.assert_allclose(
            features, expected, atol=1e-4 if AUDIO[name][1] == 16000 else 5e-3
        )
    assert not (out / "skipped.txt").exists()


@pytest.mark.parametrize(("layer", "index"), [("0", 0), ("1", 1), ("2", 2), ("-1", 2), ("-2", 1)])
def test_one_layer(extract, student, files, layer, index):
    status, captured, out = extract("--audio", files["plain"], "--layer", layer)
    assert status == 0, captured.err
    features = np.load(read_table(out / "feats.scp")["plain"])
    np.testing.assert_allclose(features, alone(student[0], files["plain"])[index], atol=1e-4)


def test_archive_reads_back(extract, files):
    assert extract("--audio", *files.values(), "--format", "ark")[0] == 0
    status, captured, out = extract("--audio", *files.values(), outdir="npy")
    assert status == 0, captured.err
    # ESPnet up to 202511 brings kaldiio, later ones omniio.
    name = "kaldiio" if importlib.util.find_spec("kaldiio") else "omniio.kaldi"
    kaldi = pytest.importorskip(name)
    archive = out.with_name("out")
    loaded = kaldi.load_scp(str(archive / "feats.scp"))
    streamed = dict(kaldi.load_ark(str(archive / "feats.ark")))
    entries = read_table(out / "feats.scp")
    assert sorted(loaded) == sorted(streamed) == sorted(entries)
    for name, path in entries.items():
        np.testing.assert_array_equal(loaded[name], np.load(path))
        np.testing.assert_array_equal(streamed[name], np.load(path))


def test_archive_holds_one_layer(extract, files):
    status, captured, out = extract("--audio", files["plain"], "--format", "ark", "--layer", "all")
    assert status == 2
    assert "choose one layer, or --format npy" in captured.err
    assert not out.exists()


def test_unusable_utterances_are_skipped_and_listed(extract, files, tmp_path):
    (tmp_path / "text.wav").write_text("not audio\n")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "tiny.wav", np.full(399, 0.1), 16000)
    names = ("text", "nan", "tiny", "missing")
    lines = [f"spk/{name} {tmp_path}/{name}.wav" for name in names]
    lines.append(f"spk/plain {files['plain']}")
    (tmp_path / "wav.scp").write_text("\n".join(lines) + "\n")
    status, captured, out = extract("--wav_scp", tmp_path / "wav.scp")
    assert status == 0, captured.err
    assert "1 utterances" in captured.out
    assert "4 skipped: " in captured.out
    assert list(read_table(out / "feats.scp")) == ["spk/plain"]
    reasons = read_table(out / "skipped.txt")
    assert reasons.pop("spk/text").startswith("unreadable")
    assert reasons == {
        "spk/nan": "NaN or infinite samples",
        "spk/tiny": "shorter than min_samples",
        "spk/missing": "missing file",
    }


def test_nothing_usable_writes_nothing(extract, tmp_path):
    status, captured, out = extract("--audio", tmp_path / "no.wav")
    assert status == 2
    assert f"none of 1 utterances can be used: no ({tmp_path}/no.wav): missing" in captured.err
    assert not out.exists()


def test_features_are_replaced_only_with_force(extract, files):
    assert extract("--audio", files["plain"], files["phone"])[0] == 0
    status, captured, out = extract("--audio", files["plain"])
    assert status == 2
    assert "give --force true" in captured.err
    assert extract("--audio", files["plain"], "--force", "true")[0] == 0
    assert list(read_table(out / "feats.scp")) == ["plain"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "3"], "--layer must be 0 to 2, -1 for the last, or all; got '3'"),
        (["--layer", "last"], "got 'last'"),
        (["--batch_seconds", "0"], "--batch_seconds must be above 0"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--device", "nonsense"], "--device nonsense cannot be used"),
    ],
)
def test_bad_options(extract, files, options, message):
    status, captured, out = extract("--audio", files["plain"], *options)
    assert status == 2
    assert message in captured.err
    assert not out.exists()


def test_names_of_files(extract, files, tmp_path):
    spaced = files["plain"].rename(tmp_path / "two  words.wav")
    assert extract("--audio", spaced)[0] == 0
    assert list(read_table(tmp_path / "out" / "feats.scp")) == ["two_words"]
    status, captured, _ = extract("--audio", spaced, tmp_path / "x" / spaced.name, outdir="b")
    assert status == 2
    assert "both give utterance two_words" in captured.err


def test_interrupted_run_leaves_no_scp(extract, files, monkeypatch):
    assert extract("--audio", files["plain"])[0] == 0

    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(np, "save", full)
    status, captured, out = extract("--audio", files["plain"], "--force", "true")
    assert status == 2
    assert "plain.npy: cannot be read or written (No space left on device)" in captured.err
    assert not (out / "feats.scp").exists()


def test_runs_through_the_dispatcher(student, files, tmp_path):
    command = [sys.executable, "-m", "espnet_star", "star_extract", "--upstream", str(student[1])]
    options = ["--audio", str(files["plain"]), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "feats.scp").exists()
