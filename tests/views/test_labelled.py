"""Labels of frames at the student's rate, masked or not."""

import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.views import VIEWS

FULL = Shape(layers=2, width=4)
FBANK = Shape(layers=2, width=4, hop=640)  # 40 ms, as Fast-HuBERT has it
HALF = Shape(layers=2, width=4, hop=640, field=720)


def batch(off=0):
    lengths = torch.tensor([8000, 8000 - 640 + 1])
    counts = FULL.frames(lengths) + off
    labels = torch.full((2, int(counts.max())), -1)
    for row, count in enumerate(counts.tolist()):
        labels[row, :count] = torch.arange(100 * row, 100 * row + count)
    return {
        "speech": torch.randn(2, 8000),
        "speech_lengths": lengths,
        "labels": labels,
        "labels_lengths": counts,
    }


@pytest.mark.parametrize("shape", [FULL, FBANK, HALF])
@pytest.mark.parametrize("off", [-2, 0, 2])
def test_a_frame_has_the_label_of_its_time(shape, off):
    """Fails if labels slid against frames, or padding had some."""
    passes = VIEWS.build("labelled", {"mask_prob": 0}, shape, FULL)(**batch(off))
    labels, lengths = passes["student"].labels, shape.frames(batch()["speech_lengths"])
    assert passes["student"].mask is None and passes["teacher"].labels is None
    assert labels.shape == (2, shape.frames_of(8000))
    step = shape.hop // FULL.hop
    counts = FULL.frames(batch()["speech_lengths"]) + off
    for row, frames in enumerate(lengths.tolist()):
        expected = [
            100 * row + step * f if f < frames and step * f < counts[row] else -1
            for f in range(labels.shape[1])
        ]
        assert labels[row].tolist() == expected


def test_masks_and_mixtures_come_with_labels():
    """Fails if HuBERT's validation had no masked frame, or UniSpeech-SAT could not mix."""
    view = VIEWS.build("labelled", {"mixing": {"mixing_prob": 1.0}}, FULL, FULL)
    given = batch()
    for training in (True, False):
        passes = view.train(training)(**given)
        assert passes["student"].mask.any() and passes["teacher"].mask is None
        assert torch.equal(passes["teacher_masked"].mask, passes["student"].mask)
        assert not torch.equal(passes["student"].speech, given["speech"])
        assert passes["teacher"].speech is given["speech"]
    assert VIEWS.build("labelled", {"mask_prob": 0}, FULL, FULL).masked == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "the batch has no labels; give a data file named labels"),
        ({"labels": torch.randn(2, 24)}, "torch.float32 of shape (2, 24); give the data file as"),
        (batch(-3), "utterance b: 18 labels for 22 frames at 50 a second (7361 samples)"),
        (batch(3), "utterance a: 27 labels for 24 frames"),
    ],
)
def test_labels_of_something_else_are_one_line(change, message):
    given = {**batch(), **change, "utt_id": ["a", "b"]}
    if message.startswith("utterance b"):
        given["labels_lengths"] = torch.tensor([24, 18])
    with pytest.raises(StarError) as caught:
        VIEWS.build("labelled", {}, FULL, FULL)(**given)
    assert message in str(caught.value)
