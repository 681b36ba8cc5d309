"""What somebody builds on this package without touching a file of it."""

from dataclasses import replace

import torch

from espnet_star.encoders import Shape, Want
from espnet_star.losses import Objective
from espnet_star.losses.layers import pairs
from espnet_star.outputs import LayerOutputs
from espnet_star.students import Student
from espnet_star.teachers.hugging_face import HuggingFaceTeacher
from espnet_star.views import Pass, View

NOT_A_CLASS = 3


class HalfRate(Student):
    """25 frames a second, of one convolution and linear layers."""

    def __init__(self, input_size=1, width=8, layers=2):
        super().__init__()
        self.shape = Shape(layers, width, hop=640, field=720)
        self.conv = torch.nn.Conv1d(1, width, self.shape.field, stride=self.shape.hop)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))

    def options(self):
        return {"width": self.shape.width, "layers": self.shape.layers}

    def extract(self, speech, lengths, sizes, want):
        states = [self.conv(speech[:, None]).transpose(1, 2)]
        for layer in self.layers:
            states.append(states[-1] + layer(states[-1]).tanh())
        return LayerOutputs(states, self.shape.frames(lengths))


class Masked(HuggingFaceTeacher):
    """Zeros stand where a mask is."""

    masks = True

    def extract(self, speech, lengths, sizes, want):
        if want.mask is None:
            return super().extract(speech, lengths, sizes, want)
        mask = want.mask[..., None]
        hook = self.model.feature_projection.register_forward_hook(
            lambda _module, _args, out: out.masked_fill(mask, 0.0)
        )
        try:
            return super().extract(speech, lengths, sizes, replace(want, mask=None))
        finally:
            hook.remove()


class Twice(View):
    """The teacher hears every utterance as it is and with frames missing."""

    passes = {"clean": "teacher", "masked": "teacher", "student": "student"}  # noqa: RUF012
    masked = ("masked",)

    def __init__(self, student, teacher, prob=0.3):
        super().__init__(student, teacher)
        self.prob = prob

    def forward(self, speech, speech_lengths, **batch):
        frames = self.teacher.frames_of(speech.shape[1])
        mask = torch.rand(len(speech), frames, device=speech.device) < self.prob
        return {
            "clean": Pass(speech, speech_lengths),
            "masked": Pass(speech, speech_lengths, mask),
            "student": Pass(speech, speech_lengths),
        }


class Hidden(Objective):
    """A hidden layer of the teacher through a head, clean and masked."""

    terms = {"clean": "Clean layer", "masked": "Masked layer"}  # noqa: RUF012
    inputs = ("student", "clean", "masked")

    def __init__(self, student, teacher, layer=1):
        super().__init__(student, teacher)
        self.pairs = pairs(student, teacher, [[-1, layer]])
        self.head = torch.nn.Linear(student.width, teacher.width)

    def forward(self, student, clean, masked):
        assert bool(masked.masked.any()) and clean.masked is None
        (state,) = self.pairs.of_student(student)
        guess, terms = self.head(state), {}
        for name, outputs in (("clean", clean), ("masked", masked)):
            (target,) = self.pairs.of_teacher(self.on_student_frames(student, outputs))
            terms[name] = (guess - target)[student.mask()].abs().mean()
        return terms["clean"] + terms["masked"], terms


class Units(Objective):
    """Cross entropy of frame labels; no teacher is asked for anything."""

    terms, inputs = {"units": "Units"}, ("student",)

    def __init__(self, student, teacher, units=5):
        super().__init__(student, teacher)
        self.head = torch.nn.Linear(student.width, units)

    def wants(self):
        return (Want(),)

    def forward(self, student):
        scores = self.head(student.state(2)).transpose(1, 2)
        value = torch.nn.functional.cross_entropy(scores, student.labels, ignore_index=-1)
        return value, {"units": value}


class Demanding(Objective):
    """Its constructor takes no shapes."""

    terms = {"x": "X"}  # noqa: RUF012

    def __init__(self, student, teacher, factor):
        super().__init__(student, teacher)

    def forward(self, student, teacher):
        raise NotImplementedError
