"""A bug here feeds a student audio at another rate or scale, or hides why it was refused."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_star.data.waveforms import waveform
from espnet_star.errors import StarError


def test_what_is_a_waveform(make_speech):
    speech = make_speech(0, 4000)
    for audio in (speech, speech.astype(np.float64), torch.from_numpy(speech).requires_grad_()):
        for rate in (None, 16000, np.int64(16000)):
            found = waveform(audio, rate, "x")
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, torch.from_numpy(speech))


def test_16_bit_samples_have_the_scale_of_files(make_speech, tmp_path):
    """Fails if integers would reach the student 32768 times too loud."""
    soundfile.write(tmp_path / "a.wav", make_speech(0, 4000), 16000)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    expected = waveform(tmp_path / "a.wav", None, "x")
    for audio in (samples, torch.from_numpy(samples)):
        assert torch.equal(waveform(audio, None, "x"), expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_any_rate_arrives_at_16_khz(rate, tmp_path):
    """Fails if a rate is believed and not converted, in memory or from a file."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], axis=1), rate, subtype="FLOAT")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    for found in (waveform(tone, rate, "x"), waveform(str(tmp_path / "a.wav"), None, "x")):
        assert abs(len(found) - 16000) <= 1
        np.testing.assert_allclose(found[2000:14000], expected[2000:14000], atol=1e-3)


LONG = np.zeros(800, dtype=np.float32)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(0), None, "x is empty"),
        (torch.zeros(0), 44100, "x is empty"),
        (np.zeros(399), None, "x has 399 samples at 16 kHz; one frame needs 400"),
        (LONG, 44100, "x has 290 samples at 16 kHz"),
        (np.full(800, np.nan), None, "x has NaN or infinite samples"),
        (np.full(800, np.inf), 8000, "x has NaN or infinite samples"),
        (np.full(800, 9000.0), None, "x has samples of another range: the peak is 9000"),
        (np.full(800, -1e-38), 8000, "x has samples of another range: the peak is 1.0e-38"),
        (np.zeros((2, 800)), None, r"x must have shape \(T,\), got \(2, 800\); mix channels"),
        (np.zeros(800, dtype=np.int32), None, "x must be floating point or int16, got int32"),
        (torch.zeros(800, dtype=torch.bool), None, "x must be floating point or int16, got bool"),
        ([0.0] * 800, None, "x must be a NumPy array, a torch tensor or a path, got list"),
        (LONG, "16k", r"rate must be a whole number of Hz such as 44100, got '16k' \(str\)"),
        (LONG, 16000.0, "rate must be a whole number"),
        (LONG, True, "rate must be a whole number"),
        (LONG, 0, "rate must be above 0 Hz, got 0"),
    ],
)
def test_what_is_none(audio, rate, message):
    with pytest.raises(StarError, match=message):
        waveform(audio, rate, "x")


def test_files_that_are_none(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 8000)
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "loud.wav", np.full(800, 9000.0), 8000, "FLOAT")
    for name, message in {
        "absent.wav": "absent.wav: missing file",
        "loud.wav": "loud.wav: samples of another range: the peak is 9000",
        "text.wav": "text.wav: unreadable",
        "none.wav": "x is empty",
        "short.wav": "x has 200 samples at 16 kHz",
    }.items():
        with pytest.raises(StarError, match=message):
            waveform(tmp_path / name, None, "x")
    with pytest.raises(
        StarError, match="x: a file brings its own rate; leave sampling_rate=8000 out"
    ):
        waveform(tmp_path / "short.wav", 8000, "x")


def test_a_path_is_never_run_as_a_command(tmp_path):
    """Fails if a file name that ends as a Kaldi pipe would start a shell."""
    with pytest.raises(StarError, match="missing file"):
        waveform(f"touch {tmp_path}/started |", None, "x")
    assert not (tmp_path / "started").exists()
