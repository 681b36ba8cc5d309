import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses.utterance_contrast import UtteranceContrastLoss
from espnet_star.outputs import LayerOutputs

WIDTH = 6


def objective(width=WIDTH, **conf):
    shape = Shape(layers=2, width=width)
    return UtteranceContrastLoss(shape, shape, **({"layer": 1, "final_dim": 4} | conf))


def outputs(state, lengths, masked):
    return LayerOutputs((state,), torch.tensor(lengths), layers=(1,), masked=masked)


@pytest.mark.parametrize("name", ["q", "nq"])
def test_reference_value_and_gradient(reference, name):
    """Fails if labels, candidates, temperature, quantizer or diversity are not the authors'."""
    data = np.load(reference("unispeech_sat.npz"))
    values = {
        key.removeprefix(f"{name}_"): torch.from_numpy(data[key])
        for key in data
        if key.startswith(f"{name}_") and data[key].dtype.kind in "fi"
    }
    state = values["spk_x"].requires_grad_()
    batch, frames, width = state.shape
    final_dim = len(values["spk_proj_weight"])
    conf = {"final_dim": final_dim, "negatives": values["logits"].shape[1] - 1}
    if name == "q":
        codes, part = values["vars"].shape[1:]
        conf |= {"quantizer": True, "groups": final_dim // part}
        conf |= {"codes": codes // conf["groups"], "diversity_weight": 0.0}
    loss = objective(width, **conf).eval()
    weights = {f"anchor.{key}": values[f"spk_proj_{key}"] for key in ("weight", "bias")}
    if name == "q":
        for part, ours in (("weight_proj", "choose"), ("project_q", "output")):
            for key in ("weight", "bias"):
                weights[f"quantizer.{ours}.{key}"] = values[f"{part}_{key}"]
        weights["quantizer.codebooks"] = values["vars"].view_as(loss.quantizer.codebooks)
        weights["quantizer.batches"] = loss.quantizer.batches
    loss.load_state_dict(weights)
    drawn = values["sample_idx"].view(batch, -1, frames).transpose(1, 2).flatten(0, 1)
    loss.draw = lambda frames, device: drawn
    decided = []
    decide = loss._decisions
    loss._decisions = lambda *given: decided.append(decide(*given)) or decided[0]
    masked = torch.ones(batch, frames, dtype=torch.bool)
    value, terms = loss(outputs(state, [frames] * batch, masked))
    value.backward()
    logits, same = decided[0]
    torch.testing.assert_close(logits, values["logits"], rtol=1e-5, atol=1e-5)
    assert same.mean().item() == pytest.approx(float(values["mean_targets"]), rel=1e-5)
    accuracy = ((logits > 0) == same.bool()).float().mean().item()
    assert accuracy == pytest.approx(float(values["accuracy"]), rel=1e-5)
    assert value.item() == pytest.approx(float(values["loss_spk"]), rel=1e-5)
    torch.testing.assert_close(state.grad, values["grad_spk_x"], rtol=1e-4, atol=1e-6)
    extra = dict(zip(data[f"{name}_extra_names"].item().split(","), values["extra"], strict=True))
    assert terms["contrast"].item() == pytest.approx(float(extra["loss_spk_m"]), rel=1e-5)
    if name == "q":
        number = float(values["num_vars"])
        used = number * (1 - terms["diversity"].item())
        assert used == pytest.approx(float(values["prob_perplexity"]), rel=1e-5)
        assert terms["diversity"].item() == pytest.approx(float(extra["prob_perplexity"]), rel=1e-5)


def test_padding_and_unmasked_frames_take_no_part():
    """Fails if a frame outside of the mask, or past an end, is an anchor or a candidate."""
    torch.manual_seed(0)
    loss = objective(negatives=5, quantizer=True, groups=2, codes=3).eval()
    state = torch.randn(3, 7, WIDTH)
    masked = torch.rand(3, 7) < 0.6
    lengths = [7, 4, 5]
    values = []
    for filler in (0.0, 1e3, torch.nan):
        valid = torch.arange(7) < torch.tensor(lengths)[:, None]
        given = torch.where((masked & valid)[..., None], state, filler)
        torch.manual_seed(1)
        values.append(loss(outputs(given, lengths, masked))[0].item())
    assert values[0] == values[1] == values[2]
    nothing = loss(outputs(state, lengths, torch.zeros_like(masked)))[0]
    assert nothing.isfinite()
    nothing.backward()  # every rank has a gradient for every weight
    assert all(parameter.grad is not None for parameter in loss.anchor.parameters())


def test_the_quantizer_draws_in_training_and_cools_down():
    """Fails if its temperature stands still, is lost on a resume, or no gradient reaches it."""
    loss = objective(negatives=3, quantizer=True, codes=5, gumbel=[2.0, 0.5, 0.5])
    state, masked = torch.randn(2, 6, WIDTH), torch.ones(2, 6, dtype=torch.bool)
    values = set()
    for _ in range(4):
        value, _ = loss(outputs(state, [6, 6], masked))
        values.add(value.item())
    assert len(values) == 4
    value.backward()
    assert loss.quantizer.choose.weight.grad.abs().sum() > 0
    resumed = objective(negatives=3, quantizer=True, codes=5)
    resumed.load_state_dict(loss.state_dict())
    assert int(resumed.quantizer.batches) == 4


def test_mistakes_are_named():
    with pytest.raises(StarError, match="final_dim 5 must be a multiple of the 2 groups"):
        objective(quantizer=True, final_dim=5)
    with pytest.raises(StarError, match=r"the student has states 0 to 2 .* got 6"):
        objective(layer=6)
    with pytest.raises(StarError, match="gumbel must be 3 numbers, got"):
        objective(quantizer=True, gumbel=[2.0])
    with pytest.raises(StarError, match="choose a view with masks"):
        objective()(outputs(torch.zeros(1, 2, WIDTH), [2], None))
