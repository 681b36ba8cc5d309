"""Speech enhancement on the student's convolutions, against its authors' values."""

import numpy as np
import pytest
import torch

from espnet_star.distillation import StarDistillation
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import EnhancementLoss
from espnet_star.losses.enhancement import SPECTRUM, rebuilt, resolutions_apart, spectrum
from espnet_star.outputs import LayerOutputs
from espnet_star.teachers import build_teacher

SHAPE = Shape(layers=1, width=8)


def outputs(speech, samples, front):
    frames = SHAPE.frames(samples)
    state = torch.zeros(len(speech), front.shape[1], SHAPE.width)
    inner = {"front": front}
    return LayerOutputs((state, state), frames, inner=inner, speech=speech, samples=samples)


def test_values_are_those_of_the_authors(reference):
    """Fails if features were repeated otherwise, or another spectrum was masked."""
    file = {
        k: torch.from_numpy(np.array(v))
        for k, v in np.load(reference("robustdistiller.npz")).items()
    }
    head = {k.removeprefix("head/"): v for k, v in file.items() if k.startswith("head/")}
    layers = sum(key.startswith("rnn.bias_ih") for key in head) // 2
    options = dict(channels=file["feat"].shape[2], layers=layers)
    options["width"] = head["rnn.weight_hh_l0"].shape[1]
    samples = torch.full((len(file["noisy"]),), file["noisy"].shape[1])
    student = outputs(file["noisy"], samples, file["feat"])
    teacher = outputs(file["clean"], samples, file["feat"])
    for criterion in ("l1", "l2"):
        loss = EnhancementLoss(SHAPE, SHAPE, criterion=criterion, **options).eval()
        loss.load_state_dict(head)
        value, terms = loss(student, teacher)
        torch.testing.assert_close(value, file[criterion], atol=3e-6, rtol=0)
        assert terms.keys() == loss.terms.keys()
    masks = loss.masks(file["feat"], student.lengths, samples.tolist())
    torch.testing.assert_close(masks, file["mask"], atol=3e-6, rtol=0)
    heard = spectrum(file["noisy"], *SPECTRUM)
    wave = rebuilt(file["mask"].mT, heard, int(samples[0]))
    torch.testing.assert_close(wave, file["rec_wave"], atol=3e-6, rtol=0)
    torch.testing.assert_close(
        resolutions_apart(wave, file["clean"]), file["mrstft"], atol=3e-6, rtol=0
    )


@pytest.mark.parametrize("criterion", ["l1", "l2", "mrstft"])
def test_an_utterance_counts_the_same_in_a_batch_as_alone(criterion):
    """Fails if the LSTM read padding, or spectra reached into it."""
    torch.manual_seed(0)
    loss = EnhancementLoss(SHAPE, SHAPE, 6, 5, 2, criterion=criterion).eval()
    samples = torch.tensor([4000, 2500, 1300])
    noisy, clean = torch.randn(3, 4000), torch.randn(3, 4000)
    front = torch.randn(3, SHAPE.frames_of(4000), 6)
    together, _ = loss(outputs(noisy, samples, front), outputs(clean, samples, front))
    alone = []
    for row, size in enumerate(samples.tolist()):
        part = slice(row, row + 1)
        frames = SHAPE.frames_of(size)
        given = [
            outputs(x[part, :size], samples[part], front[part, :frames]) for x in (noisy, clean)
        ]
        alone.append(loss(*given)[0])
    torch.testing.assert_close(together, torch.stack(alone).mean())
    assert loss(outputs(clean, samples, front), outputs(clean, samples, front))[0] > 0


def test_it_trains_the_convolutions(tiny_student, teacher_directory, batch):
    """Fails if what the student hears, or its convolutions, did not reach the head."""
    speech, lengths = batch[0][:2], batch[1][:2]
    channels = tiny_student.config.conv_dim[-1]
    conf = {"channels": channels, "width": 4, "layers": 1, "criterion": "mrstft"}
    losses = [{"name": "enhancement", "weight": 2.0, "conf": conf}]
    teacher = build_teacher(str(teacher_directory))
    model = StarDistillation(tiny_student, teacher, losses, view="noisy")
    loss, stats, _ = model(speech, lengths)
    loss.backward()
    assert torch.allclose(loss, 2 * stats["enhancement"])
    first = tiny_student.feature_extractor.conv_layers[0].conv.weight
    assert first.grad.abs().max() > 0
    wrong = [{"name": "enhancement"}]
    with pytest.raises(StarError, match=rf"have {channels}; give conf: {{channels: {channels}}}"):
        StarDistillation(tiny_student, teacher, wrong, view="noisy")(speech, lengths)


def test_what_cannot_be_is_one_line():
    with pytest.raises(StarError, match="Did you mean 'mrstft'"):
        EnhancementLoss(SHAPE, SHAPE, criterion="mrsftf")
    odd = Shape(layers=1, width=8, hop=400)
    with pytest.raises(StarError, match="a multiple of 10 ms, got 25 ms"):
        EnhancementLoss(odd, Shape(layers=1, width=8, hop=400))
