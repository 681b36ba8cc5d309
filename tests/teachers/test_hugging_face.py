import copy
import logging

import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, save

from espnet_star import kernels
from espnet_star.encoders import Want
from espnet_star.kernels.predicate import FORMS, Where
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher, padding
from espnet_star.teachers.padding import prepare_waveform

every_family = pytest.mark.parametrize("family", FAMILIES)


def library(directory, **kwargs):
    config = transformers.AutoConfig.from_pretrained(directory)
    config.add_adapter = False
    return transformers.AutoModel.from_pretrained(directory, config=config, **kwargs).eval()


@every_family
def test_hidden_states_are_those_of_transformers(family, checkpoint):
    directory = checkpoint(family)
    speech = torch.randn(1, 9000)
    teacher = build_teacher(directory)
    ours = teacher.encode(speech, torch.tensor([9000]))
    with torch.no_grad():
        outputs = library(directory)(speech, output_hidden_states=True)
    # Whether the last one has passed the final norm depends on Transformers' version.
    theirs = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
    assert ours.num_layers == teacher.shape.layers == 3
    assert ours.attentions is None
    assert teacher.shape.pre_norm is ("pre-norm" in family)
    for a, b in zip(ours.hidden_states, theirs, strict=True):
        assert a.shape == (1, 27, teacher.shape.width)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@every_family
@pytest.mark.parametrize(("do_normalize", "attentions"), [(False, True), (True, False)])
def test_an_utterance_gets_the_same_in_a_batch_as_alone(
    family, do_normalize, attentions, checkpoint, batch
):
    teacher = build_teacher(checkpoint(family), do_normalize=do_normalize)
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
            torch.testing.assert_close(a[row, :n], b[0], atol=1e-4, rtol=1e-4)
        for a, b in zip(together.attentions or (), alone.attentions or (), strict=True):
            torch.testing.assert_close(a[row, :, :n, :n], b[0], atol=1e-4, rtol=1e-4)
            assert (a[row, :, :n, n:] == 0).all()


def test_batch_of_one_is_a_real_test(checkpoint, batch):
    """The library itself lets the batch in, so the test above can fail."""
    speech, lengths = batch
    speech = speech * (torch.arange(speech.shape[1]) < lengths[:, None])
    model = library(checkpoint("hubert"))
    with torch.no_grad():
        together = model(speech).last_hidden_state[2, :15]
        alone = model(speech[2:3, :5000]).last_hidden_state[0]
    assert (together - alone).abs().max() > 1e-2


