import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet_star.errors import StarError
from espnet_star.students import StarEncoder

PROJECTION = "feature_projection.projection"
NORM = "encoder.pos_conv_embed.conv.parametrizations.weight.original"


@pytest.fixture
def directory(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def change(directory, edit):
    """Rewrite the weights file."""
    state = load_file(directory / "model.safetensors")
    edit(state)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def assert_same(student, other):
    for name, value in student.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


def test_round_trip_replaces_and_leaves_no_scratch(tiny_student, directory):
    """Fails if saving twice keeps old weights or leaves temporary files behind."""
    with torch.no_grad():
        tiny_student.encoder.layer_norm.bias += 1
    tiny_student.save_pretrained(directory)
    loaded = StarEncoder.from_pretrained(directory)
    assert_same(tiny_student, loaded)
    assert not loaded.training
    assert loaded.options() == tiny_student.options()
    names = {path.name for path in directory.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_files_that_are_not_there(directory, tmp_path):
    (directory / "model.safetensors").unlink()
    with pytest.raises(StarError, match=r"has no model\.safetensors; a student directory holds"):
        StarEncoder.from_pretrained(directory)
    (directory / "config.json").write_text("")
    with pytest.raises(StarError, match=r"has no config.json"):
        StarEncoder.from_pretrained(directory)
    with pytest.raises(StarError, match="neither a directory here nor a hub model"):
        StarEncoder.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_weights_file_is_named(directory, keep):
    path = directory / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(StarError, match="is not a complete safetensors file"):
        StarEncoder.from_pretrained(directory)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "bert"}'])
def test_a_broken_or_foreign_config_is_named(directory, text):
    (directory / "config.json").write_text(text)
    with pytest.raises(StarError, match=r"config\.json"):
        StarEncoder.from_pretrained(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"star_format": 2}, "has star_format 2, this espnet_star reads up to 1.*update"),
        ({"star_format": "new"}, "has star_format 'new'"),
        ({"hidden_act": "swish"}, "student option hidden_act must be one of"),
        ({"hidden_size": "wide"}, "is not a HuBERT's configuration"),
        ({"conv_stride": [5, 2]}, "is not a HuBERT's configuration"),
    ],
)
def test_a_config_of_another_version_is_named(directory, change, message):
    """Fails if a file that is read wrongly, or not at all, is not named with the reason."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    assert config["star_format"] == 1
    path.write_text(json.dumps(config | change))
    with pytest.raises(StarError, match=message) as error:
        StarEncoder.from_pretrained(directory)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    del config["star_format"]
    path.write_text(json.dumps(config))
    StarEncoder.from_pretrained(directory)


def test_weights_that_do_not_fit_are_named(directory):
    """Fails if anything is left random in silence, as transformers would."""
    key = "encoder.layers.1.final_layer_norm.weight"
    change(directory, lambda state: state.update(extra=state.pop(key)))
    with pytest.raises(StarError) as error:
        StarEncoder.from_pretrained(directory)
    assert f"missing ['{key}'], unexpected ['extra'] (1 and 1 in all)" in str(error.value)


def test_a_weight_of_another_shape_is_named(directory):
    key = "encoder.layer_norm.weight"
    change(directory, lambda state: state.update({key: torch.ones(3)}))
    with pytest.raises(StarError, match=r"layer_norm.weight must have shape \(16,\), got \(3,\)"):
        StarEncoder.from_pretrained(directory)


def scale_weight(state):
    state[f"{PROJECTION}.weight"] *= 2


def shift_bias(state):
    state[f"{PROJECTION}.bias"] += 0.1


def halve(state):
    state[f"{PROJECTION}.weight"] = torch.eye(16)[:8].contiguous()


@pytest.mark.parametrize("tamper", [scale_weight, shift_bias, halve])
def test_a_projection_that_is_no_identity_is_not_dropped(directory, tamper):
    """Fails if a fine-tuned projection would be thrown away at loading."""
    change(directory, tamper)
    with pytest.raises(StarError, match="is not an identity; remove identity_projection"):
        StarEncoder.from_pretrained(directory)


def test_following_that_advice_keeps_the_projection(directory):
    """Fails if the error's advice does not work."""
    change(directory, scale_weight)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config["identity_projection"]
    path.write_text(json.dumps(config))
    projection = StarEncoder.from_pretrained(directory).feature_projection.projection
    torch.testing.assert_close(projection.weight, 2 * torch.eye(16))


def test_old_names_prefixes_and_heads(tiny_student, directory):
    """Fails on published HuBERT checkpoints: weight_g, weight_v, hubert., lm_head."""

    def age(state):
        for new, old in (("0", "weight_g"), ("1", "weight_v")):
            state[f"encoder.pos_conv_embed.conv.{old}"] = state.pop(NORM + new)
        for key in list(state):
            state[f"hubert.{key}"] = state.pop(key)
        state["lm_head.weight"] = torch.zeros(5, 16)
        state["hubert.masked_spec_embed"] = torch.zeros(16)

    change(directory, age)
    assert_same(tiny_student, StarEncoder.from_pretrained(directory))
