"""Masking distillation: who follows which of the teacher's passes."""

import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import MaskedMatchLoss
from espnet_star.outputs import LayerOutputs


def test_armhubert(reference):
    """Fails if masked and visible frames swap teachers, or a share or gradient is another."""
    data = np.load(reference("armhubert_loss.npz"))
    states = torch.from_numpy(data["projections"]).requires_grad_()
    clean, masked = (
        torch.from_numpy(data[name]) for name in ("teacher_unmasked", "teacher_masked")
    )
    layers, batch, frames, width = states.shape
    shape, lengths = Shape(layers, width), torch.full((batch,), frames)
    mask = torch.from_numpy(data["mask"])
    weights = [float(data["random_layer_weight"])] * (layers - 1)
    weights += [float(data["rec_loss_weight"])]

    def run(weights, mask, **conf):
        sides = [
            LayerOutputs((torch.zeros_like(side[0]), *side), lengths, masked=hidden)
            for side, hidden in ((states, mask), (clean, None), (masked, mask))
        ]
        return MaskedMatchLoss(shape, shape, pair_weights=weights, head="none", **conf)(*sides)

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)

    value, terms = run(weights, mask)
    close(value.item(), data["total"])
    close(value.item(), float(terms["masked"] + terms["visible"]))
    close(torch.autograd.grad(value, states)[0], data["grad"])
    hints, last = [1.0] * (layers - 1) + [0.0], [0.0] * (layers - 1) + [1.0]
    for chosen, name in ((hints, "hint"), (last, "rec")):
        value, terms = run(chosen, mask)
        close(terms["masked"], data[f"mask_{name}_loss"])
        close(terms["visible"], data[f"unmask_{name}_loss"])
        share = weights[0] if name == "hint" else weights[-1]
        close(share * value.item(), data[f"{name}_loss"])
    close(run(weights, mask, l1_weight=1.0, l2_weight=0.0)[0].item(), data["total_l1"])
    value, terms = run(weights, None)
    close([value.item(), terms["visible"]], [data["validation_total"]] * 2)
    assert float(terms["masked"]) == 0.0


def row_of(outputs, row):
    """One utterance of a batch, alone."""
    count = int(outputs.lengths[row])
    return outputs.each(
        lambda state: state[row : row + 1, :count],
        lengths=outputs.lengths[row : row + 1],
        masked=None if outputs.masked is None else outputs.masked[row : row + 1, :count],
    )


def test_padding_has_no_value_and_no_gradient():
    """Fails if padded frames count as visible, as they do in the authors' code."""
    student, teacher = Shape(2, 3), Shape(3, 5)
    lengths = torch.tensor([8, 3, 1])
    mask = torch.rand(3, 8) < 0.5
    sides = []
    for shape, hidden in ((student, mask), (teacher, None), (teacher, mask)):
        states = torch.randn(shape.layers + 1, 3, 8, shape.width)
        states[:, torch.arange(8)[None] >= lengths[:, None]] = torch.nan
        sides.append(LayerOutputs(tuple(states), lengths, masked=hidden))
    for state in sides[0].hidden_states:
        state.requires_grad_()
    loss = MaskedMatchLoss(student, teacher)
    value, terms = loss(*sides)
    alone = [[row_of(side, row) for side in sides] for row in range(len(lengths))]
    found = [loss(*utterance) for utterance in alone]
    torch.testing.assert_close(value, torch.stack([each for each, _ in found]).mean())
    shares = torch.stack([each["masked"] for _, each in found])
    torch.testing.assert_close(terms["masked"], shares.mean())
    value.backward()
    for state in sides[0].hidden_states[1:]:
        assert not state.grad[~sides[0].mask()].any() and state.grad.isfinite().all()


def test_other_frame_rates_are_refused():
    with pytest.raises(StarError, match="under the same mask: the student has 25 a second"):
        MaskedMatchLoss(Shape(2, 3, hop=640, field=720), Shape(2, 3))
