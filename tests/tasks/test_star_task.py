import pytest
import torch
import yaml
from star_runs import distill, weights

from espnet_star.bin import star_train
from espnet_star.distillation import StarDistillation
from espnet_star.errors import StarError
from espnet_star.students import StarEncoder
from espnet_star.students.experiment import load_experiment
from espnet_star.tasks.star import StarTask
from espnet_star.teachers import build_teacher


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """A distillation of two epochs in one go."""
    exp = tmp_path_factory.mktemp("exp") / "star"
    distill(command(exp))
    return exp


def test_what_a_finished_run_leaves(finished, tiny_options, teacher_directory):
    """Fails if the experiment could not be read or repeated without its command."""
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["losses"][0]["conf"] == {"target_norm": "none"}
    assert config["encoder_conf"] == StarEncoder(**tiny_options).options()
    assert config["teacher"] == str(teacher_directory)
    student = load_experiment(finished)
    with torch.no_grad():
        assert student(torch.randn(1, 800), torch.tensor([800]))[0].shape == (1, 2, 16)
    for name in ("checkpoint.pth", "2epoch.pth"):
        assert all(key.startswith("encoder.") for key in weights(finished, name))


def test_training_moves_the_student(finished, command, tmp_path):
    distill(command(tmp_path / "exp", "--max_epoch", 1))
    first, second = weights(tmp_path / "exp"), weights(finished)
    assert any((first[name] != second[name]).any() for name in first)


def test_the_objective_falls_on_a_fixed_batch(teacher_directory, tiny_options, batch):
    """Fails if gradients do not reach the student through the task's model."""
    model = StarDistillation(
        StarEncoder(**tiny_options),
        build_teacher(str(teacher_directory)),
        [{"name": "temporal_gram"}, {"name": "attention_map", "weight": 0.1}],
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(20):
        loss, stats, weight = model(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]
    assert stats.keys() == {"loss", "layerwise", "intralayer", "attention"}
    assert int(weight) == 6
    assert not any(name.startswith("teacher") for name in model.state_dict())
    assert model.double().teacher.encoder.model.encoder.layer_norm.weight.dtype == torch.float64


def test_teacher_states_from_a_cache_give_the_same_loss(
    teacher_directory, tiny_options, batch, tmp_path
):
    encoder, teacher = StarEncoder(**tiny_options).eval(), build_teacher(str(teacher_directory))
    losses = [{"name": "temporal_gram"}]
    plain = StarDistillation(encoder, teacher, losses)
    cached = StarDistillation(encoder, teacher, losses, cache_dir=str(tmp_path))
    expected = plain(*batch)[0].item()
    assert [cached(*batch)[0].item() for _ in range(2)] == pytest.approx([expected] * 2, rel=1e-3)
    with pytest.raises(StarError, match="remove cache_dir"):
        StarDistillation(encoder, teacher, [{"name": "attention_map"}], cache_dir=str(tmp_path))


def test_gradient_accumulation_and_both_losses_from_yaml(command, tmp_path):
    """Fails if --accum_grad or a list of losses in a YAML file breaks the training."""
    losses = [
        {"name": "temporal_gram", "weight": 0.5, "conf": {"target_norm": "layer_norm"}},
        {"name": "attention_map"},
    ]
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"losses": losses, "accum_grad": 2}))
    config = ["--config", tmp_path / "train.yaml"]
    distill(command(tmp_path / "exp", *config, "--max_epoch", 1))
    saved = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert saved["losses"] == losses
    assert saved["accum_grad"] == 2


def test_dry_run_builds_and_writes_the_configuration(command, tmp_path):
    losses = "[{name: temporal_gram, conf: {layer_map: [1, 2]}}]"
    star_train.main(command(tmp_path / "exp", "--dry_run", "true", "--losses", losses))
    saved = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert saved["losses"][0]["conf"] == {"layer_map": [1, 2], "target_norm": "none"}
    assert not (tmp_path / "exp" / "checkpoint.pth").exists()


def test_print_config():
    """Fails if --print_config could not start a user's own YAML file."""
    with pytest.raises(SystemExit) as stop:
        star_train.main(["--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(yaml.safe_dump(StarTask.get_default_config()))
    assert config["encoder"] == "star"
    assert config["encoder_conf"]["preset"] == "starhubert"
    assert config["losses"][0]["name"] == "temporal_gram"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--losses", "[{name: temporal_gran}]"], "Did you mean 'temporal_gram'?"),
        (["--losses", "temporal_gram"], "--losses must be a list"),
        (["--encoder_conf", "preset=starhubert_m"], "Known: demo, dicehubert,"),
        (["--encoder_conf", "hiden_size=3"], "Did you mean 'hidden_size'?"),
        (["--model_conf", "cache_dri=x"], "Did you mean 'cache_dir'?"),
        (["--teacher_conf", "dtpye=bfloat16"], "Did you mean 'dtype'?"),
        (["--teacher", "./absent"], "no such directory"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(command, tmp_path, capsys, extra, message):
    """Fails if a user's slip ends in a traceback or trains something else."""
    with pytest.raises(SystemExit) as stop:
        star_train.main(command(tmp_path / "exp", *extra))
    captured = capsys.readouterr()
    assert stop.value.code == 2
    line = captured.err.splitlines()[-1]
    assert line.startswith("star_train: error: ")
    assert message in line
    assert "Traceback" not in captured.err


def test_a_misspelled_key_of_a_yaml_file_is_named(command, tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("max_epochs: 3\n")
    with pytest.raises(SystemExit) as stop:
        star_train.main(command(tmp_path / "exp", "--config", tmp_path / "train.yaml"))
    assert stop.value.code == 2
    assert "max_epochs" in capsys.readouterr().err.splitlines()[-1]


def test_no_teacher_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        star_train.main(["--output_dir", str(tmp_path)])
    assert stop.value.code == 2
    assert "--teacher" in capsys.readouterr().err
