"""Utterance mixing, against the values and draws of its authors' code."""

import json

import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.views import VIEWS

SHAPE = Shape(layers=2, width=4)


class Recorded:
    """Draws as they were recorded, in their order."""

    def __init__(self, draws):
        self.draws = draws

    def next(self, kind, *asked):
        name, *values = self.draws.pop(0)
        assert name == kind and values[: len(asked)] == list(asked)
        return values[len(asked) :]

    def random(self):
        return self.next("random")[0]

    def choice(self, _many, _size):
        return np.array(self.next("choice"))

    def integers(self, low, high):
        return self.next("randint", low, high)[0]

    def uniform(self, low, high):
        return self.next("uniform", low, high)[0]


def test_mixtures_are_those_of_the_authors(reference):
    """Fails if a draw, a power or the order of utterances were another."""
    file = np.load(reference("unispeech_sat.npz"))
    names = sorted(key.removesuffix("_in") for key in file.files if key.endswith("_in"))
    assert names
    for name in (name for name in names if name.startswith("mix")):
        given = json.loads(str(file[f"{name}_params"]))
        if given["mixing_max_len"] == -1:
            given["mixing_max_len"] = 2
        view = VIEWS.build("mixed", given, SHAPE, SHAPE)
        draws = Recorded(json.loads(str(file[f"{name}_draws"])))
        speech = torch.from_numpy(file[f"{name}_in"])
        lengths = torch.full((len(speech),), speech.shape[1])
        out = view.mix(speech.clone(), lengths, draws)
        assert not draws.draws
        torch.testing.assert_close(out, torch.from_numpy(file[f"{name}_out"]), atol=3e-6, rtol=1e-5)


def test_pieces_stay_within_utterances_and_silence_adds_nothing():
    """Fails if padding was mixed in or heard, or a silent utterance gave NaN."""
    lengths = torch.tensor([4000, 1500, 800, 400])
    speech = torch.randn(4, 4000)
    speech[2] = 0
    valid = torch.arange(4000) < lengths[:, None]
    speech[~valid] = float("nan")
    view = VIEWS.build("mixed", {"mixing_prob": 1.0, "mixing_num": 3}, SHAPE, SHAPE)
    heard = view(speech, lengths)
    assert heard["teacher"].speech is speech
    mixture = heard["student"].speech
    assert mixture[valid].isfinite().all() and mixture[~valid].isnan().all()
    assert not mixture[2, :800].any()  # against a silent target everything is scaled to nothing
    assert not torch.equal(mixture[0], speech[0])
    both = VIEWS.build("mixed", {"teacher_hears": "mixture"}, SHAPE, SHAPE)(speech, lengths)
    assert both["teacher"] is both["student"]


def test_draws_follow_the_run():
    speech, lengths = torch.randn(4, 2000), torch.full((4,), 2000)
    view = VIEWS.build("mixed", {"mixing_prob": 1.0}, SHAPE, SHAPE)
    torch.manual_seed(3)
    first = view(speech, lengths)["student"].speech
    torch.manual_seed(3)
    assert torch.equal(view(speech, lengths)["student"].speech, first)
    view.eval()
    assert torch.equal(*(view(speech, lengths)["student"].speech for _ in range(2)))


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"mixing_prob": 2}, "mixing_prob must lie between 0 and 1, got 2"),
        ({"snr_low": 7}, "snr_low 7 is above snr_high 5.0"),
        ({"teacher_hears": "mixtrue"}, "Did you mean 'mixture'?"),
        ({"mixing_num": 0}, "must be 1 at least, got 0 and 2"),
    ],
)
def test_an_option_out_of_range_is_one_line(conf, message):
    with pytest.raises(StarError) as caught:
        VIEWS.build("mixed", conf, SHAPE, SHAPE)
    assert message in str(caught.value)
