"""A bug here gives CPUs other features or gradients than GPUs, which convolve."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from espnet_star.kernels import rows
from espnet_star.kernels.predicate import FORMS, NOWHERE, pays
from espnet_star.kernels.rows import conv_rows
from espnet_star.students import StarEncoder


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride"), [(1, 1), (3, 1), (2, 2), (3, 2), (5, 2), (1, 2), (7, 3), (10, 5)]
)
def test_rows_convolve(kernel, stride, bias):
    """Every ratio of kernel and stride: one product, several, and unread frames."""
    conv = nn.Conv1d(4, 6, kernel, stride=stride, bias=bias).double()
    x = torch.randn(3, 8 * stride, 4, dtype=torch.double, requires_grad=True)
    expected = conv(x.transpose(1, 2)).transpose(1, 2)
    steps = expected.shape[1]
    found = conv_rows(x, conv)
    assert found.shape == (3, 8, 6)
    torch.testing.assert_close(found[:, :steps], expected)
    weight = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    for one, other in zip(
        torch.autograd.grad((found[:, :steps] * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_the_function():
    """Rows past the end take part in the function itself, so check it without a mask."""
    conv = nn.Conv1d(2, 3, 5, stride=2, bias=False).double()
    x = torch.randn(2, 6, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: conv_rows(x, set_weight(conv, w)), (x, conv.weight)
    )


def set_weight(conv, weight):
    """A stand-in with the weight that gradcheck moves."""
    other = nn.Conv1d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, bias=False
    )
    del other.weight
    other.weight = weight
    return other


LAYOUTS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer"},
    "bias": {"feat_extract_norm": "layer", "conv_bias": True},
}


@pytest.fixture(params=LAYOUTS)
def student(request, tiny_options):
    """A student whose every parameter matters."""
    student = StarEncoder(**(tiny_options | LAYOUTS[request.param]))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@pytest.fixture
def run(student, monkeypatch):
    """Valid frames and lengths by rows, or by convolutions."""

    used = FORMS["front"]

    def call(rows, speech, lengths):
        monkeypatch.setitem(FORMS, "front", used if rows else NOWHERE)
        frames, frame_lengths = student.feature_extractor(speech, lengths)
        mask = torch.arange(frames.shape[1]) < frame_lengths[:, None]
        return frames[mask], frames.shape, frame_lengths

    return call


def assert_close(one, other):
    """To float32's precision of the largest value."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.detach().abs().max()))


def test_both_forms_of_the_front_agree(student, run, batch):
    """In values, lengths and every gradient, on unequal utterances with rubbish behind."""
    results = []
    for form in (True, False):
        valid, *shapes = run(form, *batch)
        torch.manual_seed(1)
        loss = (valid * torch.randn_like(valid)).sum()
        grads = torch.autograd.grad(loss, list(student.feature_extractor.parameters()))
        results.append((shapes, valid, *grads))
    assert results[0][0][0] == results[1][0][0]
    assert results[0][0][1].equal(results[1][0][1])
    for one, other in zip(results[0][1:], results[1][1:], strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("samples", [400, 401, 719, 720, 20000, 61111])
def test_pieces_without_gradients_are_seamless(run, samples, monkeypatch):
    """However long the waveform, down to one frame, and wherever a piece ends."""
    monkeypatch.setattr(rows, "CACHED_ROWS", 16)
    speech, lengths = 0.3 * torch.randn(2, samples), torch.tensor([samples, max(400, samples // 2)])
    with torch.no_grad():
        (one, *shapes), (other, *expected) = run(True, speech, lengths), run(False, speech, lengths)
    assert shapes[0] == expected[0]
    assert shapes[1].equal(expected[1])
    assert_close(one, other)


def test_a_torch_without_onednn_runs_too(run, monkeypatch):
    """As on Apple's processors."""
    speech, lengths = 0.3 * torch.randn(2, 20011), torch.tensor([20011, 9000])
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.no_grad():
        one, other = run(True, speech, lengths)[0], run(False, speech, lengths)[0]
    assert_close(one, other)


def test_the_folded_norm_survives_smooth_loud_and_offset_speech(tiny_options):
    """Neighboring samples alike: the variance of a difference cancels in float32."""
    student = StarEncoder(**tiny_options)
    time = torch.arange(16000) / 16000
    speech = (0.9 * torch.sin(2 * torch.pi * 100 * time) + 1e-4 * torch.randn(16000) + 0.05)[None]
    lengths = torch.tensor([16000])
    with torch.no_grad():
        student.feature_extractor.conv_layers[0].conv.weight[0] = torch.tensor([1.0, -1.0] * 5)
        exact = student.double().feature_extractor(speech.double(), lengths)[0]
        found = student.float().feature_extractor(speech, lengths)[0]
    assert_close(found, exact.float())


def test_only_float32_on_cpus_takes_the_rows():
    """GPUs have convolutions of their own, bfloat16 is not faster this way."""
    speech = torch.zeros(1, 400)
    assert pays("front", speech)
    assert not pays("front", speech.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays("front", speech)


def test_second_derivatives_are_refused():
    """Silently wrong ones would be worse than none."""
    conv = nn.Conv1d(2, 2, 2, stride=2, bias=False)
    x = torch.randn(1, 4, 2, requires_grad=True)
    (first,) = torch.autograd.grad(F.gelu(conv_rows(x, conv)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
