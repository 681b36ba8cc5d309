"""A bug here writes a false origin, or a path of somebody's machine, into a model card."""

import huggingface_hub
import pytest
import yaml

from espnet_star.formats.training_facts import training_facts

LOSS = {"name": "temporal_gram", "weight": 1.0, "conf": {"scope": "batch"}}


@pytest.fixture
def facts(tmp_path):
    """Facts of an experiment in a recipe's folder, with these keys in its config.yaml."""

    def read(**config):
        exp = tmp_path / "recipe" / "exp" / "train_star"
        exp.mkdir(parents=True, exist_ok=True)
        config = {"encoder": "star", "losses": [LOSS], "encoder_conf": {}} | config
        (exp / "config.yaml").write_text(yaml.safe_dump(config))
        return training_facts(exp)

    return read


def test_data_and_hours_are_found_from_the_recipe(facts, tmp_path):
    """Fails if hours depend on the folder that the export is called from."""
    data = [
        ["dump/raw/train/wav.scp", "speech", "sound"],
        ["dump/raw/more/wav.scp", "speech", "sound"],
    ]
    config = {
        "train_data_path_and_name_and_type": [*data, ["dump/raw/train/text", "text", "text"]],
        "train_shape_file": ["dump/raw/train/utt2num_samples"],
    }
    found = facts(**config)
    assert found.train_sets == ("train", "more")
    assert (found.hours, found.utterances) == (None, None)
    lengths = tmp_path / "recipe" / "dump" / "raw" / "train" / "utt2num_samples"
    lengths.parent.mkdir(parents=True)
    lengths.write_text("a 16000\nb 56000,1\n")
    found = facts(**config)
    assert (found.hours, found.utterances) == (4.5 / 3600, 2)
    lengths.write_text("a sixteen\n")
    assert facts(**config).hours is None


def test_a_teacher_on_this_machine_is_named_without_its_path(facts, tmp_path):
    (tmp_path / "recipe" / "downloads" / "teacher").mkdir(parents=True)
    for teacher in ("downloads/teacher", str(tmp_path / "recipe" / "downloads" / "teacher")):
        found = facts(teacher=teacher)
        assert (found.teacher, found.base_model) == ("teacher", None)
    found = facts(teacher="/gone/with/the/machine/teacher")
    assert (found.teacher, found.base_model) == ("teacher", None)
    assert facts().teacher == ""


def test_a_teacher_of_the_hub_is_the_base_model(facts, tmp_path, monkeypatch):
    """Fails if a directory that is gone could be taken for a model on the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert facts(teacher="facebook/hubert-base-ls960").base_model is None
    repository = tmp_path / "cache" / "models--facebook--hubert-base-ls960"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    found = facts(teacher="facebook/hubert-base-ls960")
    assert found.teacher == found.base_model == "facebook/hubert-base-ls960"


def test_options_are_those_that_decided_the_training(facts):
    found = facts(
        batch_type="numel",
        batch_size=20,
        batch_bins=160000,
        optim="adamw",
        optim_conf={"lr": 0.001},
        scheduler=None,
        output_dir="/home/somebody/exp",
        encoder_conf={"hidden_dropout": 0.1, "hidden_size": 240},
    )
    assert found.options == {
        "losses": [LOSS],
        "batch_type": "numel",
        "batch_bins": 160000,
        "optim": "adamw",
        "optim_conf": {"lr": 0.001},
        "encoder_conf": {"hidden_dropout": 0.1},
    }
    assert "batch_bins" not in facts(batch_type="sorted", batch_bins=1, batch_size=2).options
