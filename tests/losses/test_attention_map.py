import math

import numpy as np
import pytest
import torch
from compared import compare

from espnet_star.losses import AttentionMapLoss
from espnet_star.outputs import LayerOutputs


def outputs(maps, lengths):
    """Outputs with attention maps ``L`` times ``(B, H, N, N)``."""
    frames = maps[0].shape[2]
    states = tuple(torch.zeros(len(lengths), frames, 2) for _ in range(len(maps) + 1))
    return LayerOutputs(states, torch.tensor(lengths), tuple(maps))


def random_maps(layers, lengths, heads, seed):
    """Probabilities over valid keys, as encoders give them; rubbish elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths)
    maps = []
    for _ in range(layers):
        scores = torch.randn(
            len(lengths), heads, size, size, generator=generator, dtype=torch.float64
        )
        for row, frames in enumerate(lengths):
            scores[row, :, :, frames:] = -torch.inf
        maps.append(scores.softmax(dim=-1))
    return maps


def naive(student, teacher, lengths):
    total = 0.0
    for s_maps, t_maps in zip(student, teacher, strict=True):
        for row, frames in enumerate(lengths):
            for query in range(frames):
                for key in range(frames):
                    p = float(t_maps[row, :, query, key].mean())
                    q = float(s_maps[row, :, query, key].mean())
                    total += p * math.log(p / q) / frames
    return total / (len(student) * len(lengths))


def test_reference_value(reference):
    """Fails if the divergence, its direction or its mean is not the documented one."""
    data = np.load(reference("star_losses.npz"))
    sides = [
        outputs(list(torch.from_numpy(data[f"{name}_attention"]).transpose(0, 1)), data["lengths"])
        for name in ("student", "teacher")
    ]
    value, stats = compare(AttentionMapLoss, *sides)
    assert float(value) == pytest.approx(float(data["average_attention"]), rel=1e-5)
    assert stats.keys() == {"attention"}


@pytest.mark.parametrize(
    ("layers", "lengths"), [(1, [1]), (2, [5, 1, 3]), (3, [4, 4])], ids=["one", "mixed", "equal"]
)
def test_equals_loops(layers, lengths):
    """Fails if numbers of heads must agree or padded queries and keys count."""
    student, teacher = random_maps(layers, lengths, 2, 0), random_maps(layers, lengths, 3, 1)
    value, _ = compare(AttentionMapLoss, outputs(student, lengths), outputs(teacher, lengths))
    assert float(value) == pytest.approx(naive(student, teacher, lengths), rel=1e-6, abs=1e-9)


def test_zero_on_equal_maps_and_rubbish_in_padding():
    maps = random_maps(2, [5, 3], 2, 0)
    for layer in maps:
        layer[1, :, 3:] = torch.nan
    noisy = [layer.clone().requires_grad_() for layer in maps]
    value, _ = compare(AttentionMapLoss, outputs(noisy, [5, 3]), outputs(maps, [5, 3]))
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    value.backward()
    assert all(torch.isfinite(layer.grad).all() for layer in noisy)


def test_one_hot_maps_stay_finite():
    """Fails on log(0): a head may look at one frame only."""
    eye = torch.eye(4)[None, None]
    flat = torch.full((1, 1, 4, 4), 0.25)
    for student, teacher in ((eye, flat), (flat, eye)):
        student = student.clone().requires_grad_()
        value, _ = compare(AttentionMapLoss, outputs([student], [4]), outputs([teacher], [4]))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()


def test_layer_map():
    student, teacher = random_maps(2, [4], 1, 0), random_maps(4, [4], 1, 1)
    mapped = compare(AttentionMapLoss, outputs(student, [4]), outputs(teacher, [4]), [1, 3])[0]
    direct = compare(
        AttentionMapLoss, outputs(student, [4]), outputs([teacher[0], teacher[2]], [4])
    )[0]
    assert float(mapped) == float(direct)


def test_missing_maps_are_an_error():
    maps = outputs(random_maps(1, [4], 1, 0), [4])
    bare = LayerOutputs(maps.hidden_states, maps.lengths)
    for pair in ((maps, bare), (bare, maps)):
        with pytest.raises(ValueError, match="needs attention maps of student and teacher"):
            compare(AttentionMapLoss, *pair)
