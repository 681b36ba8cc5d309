"""Students of other methods out of their authors' files, against values of the authors' code."""

import numpy as np
import pytest
import torch

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.formats.fairseq.authors import import_student
from espnet_star.formats.fairseq.released import plan

TINY = ("distilhubert_tiny", "fithubert_tiny", "armhubert_tiny", "maskhubert_tiny")


@pytest.fixture
def released(reference):
    """Make a student of a reference checkpoint, and read the values beside it."""

    def make(name, heads="none"):
        values = np.load(reference(f"{name}.npz"))
        yaml = None if name.startswith("distil") else reference(f"{name}.yaml")
        student = import_student(reference(f"{name}.ckpt"), yaml, heads).student
        return student, {key: torch.from_numpy(values[key]) for key in values.files}

    return make


def waves(values):
    return [values[f"wave{index}"] for index in range(len(values)) if f"wave{index}" in values]


def encode(student, wave, **want):
    return student.encode(wave[None], torch.tensor([len(wave)]), Want(**want))


def assert_close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", TINY)
def test_states_are_those_of_the_authors_code(released, name):
    """Fails if a layer, its map or the input of the first is another one."""
    student, values = released(name)
    for index, wave in enumerate(waves(values)):
        states = encode(student, wave).hidden_states
        assert_close(torch.cat(states[1:]), values[f"hidden{index}"])
        for key in (f"time_reduced{index}", f"pre_trf{index}"):
            if key in values:
                assert_close(states[0][0], values[key])


@pytest.mark.parametrize("name", TINY)
def test_heads_are_those_of_the_authors_code(released, name):
    """Fails if the features that the authors give SUPERB are others, or odd frames are kept."""
    student, values = released(name, "all")
    for index, wave in enumerate(waves(values)):
        outputs = encode(student, wave)
        key = "pred" if f"pred{index}" in values else "projections"
        assert_close(torch.cat(outputs.hidden_states), values[f"{key}{index}"])
        assert outputs.lengths.tolist() == [outputs.hidden_states[0].shape[1]]
        if f"x{index}" in values:
            assert_close(outputs.hidden_states[-1][0], values[f"x{index}"])


def test_the_last_head_alone_is_one_state(released):
    """Fails if FitHuBERT's published features are not to be had."""
    student, values = released("fithubert_tiny", "last")
    for index, wave in enumerate(waves(values)):
        (state,) = encode(student, wave).hidden_states
        assert_close(state[0], values[f"superb_x{index}"])
    unused = student.config.hidden_size**2 * 2 + student.config.hidden_size
    assert sum(p.numel() for p in student.parameters()) + unused == values["n_params_superb"]


@pytest.mark.parametrize("name", TINY)
def test_a_padded_batch_is_as_each_alone(released, name):
    """Fails if padding reaches a valid frame, or maps of one utterance another."""
    student, values = released(name)
    alone = [encode(student, wave) for wave in waves(values)]
    speech = torch.nn.utils.rnn.pad_sequence(waves(values), batch_first=True)
    lengths = torch.tensor([len(wave) for wave in waves(values)])
    together = student.encode(speech, lengths)
    for row, one in enumerate(alone):
        frames = int(one.lengths)
        for state, many in zip(one.hidden_states, together.hidden_states, strict=True):
            assert_close(many[row, :frames], state[0], atol=2e-5)


@pytest.mark.parametrize("name", ["armhubert_tiny", "maskhubert_tiny"])
def test_masked_frames(released, name):
    """Fails if the mask vector stands elsewhere."""
    student, values = released(name)
    states = encode(student, values["wave0"], mask=values["mask0"][None]).hidden_states
    assert_close(torch.cat(states[1:]), values["masked_hidden0"])


@pytest.mark.parametrize("name", ["armhubert_tiny", "maskhubert_tiny"])
def test_gradients(released, name):
    """Fails if gradients are scaled otherwise from layer to layer."""
    student, values = released(name, "all")
    outputs = torch.cat(encode(student, values["wave0"]).hidden_states)
    (outputs * values["grad_R0"]).sum().backward()
    for index, layer in enumerate(student.encoder.layers):
        found = layer.feed_forward.output_dense.bias.grad
        expected = values[f"grad_fc2_bias_{index}"]
        assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())))
    expected = values["grad_pos_conv_bias"]
    found = student.encoder.pos_conv_embed.conv.bias.grad
    assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("name", TINY)
def test_sizes(released, name):
    """Fails if a part is missing or counted twice."""
    student, values = released(name, "all")
    unused = 0
    if name.startswith("fit"):  # a layer that nothing passes through
        unused = student.config.hidden_size**2 * 2 + student.config.hidden_size
    found = sum(p.numel() for p in student.parameters())
    heads = sum(p.numel() for p in student.heads.parameters())
    assert found + unused == values["n_params_total"]
    assert heads == values["n_params_heads"]


def test_parts_before_the_layers(released):
    """Fails if states agree by luck of what stands behind."""
    student, values = released("distilhubert_tiny")
    for index, wave in enumerate(waves(values)):
        frames, _ = student.feature_extractor(wave[None], torch.tensor([len(wave)]))
        assert_close(frames[0], values[f"feat{index}"])
        assert_close(student.feature_projection(frames)[0], values[f"proj{index}"])
    for name in ("fithubert_tiny", "armhubert_tiny"):
        student, values = released(name)
        wave = values["wave0"]
        frames, _ = student.feature_extractor(wave[None], torch.tensor([len(wave)]))
        assert_close(student.feature_projection(frames)[0], values["features0"])


def test_the_papers_reading_of_reuse_is_another(released):
    """Fails if the switch does nothing, or the map that is given is not the one used."""
    student, values = released("armhubert_tiny")
    maps = encode(student, values["wave0"], attentions=True).attentions
    first = student.encoder.reuse.index(True)
    torch.testing.assert_close(maps[first], maps[first - 1].softmax(dim=-1))
    for layer, reuses in zip(student.encoder.layers, student.encoder.reuse, strict=True):
        if reuses:
            layer.attention.second_softmax = False
    outputs = encode(student, values["wave0"], attentions=True)
    assert torch.equal(outputs.attentions[first], outputs.attentions[first - 1])
    apart = torch.cat(outputs.hidden_states[1:]).detach() - values["hidden0"]
    assert float(apart.square().mean().sqrt()) > 1e-3


@pytest.mark.parametrize(
    ("block", "heads", "message"),
    [
        ({"reuse_pattern": "[True, False] * 6"}, "none", "reuse_pattern must be a list of 12"),
        ({"reuse_pattern": "[True]"}, "none", "reuse_pattern must be a list of 12"),
        ({"reuse_pattern": f"[{'False, ' * 12}]"}, "none", "the first True"),
        ({"layerwise_proj": False}, "none", "layerwise_proj must be True"),
        ({"layerwise_proj": True, "enable_tr_layer": True, "tr_layer_index": 3}, "none", "tr_lay"),
        ({"extractor_conv_feature_layers": "open('x')"}, "none", "conv_feature_layers: expected"),
        ({"extractor_conv_feature_layers": "[(8, 10, 5)]"}, "last", "share their first map"),
        ({"extractor_conv_feature_layers": "[(8, 10, 5)]", "n_tasks": 10**9}, "all", "n_tasks"),
        ({}, "all", "without heads"),
        ({}, "some", "unknown choice of heads 'some'"),
    ],
)
def test_what_stands_in_the_way_is_named(block, heads, message):
    """Fails if a block is read as something it is not, or a string in it is run."""
    with pytest.raises(StarError) as error:
        plan(block, heads)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
