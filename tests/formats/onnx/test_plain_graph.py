"""The form of the student that is exported; a bug here gives every exported file other features."""

import pytest
import torch

from espnet_star.formats.onnx.plain_graph import PlainStudent
from espnet_star.students import StarEncoder

SHAPES = {
    "group norm": {},
    "layer norm front": {"feat_extract_norm": "layer", "conv_bias": True},
    "group norm and biases": {"conv_bias": True},
    "pre-norm": {"do_stable_layer_norm": True},
    "projection": {"hidden_size": 24},
    "odd positional kernel": {"num_conv_pos_embeddings": 7},
    "kernels wider than strides": {
        "conv_dim": [8] * 6 + [16],
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    },
}


def perturbed(options):
    torch.manual_seed(0)
    student = StarEncoder(**options).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


def relative(student, states, outputs):
    mask = outputs.mask()
    return max(
        float((a - b)[mask].norm() / a[mask].norm())
        for a, b in zip(outputs.hidden_states, states, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_same_states_as_the_student(tiny_options, batch, shape):
    """Fails if an architecture is exported as another one, or padding leaks into it."""
    student = perturbed(tiny_options | SHAPES[shape])
    speech, lengths = batch
    outputs = student.encode(speech, lengths)
    states, frames = PlainStudent(student)(speech, lengths)
    assert frames.tolist() == outputs.lengths.tolist()
    assert states.shape[1:3] == outputs.hidden_states[0].shape[:2]
    assert relative(student, states, outputs) < 2e-6


@pytest.mark.parametrize("samples", [400, 639, 640, 641, 719, 720, 959, 960, 961, 2880, 9000])
@torch.no_grad()
def test_every_sample_enters_the_norm(tiny_options, samples):
    """Fails if samples that no frame reads are left out of the group norm's statistics."""
    student = perturbed(tiny_options)
    speech, lengths = torch.randn(1, samples), torch.tensor([samples])
    outputs = student.encode(speech, lengths)
    states, _ = PlainStudent(student)(speech, lengths)
    assert states.shape[2] == int(outputs.lengths[0])
    assert relative(student, states, outputs) < 2e-6


@torch.no_grad()
def test_what_stands_past_the_end_does_not_matter(tiny_options, batch):
    student = perturbed(tiny_options)
    speech, lengths = batch
    spoiled = speech.clone()
    for row, length in enumerate(lengths):
        spoiled[row, length:] = torch.nan
    plain = PlainStudent(student)
    torch.testing.assert_close(plain(spoiled, lengths), plain(speech, lengths), rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["group norm", "pre-norm"])
@torch.no_grad()
def test_last_is_what_the_encoder_hands_on(tiny_options, batch, shape):
    """Fails if the final norm of the pre-norm layout is left out."""
    student = perturbed(tiny_options | SHAPES[shape])
    speech, lengths = batch[0][:, : int(batch[1].max())], batch[1]
    expected, _, _ = student(speech, lengths)
    last, frames = PlainStudent(student, last=True)(speech, lengths)
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(last[row, :count], expected[row, :count], rtol=1e-4, atol=1e-5)


def test_the_student_keeps_its_weights(tiny_options):
    """Fails if folding scales into copied weights changes the student itself."""
    student = perturbed(tiny_options)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    PlainStudent(student)
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in student.parameters())
