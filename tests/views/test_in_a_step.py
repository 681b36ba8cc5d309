"""Every view in a training step, with a teacher of its own kind; and without one."""

import pytest
import torch
from outside import HalfRate

from espnet_star.distillation import StarDistillation
from espnet_star.encoders import Cached, NoTeacher
from espnet_star.errors import StarError
from espnet_star.losses import LOSSES, Objective
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher
from espnet_star.views import VIEWS


class Vector(HalfRate):
    """A student with a vector for masked frames."""

    masks = True

    def __init__(self):
        super().__init__()
        self.vector = torch.nn.Parameter(torch.ones(self.shape.width))
        self.conv.register_forward_hook(self._mask)
        self.mask = None

    def _mask(self, _module, _args, out):
        if self.mask is None:
            return out
        return torch.where(self.mask[:, None], self.vector[:, None], out)

    def extract(self, speech, lengths, sizes, want):
        self.mask = want.mask
        return super().extract(speech, lengths, sizes, want)


def objective(*names, labelled=False):
    """Pulls together whatever passes there are."""

    class Together(Objective):
        terms, inputs = {"gap": "Gap"}, names

        def forward(self, student, *others):
            value = student.state(2)[student.mask()].square().mean()
            for other in others:
                value = value + (student.state(2).mean() - other.state(1).mean()).square()
            if labelled:
                assert student.labels.shape == student.mask().shape
            return value, {"gap": value}

    return Together


@pytest.fixture
def given(batch):
    speech, lengths = batch[0][:3], batch[1][:3]
    counts = frame_count(lengths)
    labels = torch.full((3, int(counts.max())), 7)
    return {
        "speech": speech,
        "speech_lengths": lengths,
        "labels": labels,
        "labels_lengths": counts,
    }


@pytest.mark.parametrize(
    ("view", "names"),
    [
        ("masked", ("student", "teacher", "teacher_masked")),
        ("labelled", ("student", "teacher_masked")),
        ("mixed", ("student", "teacher")),
        ("noisy", ("student", "teacher")),
        ("two_takes", ("student", "student2", "teacher2")),
    ],
)
def test_a_step(view, names, given, teacher_directory, monkeypatch):
    """Fails if a view's passes do not fit two frame rates, in training or validation."""
    monkeypatch.setitem(LOSSES, "together", objective(*names, labelled=view == "labelled"))
    teacher = build_teacher(str(teacher_directory))
    calls = []
    teacher.model.feature_extractor.register_forward_hook(lambda *_: calls.append(1))
    teacher.model.encoder.register_forward_hook(lambda *_: calls.append(2))
    model = StarDistillation(Vector(), teacher, [{"name": "together"}], view=view)
    loss = model(**given)[0]
    loss.backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.ndim > 1
    )
    assert calls.count(1) == 1 and calls.count(2) == len(names) - 1 - (view == "two_takes")
    calls.clear()
    with torch.no_grad():
        first, second = (model.eval()(**given)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert calls == [1, 2, 1, 2]  # in validation a teacher without mask is run once


def test_no_teacher_is_needed_where_labels_are_all_that_is_read(given, monkeypatch):
    monkeypatch.setitem(LOSSES, "together", objective("student", labelled=True))
    student = Vector()
    losses = [{"name": "together"}]
    model = StarDistillation(student, NoTeacher(student.shape), losses, view="labelled")
    model(**given)[0].backward()
    assert not any("teacher" in key for key in model.state_dict())
    monkeypatch.setitem(LOSSES, "together", objective("student", "teacher"))
    for conf in ({}, {"cache_dir": "kept"}):
        with pytest.raises(StarError, match="teacher is none, but a loss compares a teacher's"):
            StarDistillation(student, NoTeacher(student.shape), losses, view="labelled", **conf)


def test_a_cache_keeps_clean_speech_apart_from_what_a_view_made_of_it(
    given, teacher_directory, tmp_path, monkeypatch
):
    """Fails if a mixture had the states of the utterance, or of another mixture."""
    monkeypatch.setitem(LOSSES, "together", objective("student", "teacher"))
    made = {}
    for cache in (None, str(tmp_path)):
        model = StarDistillation(
            Vector(),
            build_teacher(str(teacher_directory)),
            [{"name": "together"}],
            view="mixed",
            view_conf={"teacher_hears": "mixture", "mixing_prob": 1.0},
            cache_dir=cache,
        )
        assert isinstance(model.target, Cached) is (cache is not None)
        torch.manual_seed(0)
        passes = [model.view(given["speech"], given["speech_lengths"]) for _ in range(2)] * 2
        made[cache] = [model.compute_forward(each)["teacher"].state(1) for each in passes]
    frames = int(frame_count(given["speech_lengths"][0]))
    for one, other in zip(*made.values(), strict=True):
        torch.testing.assert_close(one[0, :frames], other[0, :frames], atol=1e-2, rtol=1e-2)
    assert not torch.equal(made[None][0], made[None][1])


def test_every_view_is_documented_and_its_defaults_can_be_built():
    shape = HalfRate().shape
    for name, view in VIEWS.items():
        assert VIEWS.build(name, {}, shape, shape).training and view.__doc__
