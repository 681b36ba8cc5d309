"""A bug here is a wrong value or gradient of the objective at some length, width or scale."""

import pytest
import torch

from espnet_star.kernels import gram, gram_forms
from espnet_star.kernels.gram import cheaper_form, gram_objective, groups
from espnet_star.kernels.predicate import FORMS, NOWHERE

BOTH = [gram_forms.frame_form, gram_forms.width_form]


def states(layers, lengths, width, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (layers + 1, len(lengths), max(lengths), width)
    return list(scale * torch.randn(shape, generator=generator))


def reference(student, teacher, lengths, weights=(1.0, 1.0)):
    """Terms from the definition in float64, and the gradient by autograd."""
    student = [state.double().requires_grad_() for state in student]
    teacher = [state.double() for state in teacher]
    terms = [torch.zeros((), dtype=torch.float64) for _ in range(2)]
    for row, n in enumerate(lengths):
        for layer in range(1, len(student)):
            for index, left in enumerate((layer, layer - 1)):
                s_gram = student[left][row, :n] @ student[layer][row, :n].T
                t_gram = teacher[left][row, :n] @ teacher[layer][row, :n].T
                share = len(lengths) * (len(student) - 1)
                terms[index] = terms[index] + (t_gram - s_gram).square().mean() / share
    sum(w * term for w, term in zip(weights, terms, strict=True)).backward()
    return [float(term.detach()) for term in terms], [state.grad for state in student]


def ours(form, student, teacher, lengths, weights=(1.0, 1.0), monkeypatch=None):
    monkeypatch.setattr(gram, "cheaper_form", lambda *_: form)
    student = [state.clone().requires_grad_() for state in student]
    value, terms = gram_objective(student, teacher, torch.tensor(lengths), *weights)
    value.backward()
    return value.item(), terms.tolist(), [state.grad for state in student]


def gap(left, right):
    """Relative distance of two lists of tensors, over all of them."""
    left, right = (torch.cat([t.double().flatten() for t in side]) for side in (left, right))
    return float((left - right).norm() / right.norm())


CASES = [  # layers, lengths, student's width, teacher's width
    (1, [1], 40, 24),
    (2, [1, 90, 90, 3], 24, 40),
    (12, [60, 33], 48, 70),
    (24, [7, 7, 7], 16, 16),
    (3, [500], 32, 20),
]


@pytest.mark.parametrize("form", BOTH)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("layers", "lengths", "s_width", "t_width"), CASES)
def test_float32_agrees_with_float64(form, scale, layers, lengths, s_width, t_width, monkeypatch):
    monkeypatch.setattr(gram_forms, "BLOCK", 16)
    student = states(layers, lengths, s_width, 0, scale)
    teacher = states(layers, lengths, t_width, 1, scale)
    weights = (0.5, 2.0)
    terms, gradient = reference(student, teacher, lengths, weights)
    value, found, found_gradient = ours(form, student, teacher, lengths, weights, monkeypatch)
    assert found == pytest.approx(terms, rel=1e-5)
    assert value == pytest.approx(0.5 * terms[0] + 2 * terms[1], rel=1e-5)
    assert gap(found_gradient, gradient) < 1e-5


@pytest.mark.parametrize("form", BOTH)
@pytest.mark.parametrize("s_width", [24, 40])
@pytest.mark.parametrize("remains", [1e-2, 1e-4, 1e-6])
def test_close_to_convergence(form, s_width, remains, monkeypatch):
    """Value at ``remains`` of its start: large sums cancel there, to 6 digits in the last case.

    The teacher's states are rotated into the student's space, a rotation that Gram
    matrices do not see, and disturbed.
    """
    lengths, t_width = [80, 50], 40
    core = states(3, lengths, 24, 0)
    rotations = torch.Generator().manual_seed(5)
    spread = torch.linalg.qr(torch.randn(t_width, t_width, generator=rotations))[0][:24]
    turn = torch.linalg.qr(torch.randn(s_width, s_width, generator=rotations))[0][:24]
    teacher = [state @ spread for state in core]
    noise = states(3, lengths, s_width, 2)
    start, _ = reference(noise, teacher, lengths)
    student = [a @ turn + 0.5 * remains**0.5 * b for a, b in zip(core, noise, strict=True)]
    terms, gradient = reference(student, teacher, lengths)
    assert terms[0] < 3 * remains * start[0]
    _, found, found_gradient = ours(form, student, teacher, lengths, monkeypatch=monkeypatch)
    assert found == pytest.approx(terms, rel=2e-4)
    assert gap(found_gradient, gradient) < 1e-3


