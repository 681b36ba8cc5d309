"""Masked frames are the vector that pre-training put there, at the same place."""

import sys

import pytest
import torch
import transformers
from fairseq_checkpoints import forget_fairseq, write_checkpoint
from safetensors.torch import load_file, save_file
from small_checkpoints import FAMILIES

from espnet_star.encoders import Cached, Want
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count, valid_mask
from espnet_star.teachers import build_teacher

MASK = torch.zeros(1, 27, dtype=torch.bool)
MASK[0, 3:11] = MASK[0, 20] = True


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers_and_the_front_runs_once(family, checkpoint):
    """Fails if another vector or place was taken, or the second pass paid for convolutions."""
    teacher, speech = build_teacher(checkpoint(family)), torch.randn(1, 9000)
    model = transformers.AutoModel.from_pretrained(checkpoint(family)).eval()
    model.config.apply_spec_augment, model.adapter = True, None
    with torch.no_grad():
        out = model(speech, mask_time_indices=MASK, output_hidden_states=True)
    calls = []
    teacher.model.feature_extractor.register_forward_hook(lambda *_: calls.append(1))
    lengths, wants = torch.tensor([9000]), [Want(), Want(mask=MASK)]
    plain, masked = teacher.encode_all(speech, lengths, wants)
    assert len(calls) == 1
    assert_same(masked.hidden_states, (*out.hidden_states[:-1], out.last_hidden_state))
    for want, found in zip(wants, (plain, masked), strict=True):
        again = teacher.encode(speech, lengths, want)
        assert all(map(torch.equal, again.hidden_states, found.hidden_states))
    other = teacher.encode(0.5 * speech.flip(1), lengths)  # nothing is left of the first batch
    assert not torch.equal(other.hidden_states[1], plain.hidden_states[1])


def test_a_checkpoint_without_the_vector_takes_no_masks(checkpoint, tmp_path):
    """Fails if random numbers were taken for it: another teacher in every run."""
    transformers.AutoModel.from_pretrained(checkpoint("hubert")).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    teacher = build_teacher(tmp_path, do_normalize=False)
    assert teacher.fingerprint() == build_teacher(tmp_path, do_normalize=False).fingerprint()
    with pytest.raises(StarError, match="has no vector for masked frames; choose a view without"):
        teacher.encode(torch.randn(1, 9000), torch.tensor([9000]), Want(mask=MASK))


def test_masks_and_padding(checkpoint, batch, tmp_path):
    """Fails if a masked utterance depended on its batch, or a cache kept what is masked."""
    speech, lengths = batch
    teacher = build_teacher(checkpoint("hubert"))
    frames = frame_count(lengths)
    mask = torch.rand(len(lengths), int(frame_count(torch.tensor(speech.shape[1])))) < 0.5
    mask &= valid_mask(frames, mask.shape[1])
    wants = [Want(), Want(mask=mask)]
    plain, masked = teacher.encode_all(speech, lengths, wants)
    cache = Cached(teacher, tmp_path / "cache")
    for _ in range(2):
        kept, fresh = cache.encode_all(speech, lengths, wants)
        assert torch.equal(fresh.hidden_states[2], masked.hidden_states[2])
        valid = kept.mask()
        near = plain.state(2)[:, : valid.shape[1]][valid]
        torch.testing.assert_close(kept.state(2)[valid], near, atol=1e-2, rtol=1e-2)
    assert len(list(cache.root.rglob("*.npy"))) == len(lengths)
    for row, (size, n) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        want = Want(mask=mask[row : row + 1, :n])
        alone = teacher.encode(speech[row : row + 1, :size], lengths[row : row + 1], want)
        torch.testing.assert_close(
            masked.state(3)[row, :n], alone.state(3)[0], atol=1e-4, rtol=1e-4
        )
    with pytest.raises(StarError, match=r"a mask must have shape \(6, 39\) \(utterances, frames"):
        teacher.encode(speech, lengths, Want(mask=mask[:, 1:]))


@pytest.mark.parametrize("case", ["hubert", "wav2vec2", "wavlm"])
def test_fairseqs_vector_is_found(case, tmp_path, monkeypatch):
    path, model, _ = write_checkpoint(case, tmp_path)
    speech = 0.01 * torch.randn(1, 9000)
    module = sys.modules[type(model).__module__]
    monkeypatch.setattr(module, "compute_mask_indices", lambda *_, **__: MASK.numpy())
    with torch.no_grad():
        padding = torch.zeros(speech.shape, dtype=torch.bool)
        out = model.extract_features(speech, padding_mask=padding, mask=True)
    last = out["x"] if isinstance(out, dict) else out[0]
    teacher = build_teacher(str(path))
    ours = teacher.encode(speech, torch.tensor([9000]), Want(mask=MASK)).hidden_states[-1]
    assert_same([ours], [last])
    forget_fairseq()