@every_family
def test_attention_maps_are_those_of_eager_attention(family, checkpoint):
    directory = checkpoint(family)
    speech = torch.randn(2, 8000)
    teacher = build_teacher(directory)
    plain = teacher.encode(speech, torch.tensor([8000, 8000]))
    ours = teacher.encode(speech, torch.tensor([8000, 8000]), Want(attentions=True))
    with torch.no_grad():
        model = library(directory, attn_implementation="eager")
        theirs = model(speech, output_attentions=True).attentions
    for a, b in zip(ours.attentions, theirs, strict=True):
        assert a.shape == (2, 2, 24, 24)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.sum(-1), torch.ones(2, 2, 24))
    for a, b in zip(ours.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    again = teacher.encode(speech, torch.tensor([8000, 8000]))  # back on the fast kernel
    assert again.attentions is None
    assert torch.equal(again.hidden_states[-1], plain.hidden_states[-1])


@every_family
def test_frozen_in_eval_mode(family, checkpoint):
    teacher = build_teacher(checkpoint(family))
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    speech, lengths = torch.randn(1, 5000, requires_grad=True), torch.tensor([5000])
    first = teacher.encode(speech, lengths)
    assert not first.hidden_states[-1].requires_grad
    second = teacher.encode(speech, lengths)  # layer drop and dropout of a half would show
    assert torch.equal(first.hidden_states[-1], second.hidden_states[-1])


def test_input_is_left_alone(checkpoint, batch):
    speech, lengths = batch
    before = speech.clone()
    build_teacher(checkpoint("hubert")).encode(speech, lengths)
    assert torch.equal(speech, before)


def test_normalization_equals_the_feature_extractor(batch):
    speech, lengths = batch
    speech[2] *= 1e-4  # quiet enough for the epsilon to matter
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    waveforms = [w[:n].numpy() for w, n in zip(speech, lengths.tolist(), strict=True)]
    theirs = extractor(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")
    mask = torch.arange(12000) < lengths[:, None]
    ours = prepare_waveform(speech[:, :12000], mask, True)
    torch.testing.assert_close(ours, theirs["input_values"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["hubert", "wavlm-pre-norm"])
def test_do_normalize_is_honored(family, checkpoint, tmp_path, caplog):
    model = library(checkpoint(family))
    speech, lengths = 5 * torch.randn(1, 6000) + 3, torch.tensor([6000])
    extractor = transformers.Wav2Vec2FeatureExtractor()
    normal = extractor(speech[0].numpy(), sampling_rate=16000, return_tensors="pt").input_values
    for do_normalize, waveform in ((True, normal), (False, speech)):
        save(model, tmp_path, do_normalize=do_normalize, sampling_rate=16000)
        teacher = build_teacher(tmp_path)
        with torch.no_grad():
            expected = model(waveform).last_hidden_state
        actual = teacher.encode(speech, lengths).hidden_states[-1]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        assert teacher.do_normalize is do_normalize
    (tmp_path / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert build_teacher(tmp_path).do_normalize is (family != "hubert")
    assert "do_normalize" in caplog.text
    assert build_teacher(tmp_path, do_normalize=True).do_normalize is True


@every_family
def test_bfloat16(family, checkpoint, batch, processor, caplog):
    """Close to float32 on any processor, and float32 itself where bfloat16 is wrong."""
    speech, lengths = batch
    exact = build_teacher(checkpoint(family)).encode(speech, lengths, Want(attentions=True))
    teacher = build_teacher(checkpoint(family), dtype="bfloat16")
    with torch.autocast("cpu", torch.float16):  # the student's training step has no say
        rough = teacher.encode(speech, lengths, Want(attentions=True))
        teacher.encode(speech, lengths, Want(attentions=True))
    said = [r.message for r in caplog.records if "bfloat16 is wrong" in r.message]
    assert len(said) == (teacher.dtype == torch.float32)  # once
    if processor == "faulty processor":
        assert "pos_conv" in said[0] and "24 in 2 groups, kernel" in said[0]
    if teacher.dtype == torch.float32:
        for a, b in zip(rough.hidden_states, exact.hidden_states, strict=True):
            assert torch.equal(a, b)
    mask = exact.mask()
    for a, b in zip(rough.hidden_states, exact.hidden_states, strict=True):
        assert a.dtype == torch.float32
        assert (a - b)[mask].norm() < 0.1 * b[mask].norm()
    assert rough.attentions[0].dtype == torch.float32


def test_float32_under_autocast(checkpoint, batch):
    teacher = build_teacher(checkpoint("hubert"))
    expected = teacher.encode(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        actual = teacher.encode(*batch)
    assert torch.equal(actual.hidden_states[-1], expected.hidden_states[-1])


@pytest.mark.parametrize("head", ["HubertForCTC", "Wav2Vec2ForPreTraining"])
def test_checkpoint_with_a_head(head, tmp_path):
    config = getattr(transformers, head.split("For")[0] + "Config")(
        **SMALL, codevector_dim=8, proj_codevector_dim=8, num_codevectors_per_group=4
    )
    model = getattr(transformers, head)(config).eval()
    save(model, tmp_path, do_normalize=False)
    speech = torch.randn(1, 4000)
    with torch.no_grad():
        expected = model.base_model(speech).last_hidden_state
    actual = build_teacher(tmp_path).encode(speech, torch.tensor([4000])).hidden_states[-1]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_positions_by_their_spectrum_on_gpus(checkpoint, batch, monkeypatch):
    """Fails if the form of GPUs hears padding, or a copied teacher another's weights."""
    monkeypatch.setattr(padding, "WIDE", 8)
    teacher = copy.deepcopy(build_teacher(checkpoint(next(iter(FAMILIES)))))
    plain = teacher.encode(*batch)
    called = []
    real = kernels.convolve_positions
    monkeypatch.setattr(kernels, "convolve_positions", lambda *a: called.append(a[0]) or real(*a))
    monkeypatch.setitem(FORMS, "teacher_positions", Where())
    found = teacher.encode(*batch)
    mask = plain.mask()
    for a, b in zip(found.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=1e-5)
    assert called and all(part in set(teacher.modules()) for part in called)
