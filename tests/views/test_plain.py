import numpy as np
import torch

from espnet_star.encoders import Shape
from espnet_star.views import VIEWS

SHAPE = Shape(layers=2, width=4)


def test_both_hear_the_same(batch):
    passes = VIEWS.build("plain", {}, SHAPE, SHAPE)(*batch, utt_id=["a"])
    assert list(passes) == ["teacher", "student"]  # its states go first
    for given in passes.values():
        assert given.speech is batch[0] and given.lengths is batch[1]
        assert given.mask is None and given.labels is None


def test_a_loader_brings_labels_and_a_second_waveform():
    """Fails if labels were padded with a label, or lengths were lost on the way."""
    waves = [np.ones(400, dtype=np.float32), np.ones(800, dtype=np.float32)]
    data = [
        (f"u{i}", {"speech": wave, "speech2": wave, "labels": np.arange(i + 1)})
        for i, wave in enumerate(waves)
    ]
    _, made = VIEWS["plain"].collate_fn(train=True)(data)
    assert made["labels"].tolist() == [[0, -1], [0, 1]]
    assert made["labels_lengths"].tolist() == [1, 2]
    assert torch.equal(made["speech2_lengths"], made["speech_lengths"])
