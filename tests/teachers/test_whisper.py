from pathlib import Path

import pytest
import torch
import transformers
from small_checkpoints import save

from espnet_star.encoders import Want
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher
from espnet_star.teachers.whisper import log_mel

REAL = Path(__file__).parents[3] / "shared" / "teachers" / "whisper-base-encoder"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no Whisper base encoder beside the repository")


def compare_with_library(directory, encoder, bins):
    """30 s, where the library's padding has nothing to pad."""
    speech = 0.1 * torch.randn(1, 480000)
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
    features = extractor(speech[0].numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        theirs = encoder(features.input_features, output_hidden_states=True).hidden_states
    ours = build_teacher(directory).encode(speech, torch.tensor([480000]))
    for a, b in zip(ours.hidden_states, theirs, strict=True):
        assert a.shape[1] == 1499
        torch.testing.assert_close(a, b[:, :1499], atol=1e-4, rtol=1e-4)


def test_log_mel_equals_the_feature_extractor(batch):
    speech, lengths = batch
    speech[2, :2500] *= 1e-6  # below the floor that the utterance's own maximum sets
    extractor = transformers.WhisperFeatureExtractor()
    filters = torch.from_numpy(extractor.mel_filters).float()
    ours, ours_lengths = log_mel(speech, lengths, filters, torch.hann_window(400))
    for row, size in enumerate(lengths.tolist()):
        theirs = extractor(
            speech[row, :size].numpy(), sampling_rate=16000, padding=False, return_tensors="pt"
        ).input_features[0]
        n = size // 160
        assert theirs.shape == (80, n) and ours_lengths[row] == n
        torch.testing.assert_close(ours[row, :, :n], theirs, atol=1e-4, rtol=1e-4)
        assert (ours[row, :, n:] == 0).all()


def test_equals_transformers_on_30_seconds(whisper_model, whisper_directory):
    compare_with_library(whisper_directory, whisper_model.encoder, 20)


@real
def test_real_whisper_equals_transformers_on_30_seconds():
    encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder
    compare_with_library(REAL, encoder.from_pretrained(REAL, dtype=torch.float32).eval(), 80)


@pytest.mark.parametrize("attentions", [False, True])
def test_an_utterance_gets_the_same_in_a_batch_as_alone(attentions, whisper_directory, batch):
    check_batch(build_teacher(whisper_directory), batch, attentions)


@real
def test_real_whisper_in_a_batch_as_alone(batch):
    """Padding that leaks moves states by 1e-2 and more. Its sharp attention amplifies float32's
    rounding, in a residual stream that reaches 22, to 1e-4 and more, by processor."""
    speech, lengths = batch
    check_batch(build_teacher(REAL), (0.1 * speech, lengths), attentions=False, atol=1e-3)


def check_batch(teacher, batch, attentions, atol=1e-4):
    speech, lengths = batch
    together = teacher.encode(speech, lengths, Want(attentions=attentions))
    assert together.hidden_states[0].shape[1] == frame_count(torch.tensor(speech.shape[1]))
    assert torch.equal(together.lengths, frame_count(lengths))
    for row, size in enumerate(lengths.tolist()):
        alone = teacher.encode(
            speech[row : row + 1, :size], lengths[row : row + 1], Want(attentions=attentions)
        )
        n = int(together.lengths[row])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            assert b.shape[1] == n
            torch.testing.assert_close(a[row, :n], b[0], atol=atol, rtol=1e-4)
        for a, b in zip(together.attentions or (), alone.attentions or (), strict=True):
            torch.testing.assert_close(a[row, :, :n, :n], b[0], atol=1e-4, rtol=1e-4)
            assert (a[row, :, :n, n:] == 0).all()
            torch.testing.assert_close(a[row, :, :n].sum(-1), torch.ones(a.shape[1], n))


def test_attention_maps_leave_the_states_alone(whisper_directory, batch):
    teacher = build_teacher(whisper_directory)
    plain = teacher.encode(*batch)
    eager = teacher.encode(*batch, Want(attentions=True))
    mask = plain.mask()
    for a, b in zip(eager.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=1e-5)
    assert [maps.shape for maps in eager.attentions] == [(6, 2, 39, 39)] * 2
    assert teacher.encode(*batch).attentions is None


@pytest.mark.parametrize("head", ["WhisperModel", "WhisperForConditionalGeneration"])
def test_full_checkpoint(head, whisper_model, whisper_directory, tmp_path, batch):
    model = getattr(transformers, head)(whisper_model.config)
    (model if head == "WhisperModel" else model.model).load_state_dict(whisper_model.state_dict())
    save(model, tmp_path)
    teacher = build_teacher(tmp_path)
    expected = build_teacher(whisper_directory).encode(*batch)
    assert torch.equal(teacher.encode(*batch).hidden_states[-1], expected.hidden_states[-1])
    assert not any("decoder" in name for name, _ in teacher.named_parameters())


def test_frozen_in_eval_mode(whisper_directory, batch):
    teacher = build_teacher(whisper_directory)
    teacher.train()
    assert (teacher.shape.layers, teacher.shape.width, teacher.shape.pre_norm) == (2, 16, True)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    first, second = teacher.encode(*batch), teacher.encode(*batch)
    assert torch.equal(first.hidden_states[-1], second.hidden_states[-1])


@pytest.mark.parametrize("wrong", [False, True])
def test_bfloat16(whisper_directory, batch, wrong, monkeypatch):
    """Without a grouped convolution; a wrong linear map is found as well."""
    exact = build_teacher(whisper_directory).encode(*batch)
    linear = torch.nn.functional.linear

    def wrong_linear(x, weight, *args):
        out = linear(x, weight, *args)
        return out.flip(-1) if out.dtype == torch.bfloat16 and len(weight) == 32 else out

    if wrong:
        monkeypatch.setattr(torch.nn.functional, "linear", wrong_linear)
    teacher = build_teacher(whisper_directory, dtype="bfloat16")
    rough = teacher.encode(*batch, Want(attentions=True))
    assert not wrong or teacher.dtype == torch.float32
    mask = exact.mask()
    for a, b in zip(rough.hidden_states, exact.hidden_states, strict=True):
        assert a.dtype == torch.float32
        assert (a - b)[mask].norm() < 0.05 * b[mask].norm()


def test_longer_than_30_seconds(whisper_directory):
    teacher = build_teacher(whisper_directory)
    with pytest.raises(ValueError, match=r"at most 30 s \(480000 samples\), got 30\.01 s; split"):
        teacher.encode(torch.zeros(1, 480160), torch.tensor([480160]))
    # Padding beyond the limit is no utterance.
    out = teacher.encode(torch.randn(1, 480640), torch.tensor([800]))
    assert out.hidden_states[0].shape[1] == 1501 and out.lengths.tolist() == [2]