@pytest.mark.parametrize("cells", [1, 2**11, 2**19])
def test_any_number_of_layers_at_once(cells, monkeypatch):
    """Fails if a part of the layers forgets the layer below it."""
    lengths = [30, 30, 11]
    student, teacher = states(5, lengths, 12, 0), states(5, lengths, 9, 1)
    monkeypatch.setattr(gram_forms, "FRAME_CELLS", cells)
    monkeypatch.setattr(gram, "FRAME_CELLS", cells)
    terms, gradient = reference(student, teacher, lengths)
    _, found, found_gradient = ours(BOTH[0], student, teacher, lengths, monkeypatch=monkeypatch)
    assert found == pytest.approx(terms, rel=1e-5)
    assert gap(found_gradient, gradient) < 1e-5


def test_the_gradient_follows_the_factor_of_the_loss():
    """Fails if a weight, or accum_grad's division, does not reach the gradient."""
    lengths = torch.tensor([9, 5])
    student = [s.requires_grad_() for s in states(2, [9, 5], 4, 0)]
    teacher = states(2, [9, 5], 6, 1)
    value, _ = gram_objective(student, teacher, lengths)
    plain = torch.autograd.grad(value, student, retain_graph=True)
    tripled = torch.autograd.grad(3 * value, student)
    for a, b in zip(plain, tripled, strict=True):
        torch.testing.assert_close(3 * a, b)
        assert (a[1, 5:] == 0).all()


def test_without_gradient_the_value_is_the_same():
    student, teacher = states(2, [9, 5], 4, 0), states(2, [9, 5], 6, 1)
    lengths = torch.tensor([9, 5])
    value, _ = gram_objective(student, teacher, lengths)
    again, _ = gram_objective([s.requires_grad_() for s in student], teacher, lengths)
    assert not value.requires_grad and again.requires_grad
    assert value.item() == again.item()


@pytest.mark.parametrize("lengths", [[5], [7, 7, 7], [9, 3, 3, 1, 0, 0, 2], [400, 400, 399]])
def test_groups_hold_every_utterance_once_and_nothing_of_another_length(lengths):
    seen = []
    for rows, size in groups(torch.tensor(lengths), torch.zeros(1)):
        assert {lengths[row] for row in range(rows.start, rows.stop)} == {size}
        seen += range(rows.start, rows.stop)
    assert seen == list(range(len(lengths)))


@pytest.mark.parametrize("cells", [1, 2 * 2 * 3 * 30**2, 2**24])
def test_a_padded_batch_as_one_agrees(cells, monkeypatch):
    """What a GPU does: the whole batch at once, zero past the lengths, no blocks of rows."""
    lengths = [30, 22, 1]
    student, teacher = states(3, lengths, 12, 0), states(3, lengths, 9, 1)
    for side in (student, teacher):
        for state in side:
            for row, n in enumerate(lengths):
                state[row, n:] = 0
    terms, gradient = reference(student, teacher, lengths)
    monkeypatch.setitem(FORMS, "gram_pieces", NOWHERE)
    monkeypatch.setattr(gram_forms, "GPU_FRAME_CELLS", cells)
    assert list(groups(torch.tensor(lengths), student[0])) == [(slice(0, 3), 30)]
    for form in BOTH:
        _, found, found_gradient = ours(form, student, teacher, lengths, monkeypatch=monkeypatch)
        assert found == pytest.approx(terms, rel=1e-5)
        assert gap(found_gradient, gradient) < 1e-5


def test_long_utterances_go_through_widths():
    """Fails if memory grows with the square of the length, or short ones take the long way."""
    assert cheaper_form(100, 432, 768) is gram_forms.frame_form
    assert cheaper_form(1500, 432, 768) is gram_forms.width_form
