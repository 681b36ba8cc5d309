import dataclasses
import shutil

import pytest
import torch
import yaml
from downstream_runs import asr_options, cls_options, inference
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import SubReporter
from espnet2.train.trainer import TrainerOptions
from espnet_tools import asr_inference, asr_train, cls_inference, cls_train, spk_train
from star_runs import pairs, training

from espnet_star.bin import espnet_tool
from espnet_star.tasks.spk import SpeakerTask

TRANSFORMER = ["output_size=8", "attention_heads=2", "linear_units=8", "num_blocks=1"]
# A model that reads the waveform itself: --input_size turns the frontend off (there is no
# --frontend null), and utterance_mvn, the default, would take (B, T) for a spectrogram.
RAW = ["--input_size", "1", "--normalize", "null", "--encoder", "star"]


@pytest.fixture
def student(tiny_student, tmp_path):
    directory = tmp_path / "student"
    tiny_student.save_pretrained(directory)
    return directory


@pytest.fixture
def star(student):
    """Options of the student as frontend."""
    return ["--frontend", "star", "--frontend_conf", f"upstream={student}"]


def asr_text(data, exp):
    out = exp / "decoded"
    options = inference(data, out, "--beam_size", "2", "--ctc_weight", "1.0")
    options += ["--asr_train_config", str(exp / "config.yaml")]
    asr_inference.main([*options, "--asr_model_file", str(exp / "1epoch.pth")])
    return (out / "1best_recog" / "text").read_text().splitlines()


def cls_text(data, exp):
    out = exp / "decoded"
    options = inference(data, out, "--classification_train_config", str(exp / "config.yaml"))
    cls_inference.main([*options, "--classification_model_file", str(exp / "1epoch.pth")])
    return (out / "prediction" / "text").read_text().splitlines()


def assert_student_kept(exp, student, part):
    """The saved model carries the student's weights and architecture, not its folder."""
    assert_config_stands_alone(exp, student, part)
    return torch.load(exp / "1epoch.pth", weights_only=True)


def assert_config_stands_alone(exp, student, part="frontend"):
    """The configuration holds the student's architecture, not its folder."""
    options = yaml.safe_load((exp / "config.yaml").read_text())[f"{part}_conf"]
    assert str(student) not in str(options)
    return options


def test_asr_with_a_frozen_student_decodes_without_its_directory(
    data_directory, student, star, tiny_student, tmp_path
):
    """Fails if --init wipes the student, it is trained, or decoding needs its folder."""
    exp = tmp_path / "asr"
    encoder = ["--encoder", "rnn", *pairs("--encoder_conf", ["hidden_size=8", "num_layers=1"])]
    asr_train.main([*asr_options(data_directory, exp), *star, *encoder])
    saved = assert_student_kept(exp, student, "frontend")
    for name, value in tiny_student.state_dict().items():
        torch.testing.assert_close(saved[f"frontend.upstream.{name}"], value, rtol=0, atol=0)
    assert (saved["frontend.layer_weights"] != 0).any()
    shutil.rmtree(student)
    assert len(asr_text(data_directory, exp)) == 8


def test_cls_with_a_student_that_is_trained_decodes_without_its_directory(
    data_directory, student, star, tiny_student, tmp_path
):
    """Fails if fine-tuning does not reach the student, or decoding needs its folder."""
    exp = tmp_path / "cls"
    star += ["--frontend_conf", "freeze_updates=0"]
    encoder = ["--encoder", "linear", *pairs("--encoder_conf", ["output_size=8"])]
    cls_train.main([*cls_options(data_directory, exp), *star, *encoder])
    saved = assert_student_kept(exp, student, "frontend")
    before = tiny_student.state_dict()
    assert any((saved[f"frontend.upstream.{name}"] != before[name]).any() for name in before)
    shutil.rmtree(student)
    lines = cls_text(data_directory, exp)
    assert len(lines) == 8
    assert {line.split()[1] for line in lines} <= {"s0", "s1"}


@pytest.mark.parametrize("task", ["asr", "cls"])
def test_student_as_encoder_of_the_waveform(data_directory, student, tmp_path, task):
    """Fails if the student cannot be ESPnet's encoder itself: fine-tuning without a head."""
    exp = tmp_path / task
    make, tool = (asr_options, asr_train) if task == "asr" else (cls_options, cls_train)
    raw = [*RAW, *pairs("--encoder_conf", [f"upstream={student}"])]
    tool.main([*make(data_directory, exp), *raw])
    assert_student_kept(exp, student, "encoder")
    shutil.rmtree(student)
    decode = asr_text if task == "asr" else cls_text
    assert len(decode(data_directory, exp)) == 8


