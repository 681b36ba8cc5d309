"""Frame by frame: the published losses, padding, and what cannot be meant."""

import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import FrameMatchLoss, build_losses
from espnet_star.outputs import LayerOutputs

SHAPE = Shape(layers=2, width=4)
MIXED = {"l1_weight": 0.3, "l2_weight": 0.7, "cosine_weight": 2.0}


class Published:
    """Layers given as student states and targets ``(K, B, N, D)``, through no heads."""

    def __init__(self, student, teacher):
        self.states = student.clone().requires_grad_()
        self.teacher = teacher
        self.shape = Shape(len(student) - 1, student.shape[-1])

    def loss(self, **conf):
        layers = [[layer, layer] for layer in range(len(self.states))]
        return FrameMatchLoss(self.shape, self.shape, **{"layers": layers, "head": "none", **conf})

    def __call__(self, **conf):
        """Value, terms and the gradient for the states."""
        lengths = torch.full(self.states.shape[1:2], self.states.shape[2])
        sides = [LayerOutputs(tuple(side), lengths) for side in (self.states, self.teacher)]
        value, terms = self.loss(**conf)(*sides)
        (gradient,) = torch.autograd.grad(value, self.states)
        return value.item(), {name: term.item() for name, term in terms.items()}, gradient

    def of_pair(self, pair, **conf):
        weights = [float(index == pair) for index in range(len(self.states))]
        return self(pair_weights=weights, **conf)[0]


def load(path, *names):
    data = np.load(path)
    return data, *(torch.from_numpy(data[name]) for name in names)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_distilhubert(reference):
    """Fails if the cosine term, the mean over layers or a gradient is not s3prl's."""
    data, pred, target = load(reference("distilhubert_loss.npz"), "pred", "target")
    case = Published(pred.transpose(0, 1), target.transpose(0, 1))
    for kind in ("l1", "l2"):
        weights = {"l1_weight": 0.0, "l2_weight": 0.0, f"{kind}_weight": 1.0}
        total, terms, gradient = case(cosine_weight=1.0, **weights)
        close(total, data[f"{kind}_total"])
        close([terms[kind], terms["cosine"]], [data[f"{kind}_rec"], data[f"{kind}_sim"]])
        close(gradient.transpose(0, 1), data[f"{kind}_grad"])
        for index, (rec, sim) in enumerate(
            zip(data[f"{kind}_rec_layers"], data[f"{kind}_sim_layers"], strict=True)
        ):
            close(case.of_pair(index, **weights), rec)
            close(case.of_pair(index, cosine_weight=1.0, **weights), rec + sim)
    close(case(l1_weight=1.0, l2_weight=0.0)[0], data["l1_total_nocos"])


def test_dphubert(reference):
    """Fails if the plain cosine has another sign or offset, or terms are weighted twice."""
    data, student, target = load(reference("dphubert.npz"), "input", "target")
    case = Published(student.transpose(0, 1), target.transpose(0, 1))
    settings = {  # squared, absolute, cosine, its form
        "default": (0.0, 1.0, 1.0, "plain"),
        "l2": (1.0, 0.0, 0.0, "plain"),
        "logsig": (0.0, 1.0, 1.0, "log_sigmoid"),
        "mixed": (0.5, 0.25, 2.0, "plain"),
    }
    for name, (l2, l1, cos, form) in settings.items():
        total, terms, gradient = case(l2_weight=l2, l1_weight=l1, cosine_weight=cos, cosine=form)
        close(total, data[f"{name}_total"])
        for term, key in (("l2", "mse"), ("l1", "l1"), ("cosine", "cos")):
            close(terms.get(term, 0.0), data[f"{name}_{key}"])
        if f"{name}_grad" in data:
            close(gradient.transpose(0, 1), data[f"{name}_grad"])


