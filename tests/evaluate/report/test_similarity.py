"""Would break: similarities that depend on batches, padding, rotation or scale of the features,
or that differ from the formula; Gram matrices other than those the objective compares.
"""

import pytest
import torch
from compared import compare

from espnet_star.evaluate.report.similarity import LinearCKA, followed, gram_matrix
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs


def outputs(lengths, width, layers=2, offset=0.0, dtype=torch.float32):
    lengths = torch.tensor(lengths)
    shape = (len(lengths), int(lengths.max()), width)
    states = [torch.randn(shape, dtype=dtype) + offset for _ in range(layers + 1)]
    return LayerOutputs(tuple(states), lengths)


def frames(batches, layer):
    return torch.cat([batch.hidden_states[layer][batch.mask()].double() for batch in batches])


def naive(x, y):
    """The textbook formula on n-by-n matrices."""
    center = torch.eye(len(x), dtype=torch.float64) - 1 / len(x)
    one, other = center @ x @ x.T @ center, center @ y @ y.T @ center
    return (one * other).sum() / (one.square().sum() * other.square().sum()).sqrt()


def cka(teacher, student, **options):
    total = LinearCKA(**options)
    for pair in zip(teacher, student, strict=True):
        total.update(*pair)
    return total.similarity()


@pytest.fixture
def sides():
    sizes = [[9, 5], [1], [30, 30, 2]]
    teacher = [outputs(lengths, 7, layers=3, offset=5.0) for lengths in sizes]
    return teacher, [outputs(lengths, 5) for lengths in sizes]


def changed(batches, change):
    return [
        LayerOutputs(tuple(change(state) for state in batch.hidden_states), batch.lengths)
        for batch in batches
    ]


def test_equals_the_formula(sides):
    teacher, student = sides
    found = cka(teacher, student)
    assert found.shape == (4, 3)
    for t in range(4):
        for s in range(3):
            expected = naive(frames(teacher, t), frames(student, s))
            torch.testing.assert_close(found[t, s], expected, rtol=1e-10, atol=1e-12)


def test_layer_normalized_states(sides):
    teacher, student = sides
    norm = torch.nn.functional.layer_norm
    expected = naive(norm(frames(teacher, 1), (7,)), norm(frames(student, 2), (5,)))
    found = cka(teacher, student, normalized=True)[1, 2]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_rotation_scale_and_shift_do_not_matter(sides):
    teacher, student = sides
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    moved = changed(student, lambda state: 30 * state @ rotation + 4)
    torch.testing.assert_close(cka(teacher, moved), cka(teacher, student), rtol=1e-4, atol=1e-5)
    assert cka(student, moved).diagonal() == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_linear_map_that_is_no_rotation_does_matter(sides):
    _, student = sides
    stretched = changed(student, lambda state: state * torch.tensor([9.0, 1, 1, 1, 1]))
    assert cka(student, stretched).diagonal().max() < 0.9


def test_padding_and_batching_do_not_matter(sides):
    teacher, student = sides
    alone = []
    for side in sides:
        alone.append(
            [
                LayerOutputs(
                    tuple(s[row : row + 1, :n] for s in batch.hidden_states), torch.tensor([n])
                )
                for batch in side
                for row, n in enumerate(batch.lengths.tolist())
            ]
        )
    spoiled = changed(teacher, lambda state: state.clone())
    for batch in spoiled:
        for state in batch.hidden_states:
            state[~batch.mask()] = torch.nan
    expected = cka(*alone)
    torch.testing.assert_close(cka(spoiled, student), expected, rtol=1e-10, atol=1e-12)


def test_large_means_cost_no_digits():
    teacher = [outputs([40], 6, offset=1e6, dtype=torch.float64) for _ in range(3)]
    student = [outputs([40], 4, offset=-1e6, dtype=torch.float64) for _ in range(3)]
    expected = naive(frames(teacher, 1) - 1e6, frames(student, 1) + 1e6)
    torch.testing.assert_close(cka(teacher, student)[1, 1], expected, rtol=1e-6, atol=0)


def test_frames_of_other_utterances_are_refused(sides):
    with pytest.raises(ValueError, match=r"same valid frames.*\[9, 5\].*\[1\]"):
        LinearCKA().update(sides[0][0], sides[1][1])
    with pytest.raises(ValueError, match="two frames"):
        LinearCKA().similarity()


def test_mean_over_the_layers_that_are_followed():
    values = torch.arange(12.0).reshape(4, 3)
    assert followed(values, [0, 1, 3]) == (4 + 11) / 2


@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_gram_matrices_are_those_of_the_objective(norm):
    teacher, student = outputs([12], 7, layers=1), outputs([12], 5, layers=1)
    one, other = (
        gram_matrix(side.hidden_states[1][0], norm == "layer_norm") for side in (teacher, student)
    )
    _, terms = compare(TemporalGramLoss, student, teacher, target_norm=norm)
    assert float((one - other).square().mean()) == pytest.approx(float(terms["layerwise"]), 1e-4)
    if norm == "layer_norm":
        assert one.diagonal() == pytest.approx([1.0] * 12, abs=1e-3)
