"""s3prl's optimizer, against what it gave."""

import copy

import numpy as np
import pytest
import torch

from espnet_star.errors import StarError
from espnet_star.training.s3prl_adamw import S3prlAdamW, factor

RATE = 1e-2


class Small(torch.nn.Module):
    """The reference's: a linear map and a LayerNorm."""

    def __init__(self, out, width):
        super().__init__()
        self.lin = torch.nn.Linear(width, out)
        self.layer_norm = torch.nn.LayerNorm(out)

    def forward(self, x):
        return self.layer_norm(self.lin(x)).pow(3).sum()


def numbered(data, number):
    prefix = f"param{number}/"
    names = [key for key in data.files if key.startswith(prefix)]
    return {key.removeprefix(prefix): torch.from_numpy(data[key]) for key in names}


def build(data):
    start = numbered(data, 0)
    model = Small(*start["lin.weight"].shape).double()
    model.load_state_dict(start)
    conf = {name: data[name].item() for name in ("total_steps", "warmup_proportion")}
    return model, S3prlAdamW(model.named_parameters(), lr=RATE, **conf)


def test_it_steps_as_s3prls(reference):
    """Fails on the first update's rate, where epsilon or the decay stands, or what decays."""
    data = np.load(reference("s3prl_optimizer.npz"))
    model, optimizer = build(data)
    x = torch.from_numpy(data["x"])
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == data["weight_decay_groups"].tolist()
    steps = max(int(key[5:].split("/")[0]) for key in data.files if key.startswith("param"))
    for step in range(1, steps + 1):
        if step == 3:  # killed and resumed
            weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model, optimizer = build(data)
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        for name, expected in numbered(data, step).items():
            found = model.state_dict()[name]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=name)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(RATE * data["warmup_linear"][step])


def test_schedules_are_s3prls(reference):
    data = np.load(reference("s3prl_optimizer.npz"))
    total, warmup = int(data["total_steps"]), float(data["warmup_proportion"])
    for schedule in ("linear", "cosine"):
        expected = data[f"warmup_{schedule}"]
        found = [factor(step / total, warmup, schedule) for step in range(len(expected))]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert factor(1.5, warmup, schedule) == 0.0  # s3prl's cosine would rise again


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"total_steps": 0}, "total_steps of s3prl_adamw must be 1 or more, got 0"),
        ({"total_steps": 9, "schedule": "linaer"}, "schedule of s3prl_adamw 'linaer'. Did you"),
        ({"total_steps": 9, "warmup_proportion": 1}, "from 0 to below 1, got 1"),
    ],
)
def test_impossible_schedules_are_refused(conf, message):
    with pytest.raises(StarError, match=message):
        S3prlAdamW(torch.nn.Linear(2, 2).named_parameters(), lr=0.1, **conf)
