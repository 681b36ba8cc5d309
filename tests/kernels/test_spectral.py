"""A bug here gives CPUs other relative positions, or other gradients, than GPUs."""

import pytest
import torch
from torch import nn

from espnet_star.kernels.predicate import FORMS, NOWHERE, pays
from espnet_star.kernels.spectral import (
    INFERENCE_FRAMES,
    TRAINING_FRAMES,
    convolve_spectrum,
    spectral,
    spectrum,
)
from espnet_star.students import StarEncoder


def wide_conv(kernel, groups, bias=True, padding=None):
    padding = kernel // 2 if padding is None else padding
    return nn.Conv1d(12, 12, kernel, padding=padding, groups=groups, bias=bias).double()


@pytest.mark.parametrize("new_frames", [INFERENCE_FRAMES, TRAINING_FRAMES])
@pytest.mark.parametrize(("kernel", "groups"), [(128, 4), (16, 2), (3, 3), (95, 12)])
@pytest.mark.parametrize("frames", [1, 2, 64, 65, 129, 400])
def test_value_and_gradient_are_the_convolutions(kernel, groups, frames, new_frames):
    """From one frame to several pieces, whose seams must not show."""
    conv = wide_conv(kernel, groups)
    x = torch.randn(2, frames, 12, dtype=torch.double, requires_grad=True)
    expected = conv(x.transpose(1, 2)).transpose(1, 2)
    found = convolve_spectrum(x, spectrum(conv, new_frames), conv)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("padding", [0, 5, 20])
def test_any_padding_and_no_bias(padding):
    conv = wide_conv(8, 2, bias=False, padding=padding)
    x = torch.randn(3, 30, 12, dtype=torch.double)
    expected = conv(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(convolve_spectrum(x, spectrum(conv), conv), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_went_in(dtype):
    """Transforms know no half precision, and the residual stream may be in it."""
    conv = wide_conv(16, 2)
    x = torch.randn(1, 50, 12, dtype=torch.double)
    expected = conv(x.transpose(1, 2)).transpose(1, 2)
    conv = conv.to(dtype)
    found = convolve_spectrum(x.to(dtype), spectrum(conv), conv)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.05)


def test_only_wide_grouped_convolutions_are_spectral():
    """The strided convolutions of the front must keep their own form."""
    assert spectral(nn.Conv1d(8, 8, 16, padding=8, groups=2))
    assert not spectral(nn.Conv1d(8, 8, 16, padding=8))
    assert not spectral(nn.Conv1d(8, 8, 16, padding=8, groups=2, stride=2))
    assert not spectral(nn.Conv1d(8, 16, 16, padding=8, groups=2))


def test_the_student_convolves_alike_in_both_forms(tiny_options, batch, monkeypatch):
    """With the weight norm's gradients as well."""
    student = StarEncoder(**tiny_options).double().eval()
    speech, lengths = batch

    def run():
        outputs = student.encode(speech.double(), lengths)
        state = outputs.hidden_states[0][outputs.mask()]
        parameters = student.encoder.pos_conv_embed.parameters()
        found = torch.autograd.grad(state.exp().sum(), list(parameters))
        return [state, *found]

    found = run()
    monkeypatch.setitem(FORMS, "positions", NOWHERE)
    for one, other in zip(found, run(), strict=True):
        torch.testing.assert_close(one, other)
    assert not found[0].equal(run()[0])  # rounding shows that there were two
    monkeypatch.undo()
    assert pays("positions", speech)
    assert not pays("positions", torch.empty(1, device="meta"))
