"""A bug here trains another student than the paper's: wrong rate, scale, mask or gradient."""

import pytest
import torch

from espnet_star.kernels.dropout import keep_mask
from espnet_star.students.layers import Dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_rate_of_the_mask(p):
    """Each of the four elements of a draw, and neighbors among each other."""
    keep = keep_mask((400, 1000), p)
    dropped = (1 - keep.double()).view(-1, 4)
    deviation = (p * (1 - p) / len(dropped)) ** 0.5
    assert (dropped.mean(dim=0) - p).abs().max() < 5 * deviation
    centered = dropped - p
    products = (centered[:, :1] * centered[:, 1:]).mean(dim=0)
    assert products.abs().max() < 5 * p * (1 - p) / len(dropped) ** 0.5


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 0)])
def test_any_shape_and_torchs_seed(shape):
    torch.manual_seed(7)
    first, second = keep_mask(shape, 0.5), keep_mask((64,), 0.5)
    torch.manual_seed(7)
    assert first.shape == shape and torch.equal(first, keep_mask(shape, 0.5))
    assert torch.equal(second, keep_mask((64,), 0.5))
    assert not torch.equal(second, keep_mask((64,), 0.5))


def test_dropout_scales_what_it_keeps_and_the_gradient_alike():
    x = torch.randn(50, 40, requires_grad=True)
    out = Dropout(0.25)(x)
    kept = out != 0
    assert 0.6 < kept.float().mean() < 0.9
    torch.testing.assert_close(out[kept], x[kept] / 0.75)
    out.sum().backward()
    torch.testing.assert_close(x.grad, kept / 0.75)


@pytest.mark.parametrize("layer", [Dropout(0.0), Dropout(0.4).eval()])
def test_nothing_is_dropped_in_eval_mode_or_at_zero(layer):
    x = torch.randn(6, 6)
    assert torch.equal(layer(x), x)


def test_a_student_in_training_on_average_gives_what_it_gives_in_eval_mode(tiny_options):
    """Fails if the student drops where it should not, or not at all."""
    from espnet_star.students import StarEncoder

    student = StarEncoder(**tiny_options, hidden_dropout=0.0, activation_dropout=0.0)
    speech, lengths = torch.randn(2, 8000), torch.tensor([8000, 5000])
    with torch.no_grad():
        exact = student.eval().encode(speech, lengths).hidden_states[0]
        student.train()
        states = [student.encode(speech, lengths).hidden_states[0] for _ in range(3)]
        attention = student.encoder.layers[0].attention
        mask = torch.ones(2, 1, 1, exact.shape[1], dtype=torch.bool)
        drawn = torch.stack([attention(exact, mask, False)[0] for _ in range(400)])
        student.eval()
        mean = attention(exact, mask, False)[0]
    assert not torch.equal(states[0], states[1])
    assert (drawn.mean(dim=0) - mean).norm() < 0.05 * mean.norm()
    assert (drawn[0] - mean).norm() > 0.05 * mean.norm()
