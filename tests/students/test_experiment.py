import pytest
import torch
import yaml

from espnet_star.errors import StarError
from espnet_star.students import StarEncoder
from espnet_star.students.experiment import is_experiment, load_experiment


@pytest.fixture
def experiment(tiny_student, tmp_path):
    """What ESPnet's trainer leaves of a distillation."""
    config = {
        "encoder": "star",
        "encoder_conf": tiny_student.options(),
        "losses": [{"name": "temporal_gram"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"encoder.{key}": value for key, value in tiny_student.state_dict().items()}
    torch.save(state, tmp_path / "2epoch.pth")
    (tmp_path / "latest.pth").symlink_to("2epoch.pth")
    return tmp_path


def rewrite(experiment, edit):
    state = torch.load(experiment / "2epoch.pth", weights_only=True)
    edit(state)
    torch.save(state, experiment / "2epoch.pth")


def test_the_averaged_model_comes_first(experiment, tiny_student):
    """Fails if evaluation would take the last epoch although averaging has finished."""
    assert is_experiment(experiment)
    loaded = StarEncoder.from_pretrained(experiment)
    torch.testing.assert_close(loaded.state_dict(), tiny_student.state_dict())
    assert not loaded.training
    state = torch.load(experiment / "2epoch.pth", weights_only=True)
    state["encoder.encoder.layer_norm.bias"] += 1
    torch.save(state, experiment / "valid.loss.ave.pth")
    shifted = load_experiment(experiment)
    gap = shifted.encoder.layer_norm.bias - tiny_student.encoder.layer_norm.bias
    torch.testing.assert_close(gap, torch.ones(16))
    for name in ("2epoch.pth", experiment / "2epoch.pth"):
        chosen = load_experiment(experiment, name)
        torch.testing.assert_close(chosen.state_dict(), tiny_student.state_dict())


def test_no_finished_epoch(experiment):
    (experiment / "latest.pth").unlink()
    with pytest.raises(StarError, match="no epoch has finished yet"):
        StarEncoder.from_pretrained(experiment)
    with pytest.raises(StarError, match=r"has none of 9epoch\.pth"):
        load_experiment(experiment, "9epoch.pth")


@pytest.mark.parametrize("config", ["", "{", "encoder: rnn\nlosses: []\n", "encoder: star\n"])
def test_not_a_distillation(experiment, config):
    """Fails if an ASR experiment, or a broken file, is taken for a student."""
    (experiment / "config.yaml").write_text(config)
    with pytest.raises(StarError, match=r"config\.yaml is not"):
        load_experiment(experiment)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_model_is_named(experiment, keep):
    path = experiment / "2epoch.pth"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(StarError, match="is not a complete model file"):
        load_experiment(experiment)


def test_weights_that_do_not_fit_are_named(experiment):
    rewrite(experiment, lambda state: state.pop("encoder.encoder.layer_norm.bias"))
    with pytest.raises(StarError, match=r"missing \['encoder.layer_norm.bias'\]"):
        load_experiment(experiment)
    shape = {"encoder.encoder.layer_norm.bias": torch.zeros(3)}
    rewrite(experiment, lambda state: state.update(shape))
    with pytest.raises(StarError, match=r"encoder.layer_norm.bias must have shape \(16,\)"):
        load_experiment(experiment)


@pytest.mark.parametrize(
    ("conf", "found"),
    [({"gating": True}, "unknown student option 'gating'"), ([1], "must be a mapping")],
)
def test_a_config_of_another_version_is_named(experiment, conf, found):
    path = experiment / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"encoder_conf": conf}))
    with pytest.raises(StarError, match=f"encoder_conf cannot be used .*{found}.*that version"):
        load_experiment(experiment)


def test_a_model_file_that_holds_no_weights_is_named(experiment):
    torch.save(torch.zeros(3), experiment / "2epoch.pth")
    with pytest.raises(StarError, match="must hold a model's weights by name, got Tensor"):
        load_experiment(experiment)
