"""Losses that are not finite, as a model hands them to ESPnet's trainer."""

import logging

import pytest
import torch
from espnet2.train.reporter import Reporter

from espnet_star.errors import StarError
from espnet_star.training.finite_steps import FiniteSteps, suspects


class Product(torch.nn.Module):
    """Loss ``scale * weight * mean(speech)``: finite gradients may come with infinite losses."""

    def __init__(self, as_mapping=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.as_mapping = as_mapping

    def forward(self, speech, offset=0.0, **_):
        loss = (self.weight * speech.mean() + offset)[None]
        stats = {"loss": loss.detach(), "acc": torch.ones(1, dtype=torch.long), "none": None}
        weight = torch.tensor([len(speech)])
        if self.as_mapping:
            return {"loss": loss, "stats": stats, "weight": weight, "optim_idx": 0}
        return loss, stats, weight


def batch(**changes):
    return {"utt_id": ["a", "b"], "speech": torch.ones(2, 3)} | changes


@pytest.mark.parametrize("offset", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("as_mapping", [False, True])
def test_a_bad_loss_is_nan_in_loss_gradient_and_statistics(offset, as_mapping, caplog):
    """Fails if ESPnet, which looks at gradients, would step, or average the rest in."""
    model = Product(as_mapping)
    with FiniteSteps(model, distributed=False) as watch:
        output = model(**batch(offset=offset))
    loss, stats = (output["loss"], output["stats"]) if as_mapping else output[:2]
    loss.sum().backward()
    assert model.weight.grad.isnan()
    assert stats["loss"].isnan() and stats["acc"].isnan() and stats["none"] is None
    assert stats["acc"].shape == (1,)
    assert (watch.steps, watch.skipped) == (1, 1)
    assert "Utterances: a, b" in caplog.text


def test_a_good_loss_is_left_alone():
    model = Product()
    expected = model(**batch())
    with FiniteSteps(model, distributed=False) as watch:
        output = model(**batch())
        other = model.weight  # a hook on the model alone
    assert output[0] == expected[0] and output[1]["acc"].dtype == torch.long
    assert (watch.steps, watch.skipped) == (1, 0)
    assert other.grad is None
    assert not model._forward_hooks


def test_outputs_that_are_no_loss_are_left_alone():
    """Fails if ESPnet's validation of speakers, which asks for embeddings, breaks."""
    model = torch.nn.Identity()
    with FiniteSteps(model, distributed=False) as watch:
        assert model(torch.tensor(float("nan"))).isnan()
    assert watch.steps == 0


def test_suspects_are_those_with_broken_input():
    speech = torch.ones(3, 4)
    given = {"utt_id": ["a", "b", "c"], "speech": speech, "lengths": torch.ones(3)}
    assert suspects(given) == ["a", "b", "c"]
    speech[1, 2] = float("inf")
    assert suspects(given) == ["b"]
    assert suspects({"speech": speech}) == []


def test_the_count_is_a_statistic_of_the_epoch():
    """Fails if the count of an epoch is an average, or moves ESPnet's step counter."""
    model, reporter = Product(), Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub, FiniteSteps(model, distributed=False) as watch:
        for offset in (0.0, float("nan"), float("inf"), 1.0):
            _, stats, weight = model(**batch(offset=offset))
            sub.register(stats, weight)
            sub.next()
        watch.report(sub)
    values = reporter.stats[1]["train"]
    assert values["nonfinite_steps"] == 2
    assert values["loss"] == 1.5  # of the two good ones
    assert values["total_count"] == 4
    assert "nonfinite_steps=2" in reporter.log_message()


@pytest.mark.parametrize(
    ("offsets", "accum_grad", "message"),
    [
        ([float("nan")] * 3, 1, "the loss of 3 of 3 batches is NaN or infinite, e.g. with a, b;"),
        ([0.0] * 3, 4, "has 3 batches and accum_grad is 4; lower accum_grad"),
        ([0.0] * 3, 1, "no gradient of its 3 batches was finite; lower the learning rate"),
    ],
)
def test_an_epoch_without_an_update_is_explained(offsets, accum_grad, message, caplog):
    caplog.set_level(logging.ERROR)
    model = Product()
    with FiniteSteps(model, distributed=False) as watch:
        for offset in offsets:
            model(**batch(offset=offset))
    error = watch.no_update(2, accum_grad)
    assert isinstance(error, StarError)
    assert str(error).startswith("epoch 2 of training made no update: ")
    assert message in str(error)
