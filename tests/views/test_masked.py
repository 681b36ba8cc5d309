"""What is masked: as much as the authors', at both frame rates, the same after a resume."""

import numpy as np
import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.outputs import valid_mask
from espnet_star.views import VIEWS
from espnet_star.views.spans import SpanMask

SHAPE = Shape(layers=2, width=4)
ARM = dict(mask_selection="uniform", no_mask_overlap=True)


# Means that the authors' code gave, over many draws.
@pytest.mark.parametrize(
    ("conf", "frames", "share"),
    [
        ({**ARM}, [300], 0.77),
        ({**ARM}, [800] * 4, 0.74),
        ({**ARM}, [800] * 18, 0.68),
        ({**ARM, "mask_prob": 0.4}, [300], 0.40),
        ({**ARM, "mask_prob": 0.4}, [800] * 4, 0.36),
        ({**ARM, "mask_prob": 0.4}, [800] * 18, 0.32),
        ({}, [800] * 4, 0.54),
    ],
)
def test_as_much_is_masked_as_by_the_authors(conf, frames, share):
    """Fails if spans were longer, overlapped, or every utterance kept its own count."""
    chance = np.random.default_rng(0)
    masks = [SpanMask(**conf).draw(frames, chance) for _ in range(2000 // len(frames) ** 2 + 20)]
    assert np.mean(masks) == pytest.approx(share, abs=0.02)
    assert len({int(row.sum()) for row in masks[0]}) == 1


def test_spans_do_not_touch_and_padding_is_free():
    spans = SpanMask(mask_length=3, no_mask_overlap=True, mask_min_space=2, same_count=False)
    (mask,) = spans.draw([400], np.random.default_rng(1))
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    assert set(edges[1::2] - edges[::2]) == {3}
    assert (edges[2::2] - edges[1:-1:2]).min() >= 2
    masks = [SpanMask().draw([80, 50], np.random.default_rng(seed)) for seed in range(50)]
    share = np.mean(masks, axis=0)
    assert not share[1, 50:].any() and share[1, :49].min() > 0 and share[0, :79].min() > 0


@pytest.mark.parametrize("conf", [{}, ARM, {"no_mask_overlap": True, "mask_min_space": 0}])
def test_the_shortest_utterances_have_something_masked_and_something_not(conf):
    """ESPnet's own function ends in a traceback for those shorter than a span."""
    for seed in range(20):
        frames = list(range(1, 30))
        mask = SpanMask(same_count=False, **conf).draw(frames, np.random.default_rng(seed))
        totals = mask.sum(axis=1)
        assert totals[0] == 0 and (totals[1:] > 0).all() and (totals < frames).all()


def masks_of(view, speech, lengths):
    passes = view(speech, lengths)
    return passes["student"].mask, passes["teacher_masked"].mask, passes["teacher"].mask


def test_both_are_masked_at_the_same_time_at_their_own_rates():
    """Fails if masks of two frame rates drifted apart, or reached into padding."""
    half = Shape(layers=2, width=4, hop=640, field=720)
    speech, lengths = torch.zeros(3, 16000), torch.tensor([16000, 9000, 720])
    slow, fast, none = masks_of(VIEWS.build("masked", {}, half, SHAPE), speech, lengths)
    assert none is None
    assert slow.shape == (3, half.frames_of(16000)) and fast.shape == (3, SHAPE.frames_of(16000))
    assert torch.equal(fast[:, ::2][:, : slow.shape[1]], slow)
    assert torch.equal(fast[:, 1::2][:, : slow.shape[1]], slow)
    assert slow[0].any() and slow[0].sum() == slow[1].sum()
    for shape, mask in ((half, slow), (SHAPE, fast)):
        assert not (mask & ~valid_mask(shape.frames(lengths), mask.shape[1])).any()


def test_draws_follow_the_run_and_validation_draws_nothing():
    """Fails if a resumed run were masked otherwise, or validation moved the random numbers on."""
    speech, lengths = torch.zeros(2, 16000), torch.tensor([16000, 9000])
    view = VIEWS.build("masked", ARM, SHAPE, SHAPE)
    torch.manual_seed(7)
    first, second = view(speech, lengths)["student"].mask, view(speech, lengths)["student"].mask
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(view(speech, lengths)["student"].mask, first)
    state = torch.get_rng_state()
    passes = view.eval()(speech, lengths)
    assert passes["student"].mask is None and passes["teacher"] is passes["teacher_masked"]
    held = VIEWS.build("masked", {"mask_valid": True}, SHAPE, SHAPE).eval()
    assert torch.equal(*(held(speech, lengths)["student"].mask for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"mask_prob": 0}, "mask_prob must lie between 0 and 1, got 0: it would mask nothing"),
        ({"mask_prob": 1.0}, "it would mask everything"),
        ({"mask_length": 0}, "mask_length must be a whole number from 1 on, got 0"),
        ({"min_masks": 1.5}, "min_masks must be a whole number from 0 on, got 1.5"),
        ({"mask_selection": "unifrom"}, "Did you mean 'uniform'?"),
        ({"mask_probability": 0.4}, "mask_prob"),
    ],
)
def test_a_mask_of_nothing_or_all_is_one_line(conf, message):
    with pytest.raises(StarError) as caught:
        VIEWS.build("masked", conf, SHAPE, SHAPE)
    assert message in str(caught.value) and "\n" not in str(caught.value)
