import numpy as np
import pytest
import torch
import yaml
from authors_students import CONVS, features, random_student, write_files
from transformers import HubertModel

from espnet_star.errors import StarError
from espnet_star.formats.fairseq.authors import import_student, read_architecture
from espnet_star.students import StarEncoder
from espnet_star.students.hugging_face import check_saved

# Layout of the released STaRHuBERT's YAML.
STARHUBERT = {
    "encoder_layers": 12,
    "encoder_embed_dim": 432,
    "encoder_ffn_embed_dim": 976,
    "encoder_attention_heads": 8,
    "conv_feature_layers": (
        "[(128, 10, 5)] + [(256, 1, 1)] + [(256, 3, 2)] * 4 + [(432, 1, 1)] + [(432, 2, 2)] * 2"
    ),
    "dropout_input": 0.05,
    "activation_dropout": 0.1,
}


def both_ways(student, directory, wave):
    """Hidden states and last state of one waveform: ours read back, and plain transformers."""
    student.save_pretrained(directory)
    ours = StarEncoder.from_pretrained(directory)
    theirs = HubertModel.from_pretrained(directory).eval()
    with torch.no_grad():
        states = ours.encode(wave[None], torch.tensor([len(wave)])).hidden_states
        plain = theirs(wave[None], output_hidden_states=True)
    mine = torch.cat(states), ours.encoder.output(states[-1])[0]
    return mine, (torch.cat(plain.hidden_states), plain.last_hidden_state[0])


def test_the_authors_own_features(reference, tmp_path):
    """Fails if a released student has other features here than in its authors' code."""
    checkpoint, architecture = reference("starhubert_tiny.ckpt"), reference("starhubert_tiny.yaml")
    values = np.load(reference("starhubert_tiny.npz"))
    imported = import_student(checkpoint, architecture)
    assert imported.left_out == {"teacher_model": 1}
    waves = [name for name in values if name.startswith("wave")]
    assert len(waves) == 3
    for name in waves:
        wave = torch.from_numpy(values[name])
        for states, last in both_ways(imported.student, tmp_path, wave):
            expected = torch.from_numpy(values[name.replace("wave", "hidden")])
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
            expected = torch.from_numpy(values[name.replace("wave", "last")])
            torch.testing.assert_close(last, expected, atol=1e-5, rtol=0)


