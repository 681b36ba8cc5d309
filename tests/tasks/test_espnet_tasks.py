"""Tasks of ESPnet that our recipes do not use, with the student as frontend.

A bug here refuses --frontend star in one of them, or saves a model that needs the student's folder.
"""

import importlib
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from downstream_runs import FEW, cls_options
from espnet2.train.lid_trainer import LIDTrainer
from star_runs import pairs, training

from espnet_star.bin import espnet_tool
from espnet_star.downstream.frontend import StarFrontend
from espnet_star.errors import StarError
from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.plugin import FRONTEND_TASKS

TRANSFORMER = {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1}
ENCODER = {"encoder": "transformer", "encoder_conf": TRANSFORMER}
BRANCHES = {"output_size": 8, "attention_heads": 2, "cgmlp_linear_units": 8, "num_blocks": 1}
SYMBOLS = "<blank> <unk> <na> <notimestamps> <0.00> <30.00> A B <sop> <sos> <eos>"
# The smallest model of each task, but for frontend and token list.
MODELS = {
    "aqa": {"metric2id": "metric2id"},
    "asvspoof": ENCODER | {"losses": [{"name": "binary_loss", "conf": {}}]},
    "lid": {"encoder": "identity", "pooling": "mean", "lang_num": 2},
    "s2st": ENCODER | {"unit_token_list": SYMBOLS.split(), "tgt_feats_extract": None},
    "s2t": ENCODER | {"decoder": "transformer"},
    "s2t_ctc": {
        "encoder": "e_branchformer_ctc",
        "encoder_conf": BRANCHES,
        "promptencoder": "transformer",
        "promptencoder_conf": TRANSFORMER,
    },
    "ssl": ENCODER
    | {"preencoder": "linear", "preencoder_conf": {"output_size": 8}}
    | {"loss": [{"name": "hubert", "conf": {"num_classes": 11, "final_dim": 8}}]},
    "uasr": {"write_collected_feats": True},
}
NEW = [task for task in FRONTEND_TASKS if task in MODELS]


@pytest.fixture
def config(tiny_student, tmp_path, monkeypatch):
    """Write the configuration of a task with the student as frontend; options that name it."""
    monkeypatch.setattr(sys, "argv", ["espnet_star"])
    monkeypatch.chdir(tmp_path)
    tiny_student.save_pretrained(tmp_path / "student")
    (tmp_path / "metric2id").write_text("mos\n")

    def write(task):
        star = {"frontend": "star", "frontend_conf": {"upstream": str(tmp_path / "student")}}
        (tmp_path / "train.yaml").write_text(yaml.safe_dump(star | MODELS.get(task, {})))
        return ["--config", str(tmp_path / "train.yaml")]

    return write


@pytest.mark.parametrize("task", NEW)
def test_a_model_on_the_student(task, config, tmp_path):
    if task == "uasr":
        pytest.importorskip("kenlm", reason="ESPnet's unsupervised recognition wants kenlm")
    made = student_task(task)
    parser = made.get_parser()
    args = parser.parse_args(config(task))
    if hasattr(args, "token_list"):
        args.token_list = SYMBOLS.split()
    model = made.build_model(args)
    assert isinstance(model.frontend, StarFrontend)
    speech, lengths = torch.randn(2, 1600), torch.tensor([1600, 800])
    features, found = model.frontend(speech, lengths)
    assert features.shape == (2, int(found[0]), 16)
    assert "student_conf" in args.frontend_conf
    assert str(tmp_path) not in str(args.frontend_conf)
    assert "pip install espnet_star" in args.espnet_star
    base = importlib.import_module(f"espnet2.tasks.{task}")
    assert issubclass(made, getattr(base, made.__name__))


def test_hubert_is_refused(config, tmp_path):
    """Fails if the task starts a training that cannot go on: its encoders read waveforms."""
    made = student_task("hubert")
    with pytest.raises(StarError, match="hubert: no encoder of this task reads features"):
        made.build_model(made.get_parser().parse_args(config("hubert")))


def test_languages_are_told_apart_on_the_student(config, data_directory, tmp_path):
    """Fails if a training without a module of ours, and with a trainer of its own, is not ours."""
    exp = tmp_path / "lid"
    (tmp_path / "lang2utt").write_text("s0 s0_0\ns1 s1_1\n")
    options = training(data_directory, exp, *FEW, *config("lid"))
    for part in ("train", "valid"):
        options += [
            f"--{part}_data_path_and_name_and_type",
            f"{data_directory}/label,lid_labels,text",
        ]
    options += [
        "--lang2utt",
        str(tmp_path / "lang2utt"),
        "--best_model_criterion",
        "valid,loss,min",
    ]
    values = ["fix_duration=false", "noise_apply_prob=0.0", "rir_apply_prob=0.0"]
    espnet_tool.run("lid_train", [*options, *pairs("--preprocessor_conf", values)])
    shutil.rmtree(tmp_path / "student")
    assert (exp / ".lock").is_file()
    assert issubclass(student_task("lid").trainer, LIDTrainer)
    files = exp / "config.yaml", exp / "valid.loss.best.pth"
    model, _ = importlib.import_module("espnet2.tasks.lid").LIDTask.build_model_from_file(*files)
    saved = torch.load(files[1], weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_lightning(data_directory, tiny_student, tmp_path):
    """Fails if --use_lightning true refuses the student, or saves a model that needs its folder."""
    pytest.importorskip("lightning")
    tiny_student.save_pretrained(tmp_path / "student")
    options = [*cls_options(data_directory, tmp_path / "exp"), "--task", "cls"]
    options += ["--frontend", "star", "--frontend_conf", f"upstream={tmp_path}/student"]
    options += ["--encoder", "linear", "--encoder_conf", "output_size=8"]
    # ESPnet's Lightning fails without a logger, and without a scheduler.
    options += ["--use_tensorboard", "true"]
    options += ["--scheduler", "warmuplr", "--scheduler_conf", "warmup_steps=5"]
    values = ["accelerator=cpu", "devices=1", "max_epochs=1", "log_every_n_steps=1"]
    values += ["strategy_conf.process_group_backend=gloo"]
    options += pairs("--lightning_conf", values)
    (tmp_path / "exp").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "espnet_star", "-m", "espnet2.bin.lightning_train", *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert "student_conf" in config["frontend_conf"]
    assert list((tmp_path / "exp").glob("step*.ckpt"))
