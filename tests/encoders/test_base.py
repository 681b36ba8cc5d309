"""Shapes, and the one guard in front of every encoder."""

import pytest
import torch

from espnet_star.encoders import Encoder, Frozen, Shape, Want
from espnet_star.encoders.base import hop_and_field
from espnet_star.encoders.too_short import TooShort
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs


class Slow(Encoder):
    """25 frames a second."""

    name, shape = "slow", Shape(layers=2, width=4, hop=640, field=720)

    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(640, 4)

    def extract(self, speech, lengths, sizes, want):
        frames = self.shape.frames_of(speech.shape[1])
        state = self.map(speech[:, : 640 * frames].view(len(speech), frames, 640))
        return LayerOutputs((state,) * 3, self.shape.frames(lengths))


def test_hop_and_field_are_those_of_the_convolutions():
    kernels, strides = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
    assert hop_and_field(kernels, strides) == (320, 400)
    signal = torch.zeros(1, 1, 4000)
    for kernel, stride in zip(kernels, strides, strict=True):
        signal = torch.nn.functional.conv1d(signal, torch.ones(1, 1, kernel), stride=stride)
    assert Shape(2, 4).frames_of(4000) == signal.shape[2]


def test_frames_follow_the_hop():
    assert Slow.shape.frames(torch.tensor([719, 720, 1360, 16000])).tolist() == [0, 1, 2, 24]
    assert Slow.shape.rate == 25


@pytest.mark.parametrize(
    ("speech", "lengths", "error", "message"),
    [
        (torch.zeros(1, 800), [719], TooShort, r"encoder 'slow': .* 720 .* got 719 to 719"),
        (torch.zeros(1, 800), [801], StarError, r"T = 800 samples, got 801 to 801"),
        (torch.zeros(800), [800], StarError, r"must have shape \(B, T\)"),
    ],
)
def test_the_guard_names_what_does_not_fit(speech, lengths, error, message):
    with pytest.raises(error, match=message):
        Slow().encode(speech, torch.tensor(lengths))


def test_what_an_encoder_has_not_is_refused():
    for want in (Want(attentions=True), Want(mask=torch.ones(1, 1)), Want(frozenset({3}))):
        with pytest.raises(StarError, match="encoder 'slow' has"):
            Slow().encode(torch.zeros(1, 800), torch.tensor([800]), want)


def test_a_frozen_encoder_is_moved_with_its_holder_and_in_no_checkpoint():
    """Fails if checkpoints held the teacher, or it stayed behind in another type."""
    inner, holder = Slow().train(), torch.nn.Module()
    holder.teacher = Frozen(inner)
    holder.train().double()
    assert inner.map.weight.dtype == torch.float64 and not inner.training
    assert not holder.state_dict() and not list(holder.parameters())
    outputs = holder.teacher.encode(torch.zeros(1, 800).double(), torch.tensor([800]))
    assert not outputs.hidden_states[0].requires_grad
