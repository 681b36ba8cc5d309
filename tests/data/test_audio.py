import re

import numpy as np
import pytest
import soundfile

from espnet_star.data.audio import AudioOptions, Job, convert, file_name

OPTIONS = AudioOptions()


def run(tmp_path, path, options=OPTIONS, **cut):
    return convert(Job("utt", str(path), **cut), str(tmp_path / "out"), options)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_rate_and_channels_are_converted(tmp_path, tone, rate, channels):
    soundfile.write(tmp_path / "a.wav", tone(1.0, rate, channels=channels), rate)
    result = run(tmp_path, tmp_path / "a.wav")
    samples, fs = soundfile.read(result.path)
    assert (fs, samples.ndim, result.samples) == (16000, 1, len(samples))
    assert abs(len(samples) - 16000) <= 1
    assert "resampled" in result.notes
    assert ("mixed down" in result.notes) == (channels == 2)
    expected = tone(1.0, 16000)[2000:-2000]
    assert np.abs(samples[2000:14000] - expected[: len(samples[2000:14000])]).max() < 0.01
    assert soundfile.info(result.path).subtype == "PCM_16"


@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="no MP3 in libsndfile")
def test_mp3_is_read(tmp_path, tone):
    soundfile.write(tmp_path / "a.mp3", tone(1.0), 16000)
    result = run(tmp_path, tmp_path / "a.mp3")
    assert result.path.endswith(".flac")
    assert abs(result.samples - 16000) < 2400


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_usable_source_is_not_copied(tmp_path, tone, ending):
    soundfile.write(tmp_path / f"a.{ending}", tone(0.5), 16000)
    result = run(tmp_path, tmp_path / f"a.{ending}")
    assert (result.path, result.samples) == (str(tmp_path / f"a.{ending}"), 8000)
    assert not (tmp_path / "out").exists()


def test_channel_writes_a_copy_of_equal_length(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    result = run(tmp_path, tmp_path / "a.wav", AudioOptions(channel_seed=1))
    samples, _ = soundfile.read(result.path)
    assert len(samples) == result.samples == 8000
    assert np.abs(samples - tone(0.5)).max() > 0.01


def test_segment_is_cut(tmp_path, tone):
    ramp = np.linspace(-0.5, 0.5, 32000)
    soundfile.write(tmp_path / "a.wav", ramp, 16000)
    result = run(tmp_path, tmp_path / "a.wav", start=0.5, end=1.0)
    samples, _ = soundfile.read(result.path)
    assert samples == pytest.approx(ramp[8000:16000], abs=1e-4)
    late = run(tmp_path, tmp_path / "a.wav", start=1.5, end=None)
    assert late.samples == 8000
    assert "starts after the end" in run(tmp_path, tmp_path / "a.wav", start=3, end=4).reason


def test_stereo_that_cancels_is_all_zero(tmp_path, tone):
    wave = tone(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), 16000, "FLOAT")
    assert run(tmp_path, tmp_path / "a.wav").reason == "all samples are zero"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(tmp_path, tone, bad):
    wave = tone(0.5)
    wave[100] = bad
    soundfile.write(tmp_path / "a.wav", wave, 16000, "FLOAT")
    assert run(tmp_path, tmp_path / "a.wav").reason == "NaN or infinite samples"


def test_beyond_full_scale_is_noted(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 8000, amplitude=2.0), 8000, "FLOAT")
    result = run(tmp_path, tmp_path / "a.wav")
    assert "clipped: 66.5 % of the samples" in result.notes
    assert np.abs(soundfile.read(result.path)[0]).max() <= 1.0


@pytest.mark.parametrize(
    ("seconds", "options", "reason"),
    [
        (0.02, AudioOptions(), "shorter than min_samples"),
        (0.05, AudioOptions(), "shorter than min_duration"),
        (2.0, AudioOptions(max_duration=1.5), "longer than max_duration"),
    ],
)
@pytest.mark.parametrize("rate", [8000, 16000])
def test_length_limits(tmp_path, tone, seconds, options, reason, rate):
    soundfile.write(tmp_path / "a.wav", tone(seconds, rate), rate)
    assert run(tmp_path, tmp_path / "a.wav", options).reason == reason


def test_truncated_flac(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "a.flac", noise, 16000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    assert run(tmp_path, tmp_path / "a.flac").reason.split(":")[0] in {"truncated", "unreadable"}


def test_pipe_is_decoded_and_its_failure_named(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 8000), 8000)
    assert run(tmp_path, f"cat '{tmp_path / 'a.wav'}' |").samples == 8000
    assert "pipe failed with code 3 why" in run(tmp_path, "echo why >&2; exit 3 |").reason
    assert run(tmp_path, "true |").reason == "empty file"
    assert run(tmp_path, "echo no audio at all here |").reason.startswith("unreadable")


@pytest.mark.parametrize("utterance", ["../../escape", "id1/clip/0001", "ü" * 80, "x" * 240, ".."])
def test_file_names_stay_in_the_folder(tmp_path, utterance):
    path = (tmp_path / file_name(utterance, "flac")).resolve()
    assert path.parent.parent == tmp_path.resolve()
    assert len(path.name.encode()) <= 255


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(
    ("level", "reason"),
    [
        (9000.0, "samples of another range: the peak is 9000, expected -1 to 1; divide them by"),
        (1e-38, "all samples are zero in 16 bits: the peak is "),
        (2.0**-18, "all samples are zero in 16 bits: the peak is 3.8e-06"),
    ],
)
def test_a_peak_that_says_another_range(tmp_path, tone, rate, level, reason):
    """Became a square wave, passed as it was, or zeros."""
    wave = level * tone(1.0, rate, amplitude=1.0)
    soundfile.write(tmp_path / "a.wav", wave / np.abs(wave).max() * level, rate, "FLOAT")
    assert run(tmp_path, tmp_path / "a.wav").reason.startswith(reason)


def test_a_little_beyond_full_scale_is_clipped_wherever_it_comes_from(tmp_path, tone):
    """A float file at the right rate was used as it is, and clipped unseen later."""
    for rate in (16000, 8000):
        soundfile.write(tmp_path / "a.wav", tone(0.5, rate, amplitude=1.01), rate, "FLOAT")
        result = run(tmp_path, tmp_path / "a.wav")
        assert np.abs(soundfile.read(result.path)[0]).max() <= 1.0
        assert re.fullmatch(r"clipped: (8|9)\.\d+ % of the samples", result.notes[-1])


@pytest.mark.parametrize(
    ("start", "end", "samples", "outcome"),
    [
        (0.5, 1.005, 8000, None),
        (-0.005, 0.5, 8000, None),
        (0.5, 1.3, 8000, "segment trimmed: 0.300 s were behind the end of the recording"),
        (0.5, 1.6, 0, "segment ends after its recording: 0.60 s behind the end at 1.00 s"),
        (-0.1, 0.5, 0, "segment starts before its recording: at -0.10 s"),
        (1.2, 1.4, 0, "segment starts after the end of the recording"),
        (0.5, None, 8000, None),
    ],
)
def test_segments_that_overshoot(tmp_path, tone, start, end, samples, outcome):
    """Rounding is trimmed; up to half a second is noted; beyond, times are those of another."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16000)
    result = run(tmp_path, tmp_path / "a.wav", start=start, end=end)
    assert result.samples == samples
    told = [note for note in result.notes if note.startswith("segment")]
    assert (result.reason or next(iter(told), None)) == outcome
