"""A bug here gives a prepared student other features, or those of weights it no longer has."""

import copy

import pytest
import torch

from espnet_star.kernels import prepared
from espnet_star.students import StarEncoder

pytestmark = pytest.mark.skipif(not prepared.available(), reason="torch without oneDNN")


@pytest.fixture(params=["group", "layer"])
def student(request, tiny_options):
    """Both kinds of front, with a projection; every parameter matters."""
    options = {"conv_dim": [8] * 9, "feat_extract_norm": request.param, "conv_bias": True}
    student = StarEncoder(**(tiny_options | options)).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


def features(student, speech, lengths):
    with torch.inference_mode():
        outputs = student.encode(speech, lengths)
    return torch.stack(outputs.hidden_states)[:, outputs.mask()]


def uses(student):
    """How many modules would run with prepared weights."""
    with torch.no_grad():
        x = torch.zeros(1, 1)
        return sum(prepared._current(module, x) is not None for module in student.modules())


def test_a_prepared_student_has_the_same_features(student, batch):
    expected = features(student, *batch)
    assert student.prepare() is student
    # Nine convolutions, the projection, the positional one, six maps in each of two layers.
    assert uses(student) == 9 + 1 + 1 + 2 * 6
    torch.testing.assert_close(features(student, *batch), expected, rtol=1e-4, atol=1e-5)


def update(student, _):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)


def load(student, other):
    student.load_state_dict(other.state_dict())


def replace(student, other):
    for module, found in zip(student.modules(), other.modules(), strict=True):
        for name, parameter in found._parameters.items():
            setattr(module, name, parameter)


def through_training(student, other):
    """As averages of weights are written, which torch does not count."""
    student.train()
    for parameter, found in zip(student.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(found.data)
    student.eval()


@pytest.mark.parametrize("change", [update, load, replace, through_training])
def test_changed_weights_are_seen(student, batch, change):
    other = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    plain = copy.deepcopy(student)
    student.prepare()
    before = features(student, *batch)
    change(student, other)
    change(plain, other)
    found = features(student, *batch)
    torch.testing.assert_close(found, features(plain, *batch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-3)
    # And may be prepared again.
    assert uses(student.prepare()) > 0
    torch.testing.assert_close(features(student, *batch), found, rtol=1e-4, atol=1e-5)


def test_gradients_do_not_see_it(student, batch):
    def gradients():
        loss = student.encode(*batch).hidden_states[-1].square().mean()
        # A bias before the group norm cancels and has none.
        return torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)

    expected = gradients()
    student.prepare()
    for found, gradient in zip(gradients(), expected, strict=True):
        assert found is gradient is None or found.equal(gradient)


def test_other_types_and_copies_do_without_it(student, batch):
    student.prepare()
    assert uses(copy.deepcopy(student)) == 0
    speech, lengths = batch
    exact = features(copy.deepcopy(student).double(), speech.double(), lengths)
    found = features(student.double(), speech.double(), lengths)
    assert found.equal(exact)


def test_batch_invariance_holds(student, batch):
    student.prepare()
    speech, lengths = batch
    padded = student.encode
    with torch.inference_mode():
        together = padded(speech, lengths)
        for row, size in enumerate(lengths.tolist()):
            alone = padded(speech[row : row + 1, :size], lengths[row : row + 1])
            frames = int(alone.lengths)
            for one, other in zip(alone.hidden_states, together.hidden_states, strict=True):
                torch.testing.assert_close(one[0], other[row, :frames], rtol=1e-4, atol=1e-5)
