"""Heads against the authors' own, in their checkpoints."""

import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.losses.heads import build_heads
from espnet_star.losses.layers import every_layer, pairs


def check(heads, states, expected):
    found = heads(states)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[0].detach(), other, rtol=1e-5, atol=1e-5)


def utterances(data, name):
    return [data[key] for key in sorted(data.files) if key[:-1] == name and key[-1].isdigit()]


def test_fan_out_is_distilhuberts(reference):
    """Fails if parts of the wide layer, or their matrices, are taken in another order."""
    data = np.load(reference("distilhubert_tiny.npz"))
    weights = torch.load(reference("distilhubert_tiny.ckpt"), weights_only=True)["Distiller"]
    parts, width, out = weights["output_layer.2.weight"].shape
    student, teacher = Shape(1, width), Shape(parts, out)
    layers = [[-1, layer + 1] for layer in range(parts)]
    heads = build_heads("fan_out", pairs(student, teacher, layers), student, teacher)
    state = {
        "spread.weight": weights["output_layer.0.weight"],
        "spread.bias": weights["output_layer.0.bias"],
        "weight": weights["output_layer.2.weight"],
        "bias": weights["output_layer.2.bias"][0, 0][:, None],
    }
    heads.load_state_dict(state)
    for hidden, pred in zip(utterances(data, "hidden"), utterances(data, "pred"), strict=True):
        check(heads, [torch.from_numpy(hidden[-1:])] * parts, pred)


@pytest.mark.parametrize(
    ("model", "kind", "names"),
    [
        ("fithubert", "upsample", {"upsample": "upsampler", "maps": "lin_proj"}),
        ("armhubert", "linear", {"maps": "lin_proj"}),
    ],
)
def test_a_head_a_layer_is_the_authors(reference, model, kind, names):
    """Fails if an upsampled frame stands elsewhere, or a layer has another's head."""
    data = np.load(reference(f"{model}_tiny.npz"))
    loaded = torch.load(reference(f"{model}_tiny.ckpt"), weights_only=True)
    prefix = "student_model.proj_head."
    weights = {
        key.removeprefix(prefix): value
        for key, value in loaded["state_dict"].items()
        if key.startswith(prefix)
    }
    width, out = data["hidden0"].shape[2], data["projections0"].shape[2]
    layers = len(data["hidden0"])
    slow = {"hop": 640, "field": 720} if kind == "upsample" else {}
    student, teacher = Shape(layers, width, **slow), Shape(layers, out)
    heads = build_heads(kind, every_layer(student, teacher), student, teacher)
    state = {
        f"{ours}.{layer}.{part}": weights[f"{layer}.{theirs}.{part}"]
        for ours, theirs in names.items()
        for layer in range(layers)
        for part in ("weight", "bias")
    }
    heads.load_state_dict(state)
    found = zip(utterances(data, "hidden"), utterances(data, "projections"), strict=True)
    for hidden, projections in found:
        check(
            heads,
            [torch.from_numpy(hidden[layer : layer + 1]) for layer in range(layers)],
            projections,
        )


def test_shared_heads_start_as_the_identity():
    """Fails if a pruned copy of the teacher began with other states than it has."""
    shape = Shape(3, 4)
    chosen = pairs(shape, shape, [["projection", "projection"], [1, 1], [3, [2, 3]]])
    heads = build_heads("shared", chosen, shape, shape)
    assert sum(parameter.numel() for parameter in heads.parameters()) == 2 * (4 * 4 + 4)
    states = [torch.randn(2, 5, 4) for _ in range(3)]
    for one, other in zip(heads(states), states, strict=True):
        assert torch.equal(one, other)
    for name, identity in (("linear", True), ("shared", False)):
        first = build_heads(name, chosen, shape, shape, identity)(states)[0]
        assert torch.equal(first, states[0]) == identity