WIDER = [*CONVS[:-3], (20, 1, 1), (20, 2, 2), (20, 2, 2)]
VARIANTS = {
    "post-norm": ({}, CONVS),
    "projection": ({"conv_feature_layers": str(WIDER)}, WIDER),
    "layer-norm front": ({"extractor_mode": "layer_norm"}, CONVS),
    "pre-norm": ({"layer_norm_first": True}, CONVS),
    "biases": ({"conv_bias": True}, CONVS),
    "all at once": (
        {
            "extractor_mode": "layer_norm",
            "layer_norm_first": True,
            "conv_bias": True,
            "conv_feature_layers": str(WIDER),
        },
        WIDER,
    ),
    "other sizes": (
        {
            "encoder_layers": 3,
            "encoder_ffn_embed_dim": 40,
            "encoder_attention_heads": 2,
            "conv_pos": 7,
            "conv_pos_groups": 8,
        },
        CONVS,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_architectures_of_the_format(name, tmp_path):
    """Fails if a layout is imported as another one, against a forward pass of its own."""
    changes, convs = VARIANTS[name]
    block, state = random_student(convs, **changes)
    student = import_student(*write_files(tmp_path, block, state)).student
    wave = 0.3 * torch.randn(5000)
    states, last = features(block, state, convs, wave)
    for our_states, our_last in both_ways(student, tmp_path / "student", wave):
        # transformers' own last state may stand before or after a pre-norm's final LayerNorm.
        known = slice(None, -1) if block["layer_norm_first"] else slice(None)
        torch.testing.assert_close(our_states[known], states[known], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(our_last, last, atol=1e-5, rtol=1e-5)
    assert check_saved(student, tmp_path / "student") < 1e-4


def test_released_yaml_is_the_preset(tmp_path):
    """Fails if a key of the YAML lands in another option, or a default differs."""
    path = tmp_path / "released.yaml"
    path.write_text(yaml.safe_dump({"distiller": STARHUBERT}))
    config = read_architecture(path)
    with torch.device("meta"):
        expected = StarEncoder(preset="starhubert").options()
        options = {key: getattr(config, key) for key in expected}
        encoder = StarEncoder(**expected)
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()} == expected
    assert sum(p.numel() for p in encoder.parameters()) == 22_308_592


def test_keys_that_are_left_out_have_the_authors_defaults(tmp_path):
    """Fails if a short YAML becomes another student than in its authors' code."""
    path = tmp_path / "released.yaml"
    path.write_text("distiller: {}\n")
    found = read_architecture(path)
    expected = {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "conv_bias": False,
        "do_stable_layer_norm": False,
        "feat_extract_norm": "group",
        "identity_projection": False,
    }
    assert {key: getattr(found, key) for key in expected} == expected
    assert list(found.conv_dim) == [512] * 7
    assert list(found.conv_kernel) == [10, 3, 3, 3, 3, 2, 2]
    assert list(found.conv_stride) == [5, 2, 2, 2, 2, 2, 2]


def test_each_dropout_lands_in_its_place(tmp_path):
    """Fails if two rates are swapped, which no feature in eval mode would show."""
    rates = {
        "dropout": 0.11,
        "attention_dropout": 0.12,
        "activation_dropout": 0.13,
        "dropout_input": 0.14,
    }
    path = tmp_path / "released.yaml"
    path.write_text(yaml.safe_dump({"distiller": STARHUBERT | rates}))
    config = read_architecture(path)
    found = (
        config.hidden_dropout,
        config.attention_dropout,
        config.activation_dropout,
        config.feat_proj_dropout,
    )
    assert found == (0.11, 0.12, 0.13, 0.14)


def test_what_is_not_the_student_is_left_out_and_told(tmp_path):
    """Fails if the teacher or the head is taken in, or goes missing in silence."""
    block, state = random_student()
    others = {
        "teacher_model.model.mask_emb": torch.ones(4),
        "teacher_model.model.layer_norm.weight": torch.ones(4),
        "student_model.final_proj.weight": torch.ones(3, 16),
        "student_model.final_proj.bias": torch.ones(3),
    }
    imported = import_student(*write_files(tmp_path, block | {"final_dim": 3}, state, others))
    assert imported.left_out == {"teacher_model": 2, "final_proj": 2}
    found = imported.student.state_dict()
    assert torch.equal(found["feature_projection.layer_norm.weight"], state["layer_norm.weight"])
    assert not imported.student.training


def test_half_precision_and_newer_weight_norm(tmp_path):
    """Fails if a checkpoint saved in fp16 or by a newer torch is refused or kept in fp16."""
    block, state = random_student()
    old = "encoder.pos_conv.0"
    for part, number in (("g", 0), ("v", 1)):
        name = f"{old}.parametrizations.weight.original{number}"
        state[name] = state.pop(f"{old}.weight_{part}").half()
    found = import_student(*write_files(tmp_path, block, state)).student.state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32}
    original = "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    expected = state[f"{old}.parametrizations.weight.original1"].float()
    assert torch.equal(found[original], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "conformer"}, "layer_type must be 'transformer' for HubertModel, got 'con"),
        ({"activation_fn": "relu"}, "activation_fn must be 'gelu' for HubertModel, got 'relu'"),
        ({"pos_conv_depth": 5}, "pos_conv_depth must be 1 or 0 for HubertModel, got 5"),
        ({"crop_seq_to_multiple": 2}, "crop_seq_to_multiple must be 1 for HubertModel, got 2"),
        (
            {"relative_position_embedding": True},
            "relative_position_embedding must be False for HubertModel, got True",
        ),
        ({"extractor_mode": "batch"}, "extractor_mode must be one of ['default', 'layer_norm']"),
        ({"extractor_mode": ["default"]}, "extractor_mode must be one of"),
        ({"reuse_pattern": "[True]"}, "reuse_pattern must be a list of 2 True and False"),
        ({"encoder_embed_dims": 16}, "Did you mean 'encoder_embed_dim'?"),
        ({"encoder_layers": "12"}, "encoder_layers must be a whole number from 1 to 200, got '12'"),
        ({"encoder_layers": 10**9}, "encoder_layers must be a whole number from 1 to 200"),
        ({"encoder_embed_dim": True}, "encoder_embed_dim must be a whole number"),
        ({"encoder_attention_heads": 3}, "multiple of encoder_attention_heads, got 16, 3"),
        ({"conv_pos_groups": 3}, "encoder_embed_dim must be a multiple of conv_pos_groups"),
        ({"dropout": "1.e-1"}, "dropout must be a number from 0 to below 1, got '1.e-1'"),
        ({"layer_norm_first": 1}, "layer_norm_first must be true or false, got 1"),
        ({"conv_feature_layers": "open('x')"}, "conv_feature_layers: expected (channels, kernel"),
        ({"conv_feature_layers": "[(16, 10, 5)]"}, "the convolutions have hop 5"),
    ],
)
def test_what_stands_in_the_way_is_named(changes, message, tmp_path):
    """Fails if an architecture is imported as something it is not."""
    block, state = random_student()
    checkpoint, architecture = write_files(tmp_path, block | changes, state)
    with pytest.raises(StarError) as error:
        import_student(checkpoint, architecture)
    assert message in str(error.value)
    assert f"{architecture}: distiller: " in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_without_effect_on_features_are_accepted(tmp_path):
    """Fails if a released YAML is refused for its training options."""
    block, state = random_student()
    training = {
        "encoder_layerdrop": 0.1,
        "required_seq_len_multiple": 2,
        "checkpoint_activations": True,
        "layer_grad_scale": True,
        "max_positions": 100000,
        "gru_rel_pos": False,
    }
    import_student(*write_files(tmp_path, block | training, state))


def drop(state):
    del state["encoder.layers.1.fc1.bias"]


def rename(state):
    state["encoder.layers.1.fc3.bias"] = state.pop("encoder.layers.1.fc1.bias")


def widen(state):
    state["encoder.layers.0.fc2.weight"] = torch.zeros(16, 32)


def poison(state):
    state["encoder.layer_norm.bias"][3] = float("nan")


def count(state):
    state["encoder.layer_norm.bias"] = torch.zeros(16, dtype=torch.long)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop, "missing encoder.layers.1.fc1.bias (names"),
        (rename, "missing encoder.layers.1.fc1.bias; unknown encoder.layers.1.fc3.bias (names"),
        (
            widen,
            "student_model.encoder.layers.0.fc2.weight must have shape (16, 24) by the YAML, got "
            "(16, 32)",
        ),
        (poison, "student_model.encoder.layer_norm.bias holds NaN or infinity"),
        (count, "layer_norm.bias must hold floating-point numbers, got torch.int64"),
    ],
)
def test_tensors_that_do_not_fit_are_named(edit, message, tmp_path):
    """Fails if a weight is left random, dropped or bent in silence."""
    block, state = random_student()
    edit(state)
    with pytest.raises(StarError) as error:
        import_student(*write_files(tmp_path, block, state))
    assert message in str(error.value)
