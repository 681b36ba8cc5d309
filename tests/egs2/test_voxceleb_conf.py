"""Configurations of the VoxCeleb1 recipe: a bug here ends a run before its first step."""

import argparse
import itertools
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.tasks.abs_task import optim_classes, scheduler_classes

from espnet_star.students import StarEncoder
from espnet_star.tasks.cls import CLSTask
from espnet_star.tasks.spk import SpeakerTask
from espnet_star.tasks.star import StarTask

CONF = Path(__file__).resolve().parents[2] / "egs2" / "voxceleb" / "star1" / "conf"
WAVES = torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
FRONTENDS = {
    "star": ["--frontend", "star", "--frontend_conf", "normalize=false"],
    "logmel": ["--frontend", "default", "--normalize", "utterance_mvn"],
}


@pytest.fixture(scope="module")
def student(tiny_options, tmp_path_factory):
    directory = tmp_path_factory.mktemp("conf") / "student"
    torch.manual_seed(0)
    StarEncoder(**tiny_options).eval().save_pretrained(directory)
    return directory


def parse(task, config, *options):
    """Arguments as ESPnet's task reads them from a configuration; unknown keys stop it."""
    return task.get_parser().parse_args(
        ["--config", str(CONF / config), "--output_dir", "x", "--ngpu", "0", *options]
    )


def test_every_configuration_is_looked_at():
    known = {"train_sid.yaml", "train_sid_superb.yaml", "train_star.yaml", *FROZEN, *TUNED}
    assert {path.name for path in CONF.iterdir()} == known


@pytest.mark.parametrize("config", ["train_sid.yaml", "train_sid_superb.yaml"])
@pytest.mark.parametrize("system", list(FRONTENDS))
def test_identification_as_superb(student, config, system):
    """Fails if a key is unknown, the model cannot be built, or its head is another one."""
    options = [*FRONTENDS[system], "--frontend_conf", f"upstream={student}"]
    args = parse(CLSTask, config, *options[: None if system == "star" else -2])
    args.token_list = [f"id{number}" for number in range(10001, 11252)] + ["<unk>"]
    model = CLSTask.build_model(args)
    width = 16 if system == "star" else 80
    shapes = [tuple(p.shape) for p in model.parameters() if p.requires_grad and p.dim() == 2]
    assert shapes == [(256, width), (1251, 256)]
    lengths = torch.tensor([16000, 12000, 8000])
    labels = torch.tensor([[0], [7], [1250]])
    loss, _, _ = model(WAVES, lengths, labels, torch.ones(3, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss)
    updates = args.max_epoch * args.num_iters_per_epoch / args.accum_grad
    assert (updates, args.batch_size * args.accum_grad) == (200_000, 32)
    assert args.excerpt_seconds == 8.0


@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_learning_rate_of_the_authors():
    """Fails if the rate rises to another height, falls too early, or the last update fails."""
    args, plain = parse(CLSTask, "train_sid.yaml"), parse(CLSTask, "train_sid_superb.yaml")
    assert plain.optim_conf["lr"] == 1e-4
    assert plain.scheduler is None
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = optim_classes[args.optim]([parameter], **args.optim_conf)
    scheduler = scheduler_classes[args.scheduler.lower()](optimizer, **args.scheduler_conf)
    rates = {}
    for update in (0, 2500, 4990, 5010, 102_500, 200_000):
        scheduler.last_epoch = update
        rates[update] = scheduler.get_lr()[0]
    assert rates[0] < 1e-6 and rates[200_000] < 1e-6
    assert rates[2500] == pytest.approx(5e-4, rel=1e-3)
    assert rates[4990] == pytest.approx(1e-3, rel=0.01)
    assert rates[5010] == pytest.approx(1e-3, rel=0.01)
    assert rates[102_500] == pytest.approx(5e-4, rel=1e-3)


FROZEN = ("train_sv.yaml", "train_sv_ecapa.yaml")
TUNED = ("train_sv_ecapa_joint.yaml", "train_sv_ecapa_lm.yaml")


@pytest.mark.parametrize(
    ("config", "system"),
    [*itertools.product(FROZEN, FRONTENDS), *((config, "star") for config in TUNED)],
)
def test_verification_builds_and_learns(student, config, system):
    """Fails if a key is unknown, the model cannot be built, or the student is not (un)frozen."""
    options = [*FRONTENDS[system], "--spk_num", "5"]
    if system == "star":
        options += ["--frontend_conf", f"upstream={student}"]
    # The heads' widths are those of GPUs; narrower ones have the same keys.
    small = {"train_sv.yaml": {"ndim": 16}}.get(config, {"ndim": 16, "output_size": 24})
    args = parse(SpeakerTask, config, *options)
    args.encoder_conf |= small
    model = SpeakerTask.build_model(args)
    assert isinstance(model.loss.weight, torch.nn.Parameter)
    loss, stats, _ = model(WAVES, None, torch.tensor([[0], [1], [4]]))
    loss.backward()
    assert torch.isfinite(loss) and "accuracy" in stats
    if system == "star":
        trained = {name for name, p in model.named_parameters() if p.grad is not None}
        assert any(name.startswith("frontend.upstream") for name in trained) is (config in TUNED)
        assert "frontend.layer_weights" in trained
    embedding = model.eval()(WAVES[:1], extract_embd=True)
    assert embedding.shape == (1, 512 if config == "train_sv.yaml" else 192)
    args.spk2utt = "/dev/null"
    preprocess = SpeakerTask.build_preprocess_fn(args, True)
    assert preprocess.target_duration == args.preprocessor_conf["target_duration"] * 16000
    assert args.best_model_criterion == [["valid", "eer", "min"]]


def test_x_vector_keeps_every_frame(student):
    """Fails with ESPnet's paddings: its pooling divides by frames that are lost before it."""
    options = [*FRONTENDS["star"], "--frontend_conf", f"upstream={student}", "--spk_num", "5"]
    model = SpeakerTask.build_model(parse(SpeakerTask, "train_sv.yaml", *options))
    assert model.encoder(torch.randn(2, 49, 16)).shape == (2, 1500, 49)


def test_steps_hold_as_many_utterances_as_their_sources():
    def batch(config):
        args = parse(SpeakerTask, config)
        return args.batch_size * args.accum_grad

    found = {path.name: batch(path.name) for path in CONF.glob("*_sv*")}
    assert found == {
        "train_sv.yaml": 50,
        "train_sv_ecapa.yaml": 512,
        "train_sv_ecapa_joint.yaml": 512,
        "train_sv_ecapa_lm.yaml": 256,
    }


def test_distillation():
    """Fails if the task does not know a key, or the schedule restarts before its end."""
    args = parse(StarTask, "train_star.yaml")
    assert args.encoder_conf == {"preset": "starhubert"}
    assert args.scheduler_conf["first_cycle_steps"] == args.max_epoch * args.num_iters_per_epoch + 1
    raw = yaml.safe_load((CONF / "train_star.yaml").read_text())
    assert isinstance(args, argparse.Namespace) and set(raw) <= set(vars(args))
