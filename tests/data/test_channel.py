import numpy as np
import pytest

from espnet_star.data.channel import GAIN_DB, PEAK, RANGE_DB, apply_channel, draw_channel

FS = 16000
PINNED_GAIN = -8.1222948
PINNED_RESPONSE = [-0.7120753, 4.1893961, -3.9093358, -6.0711612, -4.7634828]


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.02, 4 * FS).astype(np.float32)


def test_same_seed_and_utterance_give_the_same_channel():
    first, second = draw_channel(3, "utt1"), draw_channel(3, "utt1")
    assert np.array_equal(first.response_db, second.response_db)
    assert first.gain_db == second.gain_db


def test_channel_is_pinned():
    # A release that draws other channels would make old and new results incomparable.
    channel = draw_channel(0, "utt1")
    assert channel.gain_db == pytest.approx(PINNED_GAIN, abs=1e-6)
    assert channel.response_db[::64] == pytest.approx(PINNED_RESPONSE, abs=1e-6)


def test_seed_and_utterance_change_the_channel():
    base = draw_channel(3, "utt1").response_db
    assert np.abs(base - draw_channel(3, "utt2").response_db).max() > 1.0
    assert np.abs(base - draw_channel(4, "utt1").response_db).max() > 1.0


@pytest.mark.parametrize("index", range(20))
def test_response_is_smooth_and_in_range(index):
    channel = draw_channel(0, f"utt{index}")
    assert RANGE_DB[0] <= np.abs(channel.response_db).max() <= RANGE_DB[1]
    assert GAIN_DB[0] <= channel.gain_db <= GAIN_DB[1]
    assert np.abs(np.diff(channel.response_db)).max() < 2.0


def test_applied_spectrum_is_the_drawn_one(noise):
    channel = draw_channel(1, "utt")
    filtered = apply_channel(noise, channel)
    window = np.hanning(512)
    frames = [slice(i, i + 512) for i in range(0, len(noise) - 512, 256)]

    def power(x):
        return np.mean([np.abs(np.fft.rfft(window * x[f])) ** 2 for f in frames], axis=0)

    measured = 10 * np.log10(power(filtered) / power(noise))
    # The lowest bins are smeared by the window and the filter's length.
    expected = (channel.response_db + channel.gain_db)[8:-8]
    assert np.abs(measured[8:-8] - expected).max() < 1.0


@pytest.mark.parametrize("size", [FS, 401, 511, 100, 1])
def test_length_is_kept(size):
    click = np.zeros(size, np.float32)
    click[size // 2] = 0.5
    filtered = apply_channel(click, draw_channel(2, "utt"))
    assert filtered.shape == (size,)
    assert filtered.dtype == np.float32


def test_no_shift():
    click = np.zeros(FS, np.float32)
    click[5000] = 0.5
    filtered = apply_channel(click, draw_channel(2, "utt"))
    assert np.abs(filtered).argmax() == 5000
    left, right = filtered[5000 - 200 : 5000], filtered[5001 : 5001 + 200]
    assert left[::-1] == pytest.approx(right, abs=1e-6)


def test_peak_is_limited():
    loud = np.sign(np.sin(np.arange(FS) / 20)).astype(np.float32)
    for index in range(5):
        filtered = apply_channel(loud, draw_channel(0, f"utt{index}"))
        assert np.abs(filtered).max() <= PEAK + 1e-6
