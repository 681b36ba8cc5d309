import logging

import pytest
import torch

from espnet_star.encoders import Cached, Encoder, Shape, Want
from espnet_star.encoders.base import weights_fingerprint
from espnet_star.encoders.frozen import Wrapper
from espnet_star.outputs import LayerOutputs


class Counting(Wrapper):
    """An encoder that notes which utterances it was asked for."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.lengths = []

    def extract(self, speech, lengths, sizes, want):
        self.lengths.append(sizes)
        return super().extract(speech, lengths, sizes, want)


@pytest.fixture
def encoder(tiny_student):
    return Counting(tiny_student)


@pytest.fixture
def cache(encoder, tmp_path):
    return Cached(encoder, tmp_path / "cache")


def files(cache):
    return sorted(cache.root.rglob("*.npy"))


def assert_same(one, other):
    """Equal on valid frames, within float16."""
    assert one.lengths.tolist() == other.lengths.tolist()
    assert one.num_layers == other.num_layers
    mask, other_mask = one.mask(), other.mask()
    for left, right in zip(one.hidden_states, other.hidden_states, strict=True):
        assert left.dtype == torch.float32
        torch.testing.assert_close(left[mask], right[other_mask], rtol=1e-3, atol=1e-4)


def test_second_reading_computes_nothing(cache, encoder, batch):
    """Fails if later epochs would pay for the teacher again, or get other states."""
    fresh = encoder.encode(*batch)
    encoder.lengths.clear()
    first, second = cache.encode(*batch), cache.encode(*batch)
    assert encoder.lengths == [batch[1].tolist()]
    assert_same(first, fresh)
    for one, other in zip(first.hidden_states, second.hidden_states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not list(cache.root.rglob("tmp*"))


def test_only_the_new_utterances_are_computed(cache, encoder, batch):
    """Fails if another batch order, or rubbish in padding, makes an utterance new."""
    speech, lengths = batch
    cache.encode(speech[:3], lengths[:3])
    encoder.lengths.clear()
    order = torch.tensor([4, 2, 5, 0])
    speech[2, 3000:] = 9.0
    found = cache.encode(speech[order], lengths[order])
    assert encoder.lengths == [[719, 400]]
    assert_same(found, encoder.encode(speech[order], lengths[order]))


def test_a_truncated_file_is_computed_anew(cache, encoder, batch, caplog):
    """Fails if a kill while writing, or a full disk, would poison every later run."""
    expected = cache.encode(*batch)
    encoder.lengths.clear()
    for keep, path in zip((0, 30, 200), files(cache), strict=False):
        path.write_bytes(path.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        assert_same(cache.encode(*batch), expected)
    assert len(encoder.lengths[0]) == 3
    assert "computing" in caplog.text
    cache.encode(*batch)
    assert len(encoder.lengths) == 1


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, encoder, batch, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = Cached(encoder, tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(cache.encode(*batch), encoder.encode(*batch))
    assert len(caplog.records) == 1
    assert "going on without writing" in caplog.text


class Huge(Encoder):
    shape = Shape(layers=1, width=3)

    def extract(self, speech, lengths, sizes, want):
        return LayerOutputs((torch.full((1, 2, 3), 1e6),) * 2, torch.tensor([2]))


def test_huge_states_are_clamped_not_infinite(tmp_path):
    """Fails on pre-norm teachers, whose residual stream may pass float16's range."""
    cache = Cached(Huge(), tmp_path)
    outputs = cache.encode(torch.ones(1, 720), torch.tensor([720]))
    assert torch.isfinite(outputs.hidden_states[0]).all()


def test_only_the_states_that_are_wanted_are_kept(cache, encoder, batch):
    """Fails if a deep teacher's cache held layers that nobody reads, or gave one for another."""
    want = Want(states=frozenset({0, 2}))
    for _ in range(2):
        found = cache.encode(*batch, want)
    assert len(encoder.lengths) == 1 and len(found.hidden_states) == 2
    full = encoder.encode(*batch)
    mask = full.mask()
    for layer in (0, 2):
        kept = found.state(layer)
        torch.testing.assert_close(
            kept[found.mask()], full.state(layer)[mask], rtol=1e-3, atol=1e-4
        )
    assert cache.encode(*batch).num_layers == 2


def test_inner_states_are_kept_and_not_mistaken(cache, encoder, batch):
    """Fails if a cached state comes back under another's name."""
    names = frozenset({"projection", "feed_forward.2", "feed_forward.1"})
    found = cache.encode(*batch, Want(inner=names))
    wants = (Want(frozenset({0}), inner=names - {"projection"}), Want(inner=names), Want())
    runs = [cache.encode(*batch, want) for want in wants]
    full = encoder.encode(*batch, Want(inner=names))
    for outputs in (found, *runs):
        for layer in (0, *outputs.inner):
            torch.testing.assert_close(
                outputs.state(layer)[outputs.mask()],
                full.state(layer)[full.mask()],
                rtol=1e-3,
                atol=1e-4,
            )
    assert [len(outputs.inner) for outputs in runs] == [2, 3, 0]
    assert len(encoder.lengths) == 4  # Want(inner=names) was kept; full was computed


def test_fingerprint_names_the_exact_weights(tiny_student):
    """Fails if a cache could serve the states of another teacher."""
    first = weights_fingerprint(tiny_student)
    assert weights_fingerprint(tiny_student) == first
    assert weights_fingerprint(tiny_student, "other options") != first
    assert weights_fingerprint(tiny_student.bfloat16()) != first
    with torch.no_grad():
        tiny_student.float().encoder.layer_norm.bias[0] += 1e-3
    assert weights_fingerprint(tiny_student) != first
