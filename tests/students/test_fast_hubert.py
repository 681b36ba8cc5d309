"""The filterbank front, against values of the authors' code and Kaldi's own."""

import json

import numpy as np
import pytest
import torch

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.formats.fairseq.layout import fairseq_name
from espnet_star.students import FastHubert
from espnet_star.students.fbank import Fbank, fbank_statistics


@pytest.fixture
def authors(reference):
    """A student with the reference's weights, its values, and its final projections."""
    content = np.load(reference("fasthubert.npz"))
    values = {key: torch.from_numpy(content[key]) for key in content.files if key != "config"}
    config = json.loads(str(content["config"]))
    kernels = [int(kernel) for kernel in config["conv_kernel_sizes"].split(",")]
    student = FastHubert(
        mel_bins=len(values["cmvn_mean"]),
        conv_dim=[config["conv_channels"] // 2, config["fbank_encoder_dim"]],
        conv_kernel=kernels,
        hidden_size=config["encoder_embed_dim"],
        intermediate_size=config["encoder_ffn_embed_dim"],
        num_attention_heads=config["encoder_attention_heads"],
        num_hidden_layers=config["encoder_layers"],
        num_conv_pos_embeddings=config["conv_pos"],
        num_conv_pos_embedding_groups=config["conv_pos_groups"],
        identity_projection=False,
    ).eval()
    state = {}
    for name in student.state_dict():
        theirs = fairseq_name(name, "group").replace("feature_extractor.", "subsample.")
        theirs = {"masked_spec_embed": "mask_emb"}.get(theirs, theirs)
        key = f"weight/{theirs}"
        state[name] = values[key if key in values else theirs.removeprefix("subsample.")]
    student.load_state_dict(state)
    speech = torch.stack([values["wave0"], values["wave1"]])
    return student, values, config, (speech, torch.tensor([speech.shape[1]] * 2))


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_every_part_is_the_authors(authors):
    """Fails if a window, a band, a gate, a norm or a frame is another one."""
    student, values, _, batch = authors
    for index, wave in enumerate(batch[0]):
        # Energies are logarithms of sums of squares: of quiet bands, float32 keeps four digits.
        close(student.feature_extractor.fbank(wave[None])[0], values[f"fbank{index}"], atol=2e-3)
    frames, lengths = student.feature_extractor(*batch)
    assert lengths.tolist() == student.shape.frames(batch[1]).tolist()
    close(frames, values["subsampled"], atol=2e-5)
    close(student.feature_projection.layer_norm(frames), values["layer_norm"], atol=5e-5)
    close(student.encode(*batch).hidden_states[-1], values["features_only_x"])


def test_masked_frames(authors):
    """Fails if the mask vector stands elsewhere: what the authors predict at masked frames."""
    student, values, config, batch = authors
    states = student.encode(*batch, Want(mask=values["mask"])).hidden_states
    for index, layer in enumerate(json.loads(config["predict_layers"])):
        weight = values[f"weight/final_proj.{index}.weight"]
        bias = values[f"weight/final_proj.{index}.bias"]
        logits = (states[layer + 1] @ weight.T + bias) / config["logit_temp"]
        close(logits[values["mask"]], values[f"logits_masked_{index}"], atol=2e-4)
        close(logits[~values["mask"]], values[f"logits_unmasked_{index}"], atol=2e-4)


def test_filterbank_is_kaldis():
    """Fails on real recordings: silence, clipping, an offset."""
    kaldi = pytest.importorskip("torchaudio").compliance.kaldi
    wave = torch.randn(9000)
    for speech in (wave.clamp(-1, 1) * 0.99, torch.zeros(9000), 0.5 + 1e-4 * wave):
        expected = kaldi.fbank(
            speech[None] * 2**15, window_type="povey", num_mel_bins=40, dither=0.0
        )
        close(Fbank(40)(speech[None])[0], expected, atol=2e-3)


def test_statistics_normalize_what_they_were_taken_of(tmp_path):
    """Fails if the file is read the other way round, or its numbers are lost when saved."""
    waves = [torch.randn(3000), 0.1 * torch.randn(8000), torch.randn(100)]
    mean, std = fbank_statistics(waves, 20)
    np.savez(tmp_path / "cmvn.npz", mean=mean, std=std)
    options = dict(
        conv_dim=[8, 12],
        mel_bins=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    student = FastHubert(**options, cmvn=str(tmp_path / "cmvn.npz"))
    front = student.feature_extractor
    frames = torch.cat([front.fbank(wave[None])[0] for wave in waves[:2]])
    normal = (frames - front.cmvn_mean) / front.cmvn_std
    close(normal.mean(dim=0), torch.zeros(20), atol=1e-3)
    close(normal.std(dim=0, correction=0), torch.ones(20), atol=1e-3)
    assert "cmvn" not in student.options()
    student.save_pretrained(tmp_path / "student")
    saved = FastHubert.from_pretrained(tmp_path / "student").feature_extractor
    assert torch.equal(saved.cmvn_mean, mean) and torch.equal(saved.cmvn_std, std)
    for change, message in (
        ({"mean": mean[1:], "std": std}, r"finite; got shape \(19,\)"),
        ({"mean": mean, "std": 0 * std}, "std must be above 0"),
        ({"mean": mean}, "expected an .npz with mean and std"),
    ):
        np.savez(tmp_path / "cmvn.npz", **change)
        with pytest.raises(StarError, match=message):
            FastHubert(**options, cmvn=str(tmp_path / "cmvn.npz"))
