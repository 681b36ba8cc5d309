"""Fails if an exported directory gives other features in transformers or s3prl than here."""

import json
import logging

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, HubertModel

from espnet_star.students import StarEncoder

LENGTHS = [8000, 5520, 3000]
LAYOUTS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True},
    "projection": {"conv_dim": [8] * 8 + [12]},
}


@pytest.fixture(params=LAYOUTS)
def exported(request, tiny_options, tmp_path):
    """A student of each layout, none of its weights at a special value, and its directory."""
    student = StarEncoder(**(tiny_options | LAYOUTS[request.param])).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    student.save_pretrained(tmp_path / "student")
    return student, tmp_path / "student"


@pytest.fixture(scope="module")
def waves(make_speech):
    return [make_speech(index, samples) for index, samples in enumerate(LENGTHS)]


@torch.no_grad()
def ours(student, wave):
    speech = torch.from_numpy(wave)[None]
    return student.encode(speech, torch.tensor([len(wave)])).hidden_states


def assert_close(theirs, states):
    assert len(theirs) == len(states)
    for one, other in zip(theirs, states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@torch.no_grad()
def theirs(directory, *waves):
    extractor = AutoFeatureExtractor.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory).eval()
    assert type(model) is HubertModel
    batch = extractor(list(waves), sampling_rate=16000, padding=True, return_tensors="pt")
    return model(**batch, output_hidden_states=True).hidden_states


def test_transformers_alone(exported, waves):
    student, directory = exported
    for wave in waves:
        assert_close(theirs(directory, wave), ours(student, wave))


def test_transformers_in_a_padded_batch(exported, waves):
    """The card's words on padding: equal with norms by frame, different with a group norm."""
    student, directory = exported
    states = theirs(directory, *waves)
    gap = 0.0
    for row, wave in enumerate(waves):
        expected = ours(student, wave)
        frames = expected[0].shape[1]
        if student.config.feat_extract_norm == "layer":
            assert_close([state[row : row + 1, :frames] for state in states], expected)
        gap = max(gap, float((states[-1][row, :frames] - expected[-1][0]).abs().max()))
    if student.config.feat_extract_norm == "group":
        assert gap > 1e-2


def test_the_feature_extractor_changes_no_sample(exported, waves):
    """Fails if transformers would normalize waveforms that the student has never seen so."""
    extractor = AutoFeatureExtractor.from_pretrained(exported[1])
    batch = extractor(waves, sampling_rate=16000, padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum(dim=1).tolist() == LENGTHS
    assert torch.equal(batch["input_values"][1, : LENGTHS[1]], torch.from_numpy(waves[1]))
    settings = json.loads((exported[1] / "preprocessor_config.json").read_text())
    assert settings["sampling_rate"] == 16000


@torch.no_grad()
def test_s3prl(exported, waves):
    """Its last frame, a copy where ``ceil(samples / 320)`` is one more than we have, is cut."""
    pytest.importorskip("s3prl", reason="s3prl is not installed: pip install espnet_star[s3prl]")
    from s3prl.nn import S3PRLUpstream

    logging.getLogger("s3prl").setLevel("ERROR")
    student, directory = exported
    upstream = S3PRLUpstream("hf_hubert_custom", path_or_url=str(directory)).eval()
    assert upstream.num_layers == student.shape.layers + 1
    assert set(upstream.hidden_sizes) == {student.output_size()}
    for wave in waves:
        states, _ = upstream(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        expected = ours(student, wave)
        frames = expected[0].shape[1]
        assert_close([state[:, :frames] for state in states], expected)
