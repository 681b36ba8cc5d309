import re

import numpy as np
import pytest
import torch

from espnet_star import kernels
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses.soft_dtw import SoftDTWLoss, temporal_spread
from espnet_star.outputs import LayerOutputs

LASER = {
    "laser_hubert": {"sigma": 0, "margin": 1.1, "alpha": 0.4},
    "laser_wavlm": {"sigma": 0, "margin": 1.0, "alpha": 0.15},
    "score": {"against": "teacher", "normalize": "length", "alpha": 0.0},
}
# LASER's and SCORE's gamma; a file may hold values of others.
GAMMA = 0.1


def outputs(*states):
    """One layer of unequal utterances, with rubbish past their ends."""
    lengths = torch.tensor([len(state) for state in states])
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True, padding_value=torch.nan)
    return LayerOutputs((padded, padded), lengths)


def objective(width, final_dim, **conf):
    shape = Shape(layers=1, width=width)
    return SoftDTWLoss(shape, shape, final_dim=final_dim, **conf).double()


@pytest.fixture(params=["kernel", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(kernels, "pays", lambda *_: False)


@pytest.fixture
def data(reference):
    return {k: torch.from_numpy(v) for k, v in np.load(reference("alignment_losses.npz")).items()}


@pytest.mark.parametrize("name", LASER)
def test_reference_values_and_gradients(data, name, form):
    """Fails if costs, normalization, regularizer or the way of a gradient is not the authors'."""
    final_dim, width = data["weight"].shape
    loss = objective(width, final_dim, gamma=GAMMA, **LASER[name])
    loss.connector.load_state_dict({"weight": data["weight"], "bias": data["bias"]})
    takes = {key: data[key].clone().requires_grad_() for key in ("h1", "h2")}
    value, terms = loss(outputs(takes["h1"]), outputs(takes["h2"]))
    value.backward()
    assert value.item() == pytest.approx(float(data[name]), rel=1e-9)
    assert set(terms) == ({"alignment", "spread"} if loss.alpha else {"alignment"})
    found = {key: take.grad for key, take in takes.items()}
    found |= {key: value.grad for key, value in loss.connector.named_parameters()}
    # A frozen model runs without gradient: its own states have none in the file.
    for key in found:
        if f"{name}_grad_{key}" in data:
            expected = data[f"{name}_grad_{key}"]
            torch.testing.assert_close(found[key], expected, rtol=1e-7, atol=1e-10)


def test_reference_alignment_and_spread(data, form):
    """Fails for another gamma, window or margin than the usual ones."""
    takes = {key: data[key] for key in ("x", "y")}
    both = outputs(takes["x"]), outputs(takes["y"])
    checked = set()
    for key, expected in data.items():
        if found := re.fullmatch(r"softdtw_(norm_)?g([\d.]+)", key):
            loss = objective(takes["x"].shape[1], 1, gamma=float(found[2]), alpha=0.0)
            loss.connector = torch.nn.Identity()
            value = loss(*both)[0]
            if not found[1]:
                selves = [data[f"softdtw_{side}_g{found[2]}"] for side in ("xx", "yy")]
                value = value + sum(selves) / 2
        elif found := re.fullmatch(r"idm_([xy])_s(\d+)_m([\d.]+)", key):
            take = takes[found[1]]
            distances = (take[:, None] - take).square().sum(-1).sqrt()[None]
            lengths = torch.tensor([len(take)])
            value = temporal_spread(distances, lengths, int(found[2]), float(found[3]))
        else:
            continue
        checked.add(key.split("_")[0])
        # By the authors' products a frame is some 1e-8 from itself.
        assert float(value) == pytest.approx(float(expected), rel=1e-9, abs=1e-9), key
    assert checked == {"softdtw", "idm"}


def test_a_batch_is_the_mean_of_its_utterances():
    """Fails if padding is aligned, pushed apart, or spoils a gradient."""
    torch.manual_seed(0)
    sizes = ((5, 8), (1, 2), (9, 4))
    pairs = [tuple(torch.randn(n, 6, dtype=torch.float64) for n in pair) for pair in sizes]
    for conf in ({}, {"normalize": "length", "connector": "mlp", "sigma": 2}):
        loss = objective(6, 4, **conf)
        alone = [loss(outputs(x), outputs(y))[0] for x, y in pairs]
        firsts = [x.clone().requires_grad_() for x, _ in pairs]
        value, _ = loss(outputs(*firsts), outputs(*(y for _, y in pairs)))
        assert value.item() == pytest.approx(float(sum(alone).detach()) / 3, rel=1e-10)
        value.backward()
        assert all(x.grad.isfinite().all() for x in firsts)


def test_equal_takes_have_no_gradient():
    """Fails if distances are rounded as products in float32 are: a frame moves from itself."""
    torch.manual_seed(0)
    loss = objective(32, 32, alpha=0.0, gamma=1e-4).float()
    loss.connector = torch.nn.Identity()
    x = torch.randn(60, 32).requires_grad_()
    value, _ = loss(outputs(x), outputs(x.detach().clone()))
    value.backward()
    assert value.dtype == torch.float32
    assert abs(value.item()) < 1e-6 and x.grad.abs().max() < 1e-6


def test_against_says_whose_second_take():
    student, teacher = Shape(layers=2, width=6), Shape(layers=4, width=6, hop=160)
    ours = SoftDTWLoss(student, teacher)
    assert ours.inputs == ("student", "student2")
    assert [set(want.states) for want in ours.wants()] == [{2}, {2}]
    theirs = SoftDTWLoss(student, teacher, against="teacher")
    assert theirs.inputs == ("student", "teacher2")
    assert [set(want.states) for want in theirs.wants()] == [{2}, {4}]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"against": "techer"}, "unknown against of loss soft_dtw 'techer'. Did you mean"),
        ({"normalize": "frames"}, "unknown normalize of loss soft_dtw 'frames'"),
        ({"gamma": 0}, "gamma of loss soft_dtw must be above 0, got 0"),
        ({"against": "teacher"}, "the teacher's states are 8 wide and the student's 6"),
        ({"layer": 3}, "the student has states 0 to 2 .* got 3"),
    ],
)
def test_mistakes_are_named(conf, message):
    with pytest.raises(StarError, match=message):
        SoftDTWLoss(Shape(layers=2, width=6), Shape(layers=2, width=8), **conf)
