from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from compared import compare

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.kernels import gram
from espnet_star.kernels.gram_forms import frame_form, width_form
from espnet_star.kernels.predicate import FORMS, NOWHERE
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs

SHAPE = Shape(layers=2, width=4)
FAST = {"frames": frame_form, "widths": width_form}


@pytest.fixture(params=["formula", *FAST])
def form(request, monkeypatch):
    """The formula, and both ways of computing it faster, whatever the shapes would choose."""
    if request.param == "formula":
        monkeypatch.setitem(FORMS, "gram", NOWHERE)
    else:
        monkeypatch.setattr(gram, "cheaper_form", lambda *_: FAST[request.param])


def outputs(states, lengths, dtype=None):
    return LayerOutputs(tuple(s.to(dtype or s.dtype) for s in states), torch.tensor(lengths))


def random_states(layers, lengths, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (layers + 1, len(lengths), max(lengths), width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def naive(student, teacher, lengths):
    """Both terms from their definition, frame pair by frame pair, in float64."""
    layerwise = intralayer = 0.0
    student, teacher = student.double().numpy(), teacher.double().numpy()
    layers = len(student) - 1
    for row, frames in enumerate(lengths):
        share = 1.0 / (len(lengths) * layers * frames**2)
        for layer in range(1, layers + 1):
            for i in range(frames):
                for j in range(frames):
                    s_out, t_out = student[layer, row, j], teacher[layer, row, j]
                    gap = teacher[layer, row, i] @ t_out - student[layer, row, i] @ s_out
                    layerwise += share * gap**2
                    gap = teacher[layer - 1, row, i] @ t_out - student[layer - 1, row, i] @ s_out
                    intralayer += share * gap**2
    return layerwise, intralayer


def test_authors_formula_reference_values(form, reference):
    """Fails if the objective, its mean or its gradient is not the documented one."""
    data = np.load(reference("star_losses.npz"))
    student = torch.from_numpy(data["student"]).double().transpose(0, 1).requires_grad_()
    teacher = torch.from_numpy(data["teacher"]).double().transpose(0, 1)
    lengths = data["lengths"].tolist()
    value, stats = compare(TemporalGramLoss, outputs(student, lengths), outputs(teacher, lengths))
    for term in ("layerwise", "intralayer"):
        assert float(stats[term]) == pytest.approx(float(data[term]), rel=1e-9)
    assert value.item() == pytest.approx(float(data["layerwise"] + data["intralayer"]), rel=1e-9)
    value.backward()
    expected = torch.from_numpy(data["student_grad"]).double()
    gradient = student.grad.transpose(0, 1)
    assert (gradient - expected).abs().max() <= 1e-6 * expected.abs().max()


CASES = [  # layers, lengths, student's width, teacher's width
    (1, [1], 3, 5),
    (2, [1, 7], 5, 3),
    (3, [9, 1, 4], 4, 4),
    (12, [5, 6], 2, 9),
    (24, [3, 8, 8, 2], 7, 1),
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("layers", "lengths", "s_width", "t_width"), CASES)
def test_equals_loops_over_frame_pairs(form, layers, lengths, s_width, t_width, seed):
    """Fails on any wrong index, width or normalization, or if padding (NaN) gets in."""
    student = random_states(layers, lengths, s_width, seed)
    teacher = random_states(layers, lengths, t_width, seed + 100)
    expected = naive(student, teacher, lengths)
    for row, frames in enumerate(lengths):
        student[:, row, frames:] = torch.nan
        teacher[:, row, frames:] = torch.inf
    student.requires_grad_()
    value, stats = compare(
        TemporalGramLoss, outputs(student, lengths), outputs(teacher, lengths), 0.5, 2.0
    )
    assert float(stats["layerwise"]) == pytest.approx(expected[0], rel=1e-10)
    assert float(stats["intralayer"]) == pytest.approx(expected[1], rel=1e-10)
    assert value.item() == pytest.approx(0.5 * expected[0] + 2 * expected[1], rel=1e-10)
    value.backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_nan_in_padding_leaves_gradients_finite(form, norm):
    """Fails if padding is masked after, not before, something that spreads NaN."""
    lengths = [6, 3]
    student, teacher = random_states(2, lengths, 4, 0), random_states(2, lengths, 5, 1)
    student[:, 1, 3:] = torch.nan
    teacher[:, 1, 3:] = torch.nan
    student.requires_grad_()
    loss = partial(compare, TemporalGramLoss, target_norm=norm)
    value, _ = loss(outputs(student, lengths), outputs(teacher, lengths))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    assert (student.grad[:, 1, 3:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_zero_on_equal_inputs(form, norm, dtype):
    states = random_states(3, [20, 11], 6, 0, dtype)
    value, _ = compare(
        TemporalGramLoss, outputs(states, [20, 11]), outputs(states, [20, 11]), target_norm=norm
    )
    assert 0 <= float(value) < 1e-12  # of Gram entries about 6


def test_close_to_convergence_float32_is_right(form):
    """Fails if large sums cancel: with 1 % left of the distance the value must hold."""
    teacher = random_states(2, [12, 12], 16, 0, torch.float32)
    student = teacher + 0.01 * random_states(2, [12, 12], 16, 1, torch.float32)
    expected = naive(student, teacher, [12, 12])
    _, stats = compare(TemporalGramLoss, outputs(student, [12, 12]), outputs(teacher, [12, 12]))
    assert float(stats["layerwise"]) == pytest.approx(expected[0], rel=1e-3)
    assert float(stats["intralayer"]) == pytest.approx(expected[1], rel=1e-3)


@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_more_padding_order_and_batch_size_change_nothing(form, norm):
    """Fails if the value depends on how utterances were put together."""
    lengths = [9, 4, 1]
    student, teacher = random_states(2, lengths, 4, 0), random_states(2, lengths, 6, 1)
    loss = partial(compare, TemporalGramLoss, target_norm=norm)

    def value(rows, extra=0):
        sides = []
        for states in (student, teacher):
            padded = torch.nn.functional.pad(states[:, rows], (0, 0, 0, extra), value=7.0)
            sides.append(outputs(padded, [lengths[row] for row in rows]))
        return float(loss(*sides)[0])

    whole = value([0, 1, 2])
    assert value([0, 1, 2], extra=5) == pytest.approx(whole, rel=1e-12)
    assert value([2, 0, 1]) == pytest.approx(whole, rel=1e-12)
    assert np.mean([value([row]) for row in range(3)]) == pytest.approx(whole, rel=1e-12)


def test_gradcheck(form):
    lengths = [4, 2]
    teacher = outputs(random_states(2, lengths, 3, 1), lengths)
    student = random_states(2, lengths, 2, 0).requires_grad_()
    for norm in ("none", "layer_norm"):
        loss = partial(compare, TemporalGramLoss, target_norm=norm)
        # The width-by-width products of two channels would be all signs once normalized.
        states = torch.cat([student.detach(), student.detach().square()], dim=-1).requires_grad_()
        torch.autograd.gradcheck(
            lambda x, loss=loss: loss(outputs(x, lengths), teacher)[0], states, atol=1e-6
        )


def test_low_precision_inputs_are_compared_in_float32(form):
    """Fails if autocast or half inputs reach the Gram matrices, whose entries overflow."""
    student = 60 * random_states(1, [30], 64, 0, torch.float32)
    teacher = 60 * random_states(1, [30], 64, 1, torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        low = outputs(student, [30], dtype), outputs(teacher, [30], dtype)
        wide = [outputs(torch.stack(side.hidden_states).float(), [30]) for side in low]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, stats = compare(TemporalGramLoss, *low)
        assert value.dtype == torch.float32
        assert stats["layerwise"].dtype == torch.float32
        assert float(value) == pytest.approx(float(compare(TemporalGramLoss, *wide)[0]), rel=1e-6)


def test_layer_norm_gram_diagonal_is_one():
    """Fails if Gram entries are not divided by the width."""
    states = [100 * random_states(1, [5, 3], 64, 0)[0] + 3]
    loss = TemporalGramLoss(SHAPE, SHAPE, target_norm="layer_norm")
    mask = torch.arange(5)[None] < torch.tensor([[5], [3]])
    (prepared,) = loss._prepare(states, mask)
    diagonal = prepared.square().sum(dim=-1)
    torch.testing.assert_close(diagonal, mask.double(), rtol=1e-6, atol=1e-9)


def test_form_is_chosen_by_shape():
    """Fails if long utterances would build frame-by-frame matrices."""
    assert gram.cheaper_form(20, 48, 48) is frame_form
    assert gram.cheaper_form(2000, 48, 48) is width_form


def test_layer_map_picks_and_spans_teacher_layers(form):
    """Fails if the intra-layer pair is not (mapped state below, mapped state)."""
    student, teacher = random_states(2, [4], 3, 0), random_states(6, [4], 3, 1)
    for layer_map, picked in ((None, [0, 3, 6]), ([2, 5], [0, 2, 5])):
        mapped = compare(
            TemporalGramLoss, outputs(student, [4]), outputs(teacher, [4]), layer_map=layer_map
        )[0]
        direct = compare(TemporalGramLoss, outputs(student, [4]), outputs(teacher[picked], [4]))[0]
        assert float(mapped) == float(direct)


def test_groups_and_inner_states_are_related_like_layers(form):
    """Fails if a group is not its mean, or the first pair is not the one below the second."""
    student, teacher = random_states(2, [4, 2], 3, 0), random_states(4, [4, 2], 3, 1)
    layers = [[0, "projection"], [1, [1, 2]], [2, [3, 4]]]
    shape = Shape(4, 3)
    given = outputs(teacher, [4, 2])
    given = replace(given, inner={"projection": given.hidden_states[0]})
    found = TemporalGramLoss(Shape(2, 3), shape, layers=layers)(outputs(student, [4, 2]), given)
    means = torch.stack([teacher[0], teacher[1:3].mean(0), teacher[3:].mean(0)])
    direct = compare(TemporalGramLoss, outputs(student, [4, 2]), outputs(means, [4, 2]))
    torch.testing.assert_close(found[0], direct[0])
    with pytest.raises(StarError, match="layers has one"):
        TemporalGramLoss(shape, shape, layers=[[1, 1]])
    with pytest.raises(StarError, match="layer_map or layers, got both"):
        TemporalGramLoss(shape, shape, layers=layers, layer_map=[1, 2, 3, 4])


def test_errors_name_what_was_found():
    with pytest.raises(StarError, match=r"target_norm 'layernorm'\. Did you mean 'layer_norm'"):
        TemporalGramLoss(SHAPE, SHAPE, target_norm="layernorm")
    states = random_states(1, [4, 4], 3, 0)
    with pytest.raises(ValueError, match=r"got \[4, 3\] and \[4, 4\]"):
        compare(TemporalGramLoss, outputs(states, [4, 3]), outputs(states, [4, 4]))


def test_batch_scope_takes_the_batch_as_one_utterance():
    """A bug would drop the relations between utterances, or count padding as frames."""
    torch.manual_seed(0)
    lengths = torch.tensor([9, 4, 1])
    student = LayerOutputs(tuple(torch.randn(3, 9, 6) for _ in range(3)), lengths)
    teacher = LayerOutputs(tuple(torch.randn(3, 9, 8) for _ in range(3)), lengths)

    def joined(outputs):
        rows = [
            torch.cat([state[row, :n] for row, n in enumerate(lengths.tolist())])[None]
            for state in outputs.hidden_states
        ]
        return LayerOutputs(tuple(rows), lengths.sum()[None])

    for norm in ("none", "layer_norm"):
        batch = compare(TemporalGramLoss, student, teacher, scope="batch", target_norm=norm)[0]
        single = compare(TemporalGramLoss, joined(student), joined(teacher), target_norm=norm)[0]
        torch.testing.assert_close(batch, single)
        assert not torch.allclose(
            batch, compare(TemporalGramLoss, student, teacher, target_norm=norm)[0]
        )


def test_a_misspelled_scope_is_named():
    with pytest.raises(ValueError, match=r"unknown scope 'bach'. Did you mean 'batch'"):
        TemporalGramLoss(SHAPE, SHAPE, scope="bach")


def test_a_student_of_half_the_rate_follows_the_means():
    """Fails if a slower student is compared with every other frame, or with padding."""
    slow = Shape(2, 6, hop=640, field=720)
    student = outputs(random_states(2, [4, 2], 6, 0), [4, 2])
    states = random_states(2, [9, 5], 3, 1)
    means = states[:, :, :8].unflatten(2, (4, 2)).mean(dim=3)
    states[:, 1, 5:] = torch.nan
    found = TemporalGramLoss(slow, Shape(2, 3))(student, outputs(states, [9, 5]))
    direct = compare(TemporalGramLoss, student, outputs(means, [4, 2]))
    torch.testing.assert_close(found[0], direct[0])
