"""Distillation of every kind of checkpoint, through the task and as a frontend."""

import pytest
import torch
import yaml
from espnet_experiments import HUBERT, SSL, write_experiment
from fairseq_checkpoints import write_checkpoint
from star_runs import distill, distillation, pairs, weights

from espnet_star.downstream.frontend import StarFrontend
from espnet_star.errors import StarError
from espnet_star.evaluate.cost.subjects import find_subject

KINDS = ["espnet_ssl", "espnet_hubert", "fairseq", "s3prl"]
every_kind = pytest.mark.parametrize("kind", KINDS)
PRE_NORM = {"espnet_ssl"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Name of a teacher of a kind, and what of its options is found out."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = write(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return make


def write(kind, folder):
    if kind == "espnet_ssl":
        exp = write_experiment("ssl", SSL["transformer-pre-norm"], folder / "exp")
        return str(exp), {"model_file": "valid.loss.ave.pth"}
    if kind == "espnet_hubert":
        exp = write_experiment("hubert", HUBERT["torchaudio"], folder / "exp")
        return str(exp), {"model_file": "valid.loss.ave.pth"}
    path = write_checkpoint("wavlm", folder)[0]
    if kind == "fairseq":
        return str(path), {"do_normalize": False}
    return f"s3prl:wavlm_local:{path}", {"pre_norm": False}


@every_kind
def test_a_distillation_that_config_yaml_can_repeat(
    kind, teacher, data_directory, tiny_options, tmp_path
):
    """Fails if the run cannot be gone on with from what it wrote, or follows the wrong norm."""
    name, found = teacher(kind)
    exp = tmp_path / "exp"
    distill(distillation(name, data_directory, exp, tiny_options, "--max_epoch", 1))
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["teacher"] == name
    assert config["teacher_conf"] == {"kind": kind, **found}
    norm = "layer_norm" if kind in PRE_NORM else "none"
    assert config["losses"][0]["conf"]["target_norm"] == norm
    first = weights(exp)
    assert all(key.startswith("encoder.") for key in first)
    written = pairs("--teacher_conf", [f"{k}={v}" for k, v in config["teacher_conf"].items()])
    distill(distillation(name, data_directory, exp, tiny_options, *written))  # resumes
    again = yaml.safe_load((exp / "config.yaml").read_text())
    assert again["teacher_conf"] == config["teacher_conf"]
    second = weights(exp)
    assert (exp / "2epoch.pth").exists()
    assert any((first[key] != second[key]).any() for key in first)


@every_kind
def test_a_teacher_as_a_frontend(kind, teacher, batch):
    name, _ = teacher(kind)
    frontend = StarFrontend(name).eval()
    assert not frontend.upstream.trainable
    assert frontend.options()["kind"] == kind
    features, lengths = frontend(*batch)
    rebuilt = StarFrontend(**frontend.options()).eval()
    torch.testing.assert_close(rebuilt(*batch)[0], features)
    assert features.shape[1] >= lengths.max() and features.shape[2] == frontend.output_size()


@every_kind
def test_a_teacher_is_measured(kind, teacher):
    name, _ = teacher(kind)
    model = find_subject(name).at_work()
    outputs = model.encode(torch.randn(1, 800), torch.tensor([800]))
    assert outputs.hidden_states[0].shape[:2] == (1, 2)


def test_maps_that_are_not_there_are_missed_before_training(
    teacher, data_directory, tiny_options, tmp_path
):
    name, _ = teacher("s3prl")
    losses = ["--losses", "[{name: attention_map}]"]
    with pytest.raises(StarError, match="has no attention maps; remove the loss"):
        distill(distillation(name, data_directory, tmp_path / "exp", tiny_options, *losses))
    assert not (tmp_path / "exp" / "checkpoint.pth").exists()
