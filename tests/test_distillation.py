"""The distillation model by itself: precision and what it refuses."""

import pytest
import torch

from espnet_star.distillation import StarDistillation
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import LOSSES, Objective
from espnet_star.losses.layers import pairs
from espnet_star.outputs import LayerOutputs
from espnet_star.students import StarEncoder
from espnet_star.teachers.base import Teacher
from espnet_star.training.distillation_trainer import drop_objectives
from espnet_star.views import VIEWS, Pass, View

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "conv_dim": [8] * 8 + [16],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_proj_dropout": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


class SineTeacher(Teacher):
    """Deterministic states without weights: enough to give the student a target."""

    name, shape = "sine", Shape(layers=2, width=12)

    def extract(self, speech, lengths, sizes, want):
        frames = self.shape.frames_of(speech.shape[1])
        time = torch.arange(frames)[:, None] * torch.arange(1, self.shape.width + 1)
        states = [
            torch.sin(time * (layer + 1) / 7).expand(len(speech), -1, -1) for layer in range(3)
        ]
        return LayerOutputs(tuple(states), self.shape.frames(lengths))


def model(**conf):
    torch.manual_seed(0)
    losses = [{"name": "temporal_gram"}]
    return StarDistillation(StarEncoder(**TINY), SineTeacher(), losses, **conf)


def batch():
    torch.manual_seed(1)
    return {"speech": torch.randn(3, 8000), "speech_lengths": torch.tensor([8000, 5000, 400])}


def test_bfloat16_changes_the_loss_by_rounding_only(processor):
    """A bug would compute the objective itself in bfloat16, or break the gradient."""
    exact, rounded = model(), model(cpu_dtype="bfloat16")
    value = exact(**batch())[0]
    other = rounded(**batch())[0]
    assert processor == "this processor" or rounded.bfloat16_is_wrong
    assert other.dtype == torch.float32
    torch.testing.assert_close(other, value, rtol=0.05, atol=0.0)
    assert torch.equal(other, value) == rounded.bfloat16_is_wrong
    other.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rounded.parameters())


def test_auto_is_one_of_the_two_and_a_misspelled_dtype_is_named():
    assert model(cpu_dtype="auto").cpu_dtype in (torch.float32, torch.bfloat16)
    with pytest.raises(StarError, match=r"unknown cpu_dtype 'bfloat61'"):
        model(cpu_dtype="bfloat61")


def test_the_teacher_is_no_part_of_the_state_dict_and_the_loss_is_a_weighted_sum():
    distillation = model()
    assert not any("teacher" in key for key in distillation.state_dict())
    _, stats, weight = distillation(**batch())
    torch.testing.assert_close(stats["loss"], stats["layerwise"] + stats["intralayer"])
    assert int(weight) == 3


def test_a_cache_cannot_serve_attention_maps(tmp_path, monkeypatch):
    losses = [{"name": "attention_map"}]
    monkeypatch.setattr(SineTeacher, "shape", Shape(layers=2, width=12, heads=2))
    with pytest.raises(StarError, match="cache_dir keeps hidden states of whole utterances only"):
        StarDistillation(StarEncoder(**TINY), SineTeacher(), losses, cache_dir=str(tmp_path))


def test_the_teacher_follows_the_speech():
    """FSDP moves the student's weights without the model's knowing: the teacher stayed behind."""
    distillation = model()
    teacher = distillation.teacher.encoder
    teacher.register_parameter("gain", torch.nn.Parameter(torch.ones(1)))
    distillation.target.encode(torch.empty(1, 800, device="meta"), torch.tensor([800]))
    assert teacher.gain.device.type == "meta"


class Heads(Objective):
    """The last state through a trained head."""

    terms = {"match": "Match"}  # noqa: RUF012

    def __init__(self, student, teacher):
        super().__init__(student, teacher)
        self.pairs = pairs(student, teacher, [[-1, 1]])
        self.head = torch.nn.Linear(student.width, teacher.width)

    def forward(self, student, teacher):
        gap = self.head(student.state(2)) - teacher.state(1)
        value = gap[student.mask()].square().mean()
        return value, {"match": value}


def test_heads_are_trained_and_left_out_of_averages(monkeypatch, tmp_path):
    """Fails if an objective's weights were not in the optimizer, or went into what is used."""
    monkeypatch.setitem(LOSSES, "heads", Heads)
    distillation = StarDistillation(StarEncoder(**TINY), SineTeacher(), [{"name": "heads"}])
    assert distillation.wants["teacher"].states == {1}
    loss, stats, _ = distillation(**batch())
    loss.backward()
    head = dict(distillation.named_parameters())["objectives.0.head.weight"]
    assert head.grad.abs().max() > 0 and stats.keys() == {"loss", "match"}
    average = tmp_path / "valid.loss.ave_2best.pth"
    torch.save(distillation.state_dict(), average)
    torch.save(distillation.state_dict(), tmp_path / "2epoch.pth")
    (tmp_path / "valid.loss.ave_1best.pth").symlink_to("2epoch.pth")
    drop_objectives(tmp_path)
    for path in tmp_path.glob("*.ave_*"):
        assert torch.load(path).keys() == {
            f"encoder.{k}" for k in distillation.encoder.state_dict()
        }
    assert "objectives.0.head.bias" in torch.load(tmp_path / "2epoch.pth")


class Takes(View):
    """Two passes of the teacher, one with a mask, and one of the student with labels."""

    passes = {"clean": "teacher", "masked": "teacher", "student": "student"}  # noqa: RUF012
    masked, data = ("masked",), ("labels",)

    def forward(self, speech, speech_lengths, labels, **_):
        mask = torch.ones_like(labels, dtype=torch.bool)
        return {
            "clean": Pass(speech, speech_lengths),
            "masked": Pass(0.1 * speech, speech_lengths, mask=mask),
            "student": Pass(speech, speech_lengths, labels=labels),
        }


class Three(Objective):
    """Reads all three."""

    terms, inputs = {"gap": "Gap"}, ("student", "clean", "masked")

    def forward(self, student, clean, masked):
        assert masked.masked.all() and clean.masked is None
        assert student.labels.shape == student.mask().shape
        gap = student.state(2).mean() - clean.state(2).mean() - masked.state(2).mean()
        return gap.square(), {"gap": gap}


class Masking(SineTeacher):
    masks = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def extract(self, speech, lengths, sizes, want):
        self.asked.append((float(speech.abs().max()), want.mask is not None))
        return super().extract(speech, lengths, sizes, want)


def test_a_view_feeds_an_encoder_twice_and_brings_labels_and_masks(monkeypatch):
    """Fails if a step is wired to one pass each, or what a view gives does not arrive."""
    monkeypatch.setitem(VIEWS, "takes", Takes)
    monkeypatch.setitem(LOSSES, "three", Three)
    losses = [{"name": "three"}]
    teacher = Masking()
    made = StarDistillation(StarEncoder(**TINY), teacher, losses, view="takes")
    loss, stats, _ = made(**batch(), labels=torch.zeros(3, 24, dtype=torch.long))
    loss.backward()
    (loud, plain), (quiet, masked) = teacher.asked
    assert quiet == pytest.approx(0.1 * loud) and (plain, masked) == (False, True)
    assert stats.keys() == {"gap", "loss"}
    with pytest.raises(StarError, match="teacher 'sine' has no vector for masked frames"):
        StarDistillation(StarEncoder(**TINY), SineTeacher(), losses, view="takes")
    with pytest.raises(StarError, match="loss three compares student and clean and masked, view "):
        StarDistillation(StarEncoder(**TINY), SineTeacher(), losses)
