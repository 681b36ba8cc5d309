"""Noise and rooms for the student, clean speech for the teacher."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_star.data.errors import DataError
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.views import VIEWS
from espnet_star.views.acoustics import add_noise, decaying_response, reverberate

SHAPE = Shape(layers=2, width=4)


def directory(path, rate=16000, samples=500, value=None):
    """A data directory of one recording."""
    path.mkdir()
    wave = np.random.default_rng(0).normal(0, 0.1, samples) if value is None else value
    soundfile.write(path / "a.wav", wave, rate, subtype="FLOAT")
    (path / "wav.scp").write_text(f"a {path / 'a.wav'}\n")
    return path


def test_noise_is_that_of_the_authors(reference):
    file = np.load(reference("robustdistiller.npz"))
    rows = zip(*(torch.from_numpy(file[key]) for key in ("clean", "noise", "noisy")), strict=True)
    for (clean, noise, noisy), snr in zip(rows, file["snr_db"].tolist(), strict=True):
        torch.testing.assert_close(add_noise(clean, noise, snr), noisy, atol=3e-6, rtol=1e-5)


def test_a_room_moves_nothing_and_keeps_the_power():
    x = torch.randn(4000)
    response = torch.zeros(50)
    response[7] = -0.5  # the direct sound, late and upside down
    torch.testing.assert_close(reverberate(x, response), -x, atol=1e-5, rtol=1e-5)
    wet = reverberate(x, decaying_response(0.3, torch.randn(4800)))
    torch.testing.assert_close(wet.square().mean(), x.square().mean())
    assert wet.shape == x.shape and torch.corrcoef(torch.stack([wet, x]))[0, 1] < 0.95
    assert not reverberate(torch.zeros(100), response).any()


def test_each_corruption_has_its_share_and_padding_is_left_alone(tmp_path):
    """Fails if noise were drawn for all, or longer than the utterance."""
    made = {"noise_dir": directory(tmp_path / "noise"), "rir_dir": directory(tmp_path / "rir")}
    lengths = torch.tensor([900, 600] * 100)
    speech = torch.randn(200, 900)
    for conf in ({}, made):
        view = VIEWS.build("noisy", conf, SHAPE, SHAPE)
        passes = view(speech, lengths)
        heard = passes["student"].speech
        assert passes["teacher"].speech is speech and heard.isfinite().all()
        assert torch.equal(heard[1::2, 600:], speech[1::2, 600:])
        clean = (heard == speech).all(1)
        assert 0.15 < clean.float().mean() < 0.35  # a quarter


def test_draws_follow_the_run():
    speech, lengths = torch.randn(8, 900), torch.full((8,), 900)
    view = VIEWS.build("noisy", {}, SHAPE, SHAPE)
    torch.manual_seed(3)
    first, second = (view(speech, lengths)["student"].speech for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(view(speech, lengths)["student"].speech, first)
    view.eval()
    assert torch.equal(*(view(speech, lengths)["student"].speech for _ in range(2)))


def test_recorded_noise_is_resampled_repeated_and_at_the_ratio_asked(tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    noise = directory(tmp_path / "noise", rate=8000, value=tone)
    conf = dict(noise_dir=noise, recorded_prob=1.0, snr_low=6, snr_high=6)
    view = VIEWS.build("noisy", conf, SHAPE, SHAPE)
    x = torch.randn(20000)  # longer than the recording's 8000
    added = view._noise(x, np.random.default_rng(0)) - x
    ratio = 10 * torch.log10(x.square().mean() / added.square().mean())
    assert float(ratio) == pytest.approx(6, abs=1e-3)
    assert int(torch.fft.rfft(added[:16000]).abs().argmax()) == 1000


def test_directories_without_recordings_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty/wav.scp: no such file; give a data directory with"):
        VIEWS.build("noisy", {"noise_dir": tmp_path / "empty"}, SHAPE, SHAPE)
    (tmp_path / "empty" / "wav.scp").write_text("")
    with pytest.raises(DataError, match="empty"):
        VIEWS.build("noisy", {"rir_dir": tmp_path / "empty"}, SHAPE, SHAPE)
    (tmp_path / "empty" / "wav.scp").write_text("a /nowhere/a.wav\n")
    with pytest.raises(DataError, match=r"wav.scp: a \(/nowhere/a.wav\): missing file"):
        VIEWS.build("noisy", {"noise_dir": tmp_path / "empty"}, SHAPE, SHAPE)
    with pytest.raises(StarError, match="snr_low and snr_high must be whole numbers of dB"):
        VIEWS.build("noisy", {"snr_low": 21}, SHAPE, SHAPE)