def test_cls_with_a_teacher_as_upper_line(data_directory, teacher_directory, tmp_path):
    """Fails if the comparison with the teacher itself cannot be trained."""
    exp = tmp_path / "cls"
    frontend = ["--frontend", "star", "--frontend_conf", f"upstream={teacher_directory}"]
    encoder = pairs("--encoder_conf", TRANSFORMER)
    cls_train.main([*cls_options(data_directory, exp), *frontend, *encoder])
    saved = torch.load(exp / "1epoch.pth", weights_only=True)
    assert not any(name.startswith("frontend.upstream") for name in saved)
    assert len(cls_text(data_directory, exp)) == 8


def test_speaker_model_builds(data_directory, student, star, tmp_path):
    """Fails if ESPnet's speaker task cannot take the student."""
    exp = tmp_path / "spk"
    options = training(data_directory, exp, "--dry_run", "true", "--spk_num", "2")
    spk_train.main([*options, *star, "--encoder", "identity", "--pooling", "mean"])
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["frontend_conf"]["student_conf"]["hidden_size"] == 16


class Embedding(torch.nn.Module):
    """A waveform's first two samples as the speaker's embedding."""

    def forward(self, speech, spk_labels, extract_embd, task_tokens):
        return speech[:, :2]


def test_speakers_are_validated_by_pairs(tmp_path):
    """Fails if our trainer takes the place of ESPnet's for speakers: no equal error rate.

    By itself, since ESPnet's preparation of speakers fails with numpy 2.4 and later.
    """
    (tmp_path / "checkpoint.pth").touch()
    fields = {field.name: None for field in dataclasses.fields(TrainerOptions)}
    options = TrainerOptions(**(fields | {"ngpu": 0, "output_dir": tmp_path}))
    places = {"a": (1.0, 0.0), "b": (0.9, 0.1), "c": (0.0, 1.0), "d": (0.1, 0.9)}
    pairs_of = ["a*b", "a*c", "c*d", "b*d"]
    one, two = (
        torch.tensor([[places[pair.split("*")[side]]] for pair in pairs_of]) for side in (0, 1)
    )
    batch = {"speech": one, "speech2": two, "spk_labels": torch.tensor([[1], [0], [1], [0]])}
    reporter = SubReporter("valid", 1, 0)
    SpeakerTask.trainer.validate_one_epoch(
        model=Embedding(),
        iterator=[(pairs_of, batch)],
        reporter=reporter,
        options=options,
        distributed_option=DistributedOption(),
    )
    assert reporter.stats["eer"][0].value == 0
    assert (tmp_path / "checkpoint.previous.pth").exists()


def test_transducer_builds(data_directory, student, star, tmp_path):
    """Fails if ESPnet's stand-alone transducer task cannot take the student.

    It trains with a transducer loss that has to be installed by hand.
    """
    exp = tmp_path / "transducer"
    block = {"block_type": "conv1d", "output_size": 8, "kernel_size": 3}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"encoder_conf": {"body_conf": [block]}}))
    options = training(data_directory, exp, "--dry_run", "true", "--token_type", "char")
    options += ["--token_list", str(data_directory / "tokens"), *star]
    espnet_tool.run("asr_transducer_train", [*options, "--config", str(tmp_path / "train.yaml")])
    assert "student_conf" in assert_config_stands_alone(exp, student)


def test_a_missing_student_is_one_line(data_directory, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        absent = ["--frontend", "star", "--frontend_conf", f"upstream={tmp_path}/absent"]
        asr_train.main([*asr_options(data_directory, tmp_path / "asr"), *absent])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("asr_train: error: ")
    assert "neither a directory here nor a hub model" in line


@pytest.mark.parametrize("normalize", ["global_mvn", "utterance_mvn"])
@pytest.mark.parametrize("task", ["asr", "cls"])
def test_samples_are_not_normalized_as_features(
    data_directory, student, tmp_path, capsys, task, normalize
):
    """Fails if a training whose masks are samples by samples starts, and the kernel ends it."""
    make, tool = (asr_options, asr_train) if task == "asr" else (cls_options, cls_train)
    raw = ["--input_size", "1", "--encoder", "star", "--encoder_conf", f"upstream={student}"]
    with pytest.raises(SystemExit) as stop:
        tool.main([*make(data_directory, tmp_path / "x"), *raw, "--normalize", normalize])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{task}_train: error: --encoder star reads samples, --normalize {normalize}" in line
    assert "give --normalize null" in line
    assert "--feats_normalize null" in line
