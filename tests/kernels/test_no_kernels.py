"""Without its kernels the package must give the same features, losses and gradients."""

import types

import pytest
import torch

from espnet_star import kernels
from espnet_star.encoders import Want
from espnet_star.formats.onnx.plain_graph import PlainStudent
from espnet_star.kernels.predicate import FORMS, NOWHERE
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs
from espnet_star.students import StarEncoder

LAYOUTS = {
    "group norm": {},
    "pre-norm": {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
}
NO_DROPOUT = dict(
    feat_proj_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
)


def refused(*_, **__):
    raise AssertionError("a faster form was called where none pays")


@pytest.fixture
def plain(monkeypatch):
    """No form pays anywhere, and whoever calls one without asking fails."""

    def switch():
        for form in FORMS:
            monkeypatch.setitem(FORMS, form, NOWHERE)
        for name in set(kernels.__all__) - {
            "pays",
            "in_pieces",
            "triton_runs",
            "prepare",
            "discard",
        }:
            assert isinstance(getattr(kernels, name), types.FunctionType)
            monkeypatch.setattr(kernels, name, refused)

    return switch


@pytest.fixture(params=LAYOUTS)
def student(request, tiny_options):
    student = StarEncoder(**(tiny_options | NO_DROPOUT | LAYOUTS[request.param]))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


def assert_close(found, expected, largest=1.0):
    """To float32's precision of the largest value."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 * largest)


def test_a_step_is_the_same(student, batch, plain):
    """States, objective and every gradient, on unequal utterances."""
    teacher = None

    def step():
        nonlocal teacher
        outputs = student.train().encode(*batch)
        if teacher is None:
            states = tuple(torch.randn_like(s) for s in outputs.hidden_states)
            teacher = LayerOutputs(states, outputs.lengths)
        loss, stats = TemporalGramLoss(student.shape, student.shape)(outputs, teacher)
        gradients = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
        valid = [state[outputs.mask()] for state in outputs.hidden_states]
        # A bias before the group norm cancels and has none.
        return [*valid, loss, *stats.values()], [g for g in gradients if g is not None]

    fast = step()
    plain()
    for one, other in zip(step(), fast, strict=True):
        largest = max(float(value.detach().abs().max()) for value in other)
        for found, expected in zip(one, other, strict=True):
            assert_close(found, expected, largest)


@torch.inference_mode()
def test_features_are_the_same(student, batch, plain):
    """Of a student prepared for inference, and of one that gives its attention maps."""
    student.eval().prepare()
    fast = student.encode(*batch)
    graph, _ = PlainStudent(student)(*batch)
    plain()
    mask = fast.mask()
    for want in (Want(), Want(attentions=True)):
        found = student.encode(*batch, want)
        assert (found.attentions is None) is not want.attentions
        for one, other in zip(found.hidden_states, fast.hidden_states, strict=True):
            assert_close(one[mask], other[mask])
    assert_close(PlainStudent(student)(*batch)[0][:, mask], graph[:, mask])


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_torchs(p, plain):
    """Fails if training without kernels drops nothing, or at another rate."""
    from espnet_star.students.layers import Dropout

    plain()
    torch.manual_seed(3)
    found = Dropout(p)(torch.ones(1000))
    torch.manual_seed(3)
    assert found.equal(torch.nn.functional.dropout(torch.ones(1000), p))