def interleaved(loss, width):
    """Make heads of a student twice as wide hand out one half of a frame after the other."""
    half = torch.eye(width, dtype=torch.float64)
    for upsample, linear in zip(loss.heads.upsample, loss.heads.maps, strict=True):
        weight = torch.zeros(2 * width, 2 * width, 2, dtype=torch.float64)
        weight[:width, :width, 0] = weight[width:, :width, 1] = half
        upsample.weight.data, upsample.bias.data = weight, torch.zeros(2 * width).double()
        linear.weight.data = torch.cat([half, torch.zeros_like(half)], dim=1)
        linear.bias.data = torch.zeros(width).double()
    return loss


def test_fithubert(reference):
    """Fails if hints are averaged, the head puts frames elsewhere, or the cut is not at its end."""
    data, projected, target = load(reference("fithubert_loss.npz"), "projections", "teacher")
    layers, batch, frames, width = projected.shape
    # Frames two by two, as the student has them; its heads take them apart again.
    states = projected.reshape(layers, batch, frames // 2, 2 * width).requires_grad_()
    student = LayerOutputs(
        (torch.zeros_like(states[0]), *states), torch.full((batch,), frames // 2)
    )
    teacher = LayerOutputs(
        (torch.zeros_like(target[0]), *target), torch.full((batch,), target.shape[2])
    )
    shapes = Shape(layers, 2 * width, hop=640, field=720), Shape(layers, width)
    hint = float(data["random_layer_weight"])

    def run(weights, **conf):
        conf = {"head": "upsample", "pair_weights": weights, **conf}
        value, _ = interleaved(FrameMatchLoss(*shapes, **conf), width)(student, teacher)
        (gradient,) = torch.autograd.grad(value, states)
        return value.item(), gradient.reshape(projected.shape)

    total, gradient = run([hint] * (layers - 1) + [1.0])
    close(total, data["total"])
    close(gradient, data["grad"])
    alone = [run([float(index == pair) for index in range(layers)])[0] for pair in range(layers)]
    close([hint * value for value in alone[:-1]], data["hints"])
    close(alone[-1], data["last"])
    absolute = {"l1_weight": 1.0, "l2_weight": 0.0}
    close(run([hint] * (layers - 1) + [1.0], **absolute)[0], data["total_l1"])
    drawn = [hint * (index in (0, 2)) for index in range(layers - 1)]
    close(run([*drawn, 1.0])[0], data["total_rand_layers_2_0"])


def test_lighthubert(reference):
    """Fails if several feed-forward outputs are not followed as their mean."""
    data, results, state = load(reference("lighthubert_target.npz"), "layer_results", "student")
    results = results.transpose(0, 1)
    layers, lengths = len(results), torch.full(state.shape[:1], state.shape[1])
    inner = {f"feed_forward.{layer + 1}": result for layer, result in enumerate(results)}
    teacher = LayerOutputs(tuple(results[:1]), lengths, layers=(0,), inner=inner)
    state.requires_grad_()
    student = LayerOutputs((state, state), lengths)
    loss = FrameMatchLoss(
        Shape(1, state.shape[2]),
        Shape(layers, state.shape[2]),
        layers=[[-1, {"feed_forward": [*range(-8, 0)]}]],
        head="none",
        l1_weight=1.0,
        l2_weight=0.0,
    )
    last = sorted(inner, key=lambda name: int(name.split(".")[1]))[-8:]
    assert loss.wants()[1].inner == {*last} and loss.wants()[1].states == {0}
    value, _ = loss(student, teacher)
    close(value.item(), data["l1"])
    value.backward()
    close(state.grad, data["l1_grad"])


def sides(student, teacher, lengths, teacher_lengths=None):
    """Random outputs in float64 with NaN and infinity past every end."""
    found = []
    for shape, counts, rubbish in (
        (student, lengths, torch.nan),
        (teacher, teacher_lengths or lengths, torch.inf),
    ):
        states = torch.randn(shape.layers + 1, len(counts), max(counts), shape.width).double()
        for row, count in enumerate(counts):
            states[:, row, count:] = rubbish
        found.append(LayerOutputs(tuple(states), torch.tensor(counts)))
    return found


def rows(outputs, row):
    """One utterance of a batch, alone."""
    count = int(outputs.lengths[row])
    states = tuple(state[row : row + 1, :count] for state in outputs.hidden_states)
    return LayerOutputs(states, outputs.lengths[row : row + 1])


SLOW = Shape(layers=2, width=4, hop=640, field=720)
CASES = {
    "linear": (Shape(2, 3), {"head": "linear"}),
    "shared": (SHAPE, {"head": "shared", "layers": [[0, 0], [1, [1, 2]], [2, -1]]}),
    "fan_out": (Shape(3, 5), {"head": "fan_out", "layers": [[-1, 1], [-1, 2]]}),
    "none": (SHAPE, {"head": "none", "target_norm": "layer_norm"}),
    "means": (SLOW, {"head": "linear"}),
    "upsample": (SLOW, {"head": "upsample"}),
}


@pytest.mark.parametrize("case", CASES)
def test_padding_has_no_value_and_no_gradient(case):
    """Fails if an utterance counts by its length, or what stands in padding reaches a weight."""
    shape, conf = CASES[case]
    slow = shape is SLOW
    student, teacher = sides(
        shape, SHAPE, [4, 2, 1] if slow else [9, 5, 1], [9, 5, 2] if slow else None
    )
    for state in student.hidden_states:
        state.requires_grad_()
    loss = FrameMatchLoss(shape, SHAPE, **MIXED, **conf).double()
    value, _ = loss(student, teacher)
    alone = [loss(rows(student, row), rows(teacher, row))[0] for row in range(3)]
    torch.testing.assert_close(value, torch.stack(alone).mean())
    value.backward()
    for state in student.hidden_states:
        if state.grad is not None:
            assert not state.grad[~student.mask()].any() and state.grad.isfinite().all()
    for parameter in loss.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
        assert parameter.grad.any()


def test_low_precision_is_left_to_the_heads():
    """Fails if distances are computed in bfloat16, or a head refuses the student's dtype."""
    student, teacher = sides(Shape(2, 3), SHAPE, [40])
    loss = FrameMatchLoss(Shape(2, 3), SHAPE, **MIXED)
    exact = loss(student, teacher)[0]
    low = [side.each(torch.Tensor.bfloat16) for side in (student, teacher)]
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value, _ = loss(*low)
        assert value.dtype in (torch.float32, torch.float64)
        assert float(value.detach()) == pytest.approx(float(exact.detach()), rel=0.02)


def test_a_pre_norm_teacher_is_followed_normalized():
    (built,) = build_losses([{"name": "frame_match"}], SHAPE, Shape(2, 4, pre_norm=True))
    assert built.entry["conf"] == {"target_norm": "layer_norm"} and built.loss.normalized
    student, teacher = sides(SHAPE, SHAPE, [6])
    scaled = teacher.each(lambda state: 50 * state + 7)
    values = [built.loss.double()(student, side)[0] for side in (teacher, scaled)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"head": "linaer"}, "unknown head 'linaer'. Did you mean 'linear'?"),
        ({"cosine": "logsigmoid"}, "unknown cosine 'logsigmoid'. Did you mean 'log_sigmoid'?"),
        ({"target_norm": "layernorm"}, "unknown target_norm 'layernorm'"),
        ({"l2_weight": 0}, "l1_weight, l2_weight and cosine_weight are all 0"),
        ({"l1_weight": "heavy"}, "l1_weight must be a number, got 'heavy'"),
        ({"pair_weights": [1.0]}, "pair_weights must be a list of 2 numbers"),
        ({"pair_weights": [1.0, True]}, "pair_weights must be a number, got True"),
        ({"layers": 12}, "layers must be a list of pairs such as [[-1, -1]], got 12"),
        ({"head": "fan_out"}, "from one layer of the student, got [1], [2]; name the same one"),
        ({"head": "upsample"}, "both have 50 a second; choose head linear"),
    ],
)
def test_mistakes_are_named(conf, message):
    with pytest.raises(StarError) as error:
        build_losses([{"name": "frame_match", "conf": conf}], SHAPE, SHAPE)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unequal_widths_need_a_head():
    with pytest.raises(StarError, match="student is 3 wide and the teacher 4; choose head linear"):
        FrameMatchLoss(Shape(2, 3), SHAPE, head="none")
