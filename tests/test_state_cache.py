import logging

import pytest
import torch

from espnet_star.outputs import LayerOutputs
from espnet_star.state_cache import StateCache, weights_fingerprint


class Counting:
    """An encoder that notes which utterances it was asked for."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.lengths = []

    def __call__(self, speech, lengths):
        self.lengths.append(lengths.tolist())
        with torch.no_grad():
            return self.encoder.layer_outputs(speech, lengths)


@pytest.fixture
def encode(tiny_student):
    return Counting(tiny_student)


@pytest.fixture
def cache(tmp_path):
    return StateCache(tmp_path / "cache", "abc")


def files(cache):
    return sorted(cache.directory.rglob("*.npy"))


def assert_same(one, other):
    """Equal on valid frames, within float16."""
    assert one.lengths.tolist() == other.lengths.tolist()
    assert one.num_layers == other.num_layers
    mask, other_mask = one.mask(), other.mask()
    for left, right in zip(one.hidden_states, other.hidden_states, strict=True):
        assert left.dtype == torch.float32
        torch.testing.assert_close(left[mask], right[other_mask], rtol=1e-3, atol=1e-4)


def test_second_reading_computes_nothing(cache, encode, batch):
    """Fails if later epochs would pay for the teacher again, or get other states."""
    fresh = encode(*batch)
    encode.lengths.clear()
    first, second = cache(encode, *batch), cache(encode, *batch)
    assert encode.lengths == [batch[1].tolist()]
    assert_same(first, fresh)
    for one, other in zip(first.hidden_states, second.hidden_states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not list(cache.directory.rglob("tmp*"))


def test_only_the_new_utterances_are_computed(cache, encode, batch):
    """Fails if another batch order, or rubbish in padding, makes an utterance new."""
    speech, lengths = batch
    cache(encode, speech[:3], lengths[:3])
    encode.lengths.clear()
    order = torch.tensor([4, 2, 5, 0])
    speech[2, 3000:] = 9.0
    found = cache(encode, speech[order], lengths[order])
    assert encode.lengths == [[719, 400]]
    assert_same(found, encode(speech[order], lengths[order]))


def test_a_truncated_file_is_computed_anew(cache, encode, batch, caplog):
    """Fails if a kill while writing, or a full disk, would poison every later run."""
    expected = cache(encode, *batch)
    encode.lengths.clear()
    for keep, path in zip((0, 30, 200), files(cache), strict=False):
        path.write_bytes(path.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        assert_same(cache(encode, *batch), expected)
    assert len(encode.lengths[0]) == 3
    assert "computing" in caplog.text
    cache(encode, *batch)
    assert len(encode.lengths) == 1


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, encode, batch, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = StateCache(tmp_path / "file", "abc")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(cache(encode, *batch), encode(*batch))
    assert len(caplog.records) == 1
    assert "going on without writing" in caplog.text


def test_huge_states_are_clamped_not_infinite(cache):
    """Fails on pre-norm teachers, whose residual stream may pass float16's range."""

    def encode(speech, lengths):
        return LayerOutputs((torch.full((1, 2, 3), 1e6),) * 2, torch.tensor([2]))

    outputs = cache(encode, torch.ones(1, 720), torch.tensor([720]))
    assert torch.isfinite(outputs.hidden_states[0]).all()


def test_fingerprint_names_the_exact_weights(tiny_student):
    """Fails if a cache could serve the states of another teacher."""
    first = weights_fingerprint(tiny_student)
    assert weights_fingerprint(tiny_student) == first
    assert weights_fingerprint(tiny_student, "other options") != first
    assert weights_fingerprint(tiny_student.bfloat16()) != first
    with torch.no_grad():
        tiny_student.float().encoder.layer_norm.bias[0] += 1e-3
    assert weights_fingerprint(tiny_student) != first
