"""Two takes of an utterance: tempo and pitch as asked, the same after a resume."""

import math

import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.views import VIEWS
from espnet_star.views.acoustics import change_speed, shift_pitch

SHAPE = Shape(layers=2, width=4)


def tone(frequency, samples=16000):
    return torch.sin(2 * math.pi * frequency * torch.arange(samples) / 16000)


def pitch(x):
    """Frequency of the loudest line, in Hz."""
    spectrum = torch.fft.rfft(x * torch.hann_window(len(x)), 2**18).abs()
    return float(spectrum.argmax()) * 16000 / 2**18


def test_speed_changes_both_and_pitch_one():
    """Fails if a factor is taken for its inverse, or phases do not go on from frame to frame."""
    fast = change_speed(tone(440), 1.1)
    assert len(fast) == round(16000 / 1.1) and pitch(fast) == pytest.approx(484, abs=1)
    for semitones in (2, -2):
        shifted = shift_pitch(tone(440), semitones)
        assert len(shifted) == 16000
        assert pitch(shifted) == pytest.approx(440 * 2 ** (semitones / 12), rel=3e-3)
        middle = shifted[2000:-2000]
        assert middle.square().mean().sqrt() == pytest.approx(
            math.sqrt(0.5), rel=0.15
        )  # phases of neighboring bands drift
    torch.testing.assert_close(
        shift_pitch(tone(440), 0)[600:-600], tone(440)[600:-600], atol=1e-3, rtol=0
    )


def test_takes_are_of_the_same_utterance_in_either_order():
    lengths = torch.tensor([4000, 3000, 400] * 20)
    speech = torch.randn(60, 4000)
    view = VIEWS.build("two_takes", {"speeds": [0.8, 1.2]}, SHAPE, SHAPE)
    torch.manual_seed(5)
    passes = view(speech, lengths)
    first, second = passes["student"], passes["student2"]
    assert passes["teacher"] is first and passes["teacher2"] is second
    plain = [
        torch.equal(first.speech[r, :n], speech[r, :n]) for r, n in enumerate(lengths.tolist())
    ]
    assert 15 < sum(plain) < 45
    for row, (size, is_first) in enumerate(zip(lengths.tolist(), plain, strict=True)):
        whole, other = (first, second) if is_first else (second, first)
        assert int(whole.lengths[row]) == size
        factor = size / int(other.lengths[row])
        assert any(math.isclose(factor, f, rel_tol=1e-3) for f in (0.8, 1.2, *[1] * (size == 400)))
    assert min(first.lengths.min(), second.lengths.min()) >= 400  # a frame, as before
    torch.manual_seed(5)
    again = view(speech, lengths)["student2"]
    assert torch.equal(again.speech, second.speech) and torch.equal(again.lengths, second.lengths)


def test_a_take_of_the_data_is_used_as_it_is():
    speech, other = torch.randn(1, 4000), torch.randn(1, 3500)
    given = {"speech2": other, "speech2_lengths": torch.tensor([3500])}
    view = VIEWS.build("two_takes", {"swap": False}, SHAPE, SHAPE)
    passes = view(speech, torch.tensor([4000]), **given)
    assert torch.equal(passes["student"].speech, speech)
    assert torch.equal(passes["teacher2"].speech, other)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"speeds": []}, "speeds must be a list of factors between 0.25 and 4, got []"),
        ({"speeds": [0.0]}, "got [0.0]"),
        ({"semitones": -2}, "semitones must lie between 0 and 12, got -2"),
    ],
)
def test_an_option_out_of_range_is_one_line(conf, message):
    with pytest.raises(StarError) as caught:
        VIEWS.build("two_takes", conf, SHAPE, SHAPE)
    assert message in str(caught.value)
