"""A bug here is a wrong value or gradient on GPUs; what runs there is plain torch and runs here."""

import pytest
import torch
from compared import compare

from espnet_star.kernels import gram_gpu, gram_gpu_forms
from espnet_star.kernels.gram_gpu_forms import Packed, frame_form, width_form
from espnet_star.kernels.predicate import FORMS, NOWHERE, Where
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs

BOTH = [frame_form, width_form]
# Of value and gradient, to the rounding of the products' factors; the width form's value is a
# difference of sums in float32.
BOUNDS = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-5, 2e-5), torch.float16: (1e-3, 2e-3)}


def sides(lengths, widths=(12, 20), layers=3, dtype=torch.float32, scale=1.0):
    """Outputs of student and teacher, rubbish past the lengths."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for width in widths:
        shape = (layers + 1, len(lengths), max(lengths), width)
        states = (scale * torch.randn(shape, generator=generator)).to(dtype)
        for row, size in enumerate(lengths):
            states[:, row, size:] = torch.nan
        made.append(LayerOutputs(tuple(states), torch.tensor(lengths)))
    return made


def found(student, teacher, **options):
    """Value, terms, gradients."""
    states = [state.detach().clone().requires_grad_() for state in student.hidden_states]
    outputs = LayerOutputs(states, student.lengths)
    value, stats = compare(TemporalGramLoss, outputs, teacher, 0.5, 2.0, **options)
    (3 * value).backward()
    return torch.stack([value.detach(), *stats.values()]), torch.stack([s.grad for s in states])


def formula(monkeypatch, student, teacher, **options):
    """The same by definition and autograd in float64."""
    with monkeypatch.context() as patch:
        for form in ("gram", "gram_gpu"):
            patch.setitem(FORMS, form, NOWHERE)
        wide = [
            LayerOutputs([state.double() for state in side.hidden_states], side.lengths)
            for side in (student, teacher)
        ]
        return found(*wide, **options)


@pytest.fixture(params=BOTH)
def on_gpu(request, monkeypatch):
    """Have the objective computed as on a GPU, from factors of a type, through one form."""

    def switch(dtype, form=request.param):
        monkeypatch.setitem(FORMS, "gram_gpu", Where(None))
        monkeypatch.setattr("espnet_star.kernels.products_type", lambda _: dtype)
        monkeypatch.setattr(gram_gpu, "cheaper_form", lambda _: form)

    return switch


def gap(left, right):
    return float((left.double() - right).norm() / right.norm())


@pytest.mark.parametrize("options", [{}, {"target_norm": "layer_norm"}, {"scope": "batch"}])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("lengths", [[40, 33, 1], [8, 8], [1]])
def test_value_and_gradient_are_the_formula(on_gpu, dtype, lengths, options, monkeypatch):
    """NaN in padding included, in any type; fails too where a weight of a term is forgotten."""
    given = sides(lengths, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    expected = formula(monkeypatch, *given, **options)
    on_gpu(dtype)
    values, gradient = found(*given, **options)
    of_value, of_gradient = BOUNDS[dtype]
    # One frame after a layer norm differs from another by rounding alone.
    room = expected[0] + 1e-3 * expected[0].max()
    assert ((values - expected[0]).abs() <= of_value * room).all()
    assert gap(gradient, expected[1]) <= of_gradient
    for row, size in enumerate(lengths):
        assert (gradient[:, row, size:] == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_float16_at_any_scale(on_gpu, scale, monkeypatch):
    """Gram matrices of such states overflow float16, or vanish in it."""
    given = sides([30, 9], scale=scale)
    expected = formula(monkeypatch, *given)
    on_gpu(torch.float16)
    values, gradient = found(*given)
    assert gap(values, expected[0]) < 1e-3 and gap(gradient, expected[1]) < 2e-3


def test_nothing_but_zeros_is_no_distance(on_gpu):
    """Fails if a scale divides by the length of rows that have none."""
    student, teacher = (
        LayerOutputs([0 * s for s in side.hidden_states], side.lengths) for side in sides([5])
    )
    on_gpu(torch.float16)
    values, gradient = found(student, teacher)
    assert (values == 0).all() and (gradient == 0).all()


def test_states_in_bfloat16_are_taken_as_they_are(on_gpu, monkeypatch):
    given = sides([30, 9], dtype=torch.bfloat16)
    expected = formula(monkeypatch, *given)
    on_gpu(torch.float16)
    values, gradient = found(*given)
    assert gradient.dtype == torch.bfloat16
    assert gap(values, expected[0]) < 1e-4  # but for the differences
    assert gap(gradient, expected[1]) < 5e-3


@pytest.mark.parametrize("remains", [1e-2, 1e-4])
def test_close_to_convergence(on_gpu, remains, monkeypatch):
    """The value at ``remains`` of the Gram matrices' own size, where large sums cancel."""
    student, _ = sides([60, 33], widths=(16, 16), layers=2)
    _, noise = sides([60, 33], widths=(16, 16), layers=2)
    pairs = zip(student.hidden_states, noise.hidden_states, strict=True)
    teacher = LayerOutputs([s + 0.5 * remains**0.5 * n for s, n in pairs], student.lengths)
    expected = formula(monkeypatch, student, teacher)
    for dtype, bounds in ((torch.float32, (1e-3, 1e-4)), (torch.float16, (2e-2, 1e-1))):
        on_gpu(dtype)
        values, gradient = found(student, teacher)
        assert gap(values, expected[0]) < bounds[0]
        assert gap(gradient, expected[1]) < bounds[1]


def test_a_part_of_the_batch_at_a_time(on_gpu, monkeypatch):
    given = sides([20, 17, 9])
    on_gpu(torch.float32)
    whole = found(*given)
    monkeypatch.setattr(gram_gpu, "PART_BYTES", 1)
    assert gram_gpu.utterances_at_once(torch.empty(4, 3, 20, 12), torch.float32) == 1
    for a, b in zip(found(*given), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_padding_and_order_change_nothing(on_gpu):
    """Factors in float16 are scaled by the batch's longest row, but by powers of two."""
    on_gpu(torch.float16)
    student, teacher = sides([9, 4], scale=3.0)

    def value(row, size, extra):
        one = [
            LayerOutputs(
                [
                    torch.nn.functional.pad(s[row, :size], (0, 0, 0, extra))[None]
                    for s in x.hidden_states
                ],
                torch.tensor([size]),
            )
            for x in (student, teacher)
        ]
        return compare(TemporalGramLoss, *one)[0]

    both = compare(TemporalGramLoss, student, teacher)[0]
    alone = torch.stack([value(0, 9, 5), value(1, 4, 0)]).mean()
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=0.0)


def test_memory_does_not_grow_with_the_square_of_the_length():
    """Fails if long utterances would build frame-by-frame matrices, or short ones do not."""

    def form(frames):
        left = torch.empty(13, 1, frames, 1200, dtype=torch.float16, device="meta")
        return gram_gpu_forms.cheaper_form(Packed(left, left, 768, 432, None))

    assert form(50) is form(750) is frame_form
    assert form(2000) is width_form
