import pytest
import torch

from espnet_star.outputs import LayerOutputs, frame_count, valid_mask


def states(*shapes):
    return tuple(torch.zeros(shape) for shape in shapes)


def test_frame_count_is_that_of_a_hubert_front():
    """Fails if lengths would disagree with what the convolutions give."""
    samples = torch.tensor([0, 399, 400, 719, 720, 16000])
    assert frame_count(samples).tolist() == [0, 0, 1, 1, 2, 49]


def test_valid_mask():
    assert valid_mask(torch.tensor([2, 0]), 3).tolist() == [[True, True, False], [False] * 3]


def test_shapes_are_kept_and_counted():
    outputs = LayerOutputs(list(states((2, 5, 3), (2, 5, 4))), torch.tensor([5, 2]))
    assert outputs.num_layers == 1
    assert isinstance(outputs.hidden_states, tuple)
    assert outputs.mask().sum(dim=1).tolist() == [5, 2]


@pytest.mark.parametrize(
    ("hidden", "lengths", "maps", "message"),
    [
        ([(2, 5, 3)], [5, 2], None, "L + 1 >= 2 tensors, got 1"),
        ([(2, 5, 3), (2, 4, 3)], [5, 2], None, "hidden_states[1] must have shape (B, N, D)"),
        ([(2, 5, 3), (2, 5)], [5, 2], None, "got (2, 5)"),
        ([(2, 5, 3)] * 2, [5], None, "lengths must have shape (2,), got (1,)"),
        ([(2, 5, 3)] * 2, [5, 2], [(2, 1, 5, 5)] * 2, "attentions must hold 1 tensors, got 2"),
        ([(2, 5, 3)] * 2, [5, 2], [(2, 1, 5, 4)], "attentions[0] must have shape (2, H, 5, 5)"),
        ([(2, 5, 3)] * 2, [5, 2], [(2, 5, 5)], "got (2, 5, 5)"),
    ],
)
def test_wrong_shapes_are_named(hidden, lengths, maps, message):
    """Fails if a faulty adapter would be found only deep inside a loss."""
    attentions = None if maps is None else states(*maps)
    with pytest.raises(ValueError) as error:
        LayerOutputs(states(*hidden), torch.tensor(lengths), attentions)
    assert message in str(error.value)


def test_an_inner_state_of_other_frames_is_named():
    with pytest.raises(ValueError, match=r"state projection must have .* got \(2, 4, 3\)"):
        LayerOutputs(
            states((2, 5, 3), (2, 5, 3)),
            torch.tensor([5, 2]),
            inner={"projection": states((2, 4, 3))[0]},
        )
