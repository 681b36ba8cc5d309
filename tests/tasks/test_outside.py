"""Student, teacher, objective and view named package.module:Class, from training to report."""

import signal

import pytest
import torch
import yaml
from star_runs import assert_same_weights, distill, distillation, join, start

import espnet_star
from espnet_star.bin import star_export, star_report, star_train
from espnet_star.downstream.frontend import StarFrontend

CHOICES = ["--encoder", "outside:HalfRate", "--teacher_conf", "kind=outside:Masked"]
CHOICES += ["--view", "outside:Twice", "--view_conf", "prob=0.5"]
CHOICES += ["--losses", "[{name: 'outside:Hidden', conf: {layer: 1}}]"]


@pytest.fixture(scope="module")
def whole(teacher_directory, data_directory, tmp_path_factory):
    exp = tmp_path_factory.mktemp("outside") / "exp"
    command = distillation(teacher_directory, data_directory, exp, {"width": 8}, *CHOICES)
    distill(command)
    return command, exp


def test_it_trains_resumes_and_keeps_heads_to_itself(whole, tmp_path):
    """Fails if a killed run ended elsewhere: a head, or what a view draws, was lost."""
    command, exp = whole
    again = [str(tmp_path / "exp") if part == str(exp) else part for part in command]
    join(start(again, ("log", "2/2epoch started")), -signal.SIGKILL)
    distill(again)
    assert_same_weights(tmp_path / "exp", exp)
    last = torch.load(exp / "2epoch.pth")
    assert "objectives.0.head.weight" in last
    average = torch.load(exp / "valid.loss.ave.pth")
    assert average.keys() == {key for key in last if key.startswith("encoder.")}
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert (config["encoder"], config["view"]) == ("outside:HalfRate", "outside:Twice")
    assert config["encoder_conf"] == {"width": 8, "layers": 2}
    assert config["teacher_conf"]["kind"] == "outside:Masked"


def test_it_is_used_like_any_other(whole, batch, capsys, tmp_path):
    """Fails if only students of this package could be loaded, fed to ASR and refused in a line."""
    exp = whole[1]
    wave = torch.randn(16000)
    features = espnet_star.load(exp)(wave)
    assert features.last.shape == (1, 24, 8)
    frontend = StarFrontend(str(exp)).eval()
    speech, lengths = batch[0][:4, :6000], batch[1][:4]
    options = yaml.safe_load(yaml.safe_dump(frontend.options()))
    assert options["student"] == "outside:HalfRate"
    rebuilt = StarFrontend(**options).eval()
    rebuilt.load_state_dict(frontend.state_dict())
    torch.testing.assert_close(rebuilt(speech, lengths)[0], frontend(speech, lengths)[0])
    for tool, option, why in (
        ("transformers", "--expdir", "which no HubertModel"),
        ("onnx", "--upstream", "whose graph star_export onnx does not know"),
    ):
        with pytest.raises(SystemExit) as stop:
            star_export.main([tool, option, str(exp), "--output_dir", str(tmp_path / "out")])
        assert stop.value.code == 2
        assert f"its student is a HalfRate, {why}" in capsys.readouterr().err


def test_it_is_drawn(whole, data_directory, tmp_path, monkeypatch):
    lengths = "espnet_star.evaluate.report.tables.LIBRISPEECH_LENGTHS"
    monkeypatch.setattr(lengths, (16000,))
    options = ["--output_dir", str(tmp_path / "page"), "--data_dir", str(data_directory)]
    star_report.main(
        ["--expdir", str(whole[1]), *options, "--utterances", "1", "--undistilled", "false"]
    )
    page = (tmp_path / "page" / "index.html").read_text()
    assert "outside:Hidden" in page and "2 layers of width 8" in page


def test_labels_are_learned_without_a_teacher(data_directory, tmp_path, capsys, monkeypatch):
    """Fails if a training that reads labels only had to load a teacher, or lost them on the way."""
    labels = tmp_path / "units"
    counts = [
        line.split() for line in (data_directory / "utt2num_samples").read_text().splitlines()
    ]
    rows = [f"{key} {' '.join(['3'] * ((int(n) - 400) // 320 + 1))}" for key, n in counts]
    labels.write_text("\n".join(rows) + "\n")
    options = ["--encoder", "outside:HalfRate", "--view", "labelled", "--view_conf", "mask_prob=0"]
    for part in ("train", "valid"):
        options += [f"--{part}_data_path_and_name_and_type", f"{labels},labels,text_int"]
    losses = ["--losses", "[{name: 'outside:Units'}]"]
    exp = tmp_path / "exp"
    distill(distillation("none", data_directory, exp, {"width": 8}, *options, *losses))
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert (config["teacher"], config["view"]) == ("none", "labelled")
    assert espnet_star.load(exp)(torch.randn(16000)).last.shape == (1, 24, 8)
    for refused, message in (
        (distillation("none", data_directory, exp, {"width": 8}, *options), "teacher is none, but"),
        (
            distillation("none", data_directory, exp, {}, *options[:6], *losses),
            "reads labels, which",
        ),
    ):
        with pytest.raises(SystemExit):
            star_train.main([*refused, "--dry_run", "true"])
        assert message in capsys.readouterr().err.splitlines()[-1]
    page = ["--expdir", str(exp), "--output_dir", str(tmp_path / "page"), "--utterances", "1"]
    monkeypatch.setattr("espnet_star.evaluate.report.tables.LIBRISPEECH_LENGTHS", (16000,))
    star_report.main([*page, "--data_dir", str(data_directory), "--undistilled", "false"])
    assert "Units" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--losses", "[{name: 'nowhere:X'}]"], "loss 'nowhere:X': nowhere cannot be imported"),
        (["--losses", "[{name: 'outside:Absent'}]"], "outside.py has no Absent; expected"),
        (["--losses", "[{name: 'outside:HalfRate'}]"], "a subclass of Objective"),
        (["--losses", "[{name: 'outside:Demanding'}]"], "missing a required argument: 'factor'"),
        (["--view", "outside:NOT_A_CLASS"], "a subclass of View"),
        (
            ["--view", "outside:Twice", *CHOICES[:2]],
            "loss temporal_gram compares student and teacher, view out",
        ),
        (["--encoder", "outside:HalfRate", "--encoder_conf", "depth=2"], "encoder outside:HalfR"),
        (["--encoder", "stra"], "Did you mean 'star'?"),
        (["--teacher_conf", "kind=:X"], "expected package.module:Class"),
    ],
)
def test_a_class_that_cannot_be_used_is_one_line(
    teacher_directory, data_directory, tmp_path, capsys, extra, message
):
    command = distillation(teacher_directory, data_directory, tmp_path / "exp", {}, *extra)
    with pytest.raises(SystemExit) as stop:
        star_train.main([*command, "--dry_run", "true"])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("star_train: error: ") and message in line
