"""Configurations of the LibriSpeech recipes: read, built, and held against the paper's numbers."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.schedulers.cosine_anneal_warmup_restart import CosineAnnealingWarmupRestarts
from espnet_tools import asr_train
from librispeech_tree import SETS, UTTERANCES

from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.star import StarTask

EGS = Path(__file__).resolve().parents[2] / "egs2"
FULL, SMALL = (EGS / name / "star1" / "conf" for name in ("librispeech", "librispeech_100"))
# Parameters: two released by the authors, two chosen to meet what is published.
MODELS = {
    "starhubert": ("facebook/hubert-base-ls960", 22_308_592),
    "starhubert_l": ("facebook/hubert-base-ls960", 26_626_672),
    "starhubert_s": ("facebook/hubert-base-ls960", 14.1e6),
    "starhubert_xs": ("facebook/hubert-base-ls960", 9.39e6),
    "starwavlm": ("microsoft/wavlm-base", 22_308_592),
    "starwav2vec2": ("facebook/wav2vec2-base", 22_308_592),
}
# Folder, times through the corpus, updates as the paper rounds them, parts, hours.
SCHEDULES = [
    (FULL, 100, 586_000, SETS["train_960"], 960.9),
    (SMALL, 200, 119_000, SETS["train_100"], 100.6),
]


def parse(path, *options):
    return StarTask.get_parser().parse_args(["--config", str(path), *options])


@pytest.fixture(scope="module")
def deep_teacher(tiny_hubert, tmp_path_factory):
    """A stand-in for the Base models: as many layers, next to no width."""
    directory = tmp_path_factory.mktemp("deep")
    tiny_hubert(num_hidden_layers=12).save_pretrained(directory)
    return str(directory)


def test_both_recipes_have_every_model():
    for folder in (FULL, SMALL):
        names = {path.stem for path in folder.glob("*.yaml")}
        heads = {"train_asr", "train_asr_finetune"}
        assert names == {f"train_{model}" for model in MODELS} | {"train_star"} | heads
    for path in SMALL.glob("*.yaml"):
        assert path.name == "train_star.yaml" or path.resolve().parent != SMALL, "a copy"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_built_as_published(model, deep_teacher, batch):
    """Fails if a preset, a loss or the teacher is not the paper's."""
    args = parse(FULL / f"train_{model}.yaml")
    teacher, parameters = MODELS[model]
    assert args.teacher == teacher
    args.teacher = deep_teacher
    built = StarTask.build_model(args)
    found = sum(p.numel() for p in built.encoder.parameters())
    assert found == pytest.approx(parameters, rel=0 if isinstance(parameters, int) else 0.005)
    loss = args.losses[0]
    assert len(args.losses) == 1 and loss["name"] == "temporal_gram"
    weights = {"layerwise_weight": 1.0, "intralayer_weight": 1.0}
    assert loss["conf"] == weights | {"target_norm": "none"}


@pytest.mark.parametrize("model", MODELS)
def test_a_link_takes_the_schedule_of_its_own_recipe(model):
    """Fails if the 100 h recipe trains for 586 k updates, or another key differs."""
    full, small = (vars(parse(folder / f"train_{model}.yaml")) for folder in (FULL, SMALL))
    differing = {key for key in full if full[key] != small[key]}
    schedule = {"max_epoch", "batch_bins", "scheduler_conf", "expected_updates"}
    assert differing == {"config"} | schedule
    assert small["encoder_conf"] == full["encoder_conf"] and small["teacher"] == full["teacher"]


@pytest.mark.parametrize(
    ("folder", "passes", "published", "parts", "hours"), SCHEDULES, ids=["960", "100"]
)
def test_the_schedule_is_the_papers(folder, passes, published, parts, hours):
    """Fails if updates, warm-up, learning rate and batch no longer belong together."""
    args = parse(folder / "train_starhubert.yaml")
    utterances = sum(UTTERANCES[part] for part in parts)
    updates = args.max_epoch * args.num_iters_per_epoch
    assert updates == published == args.expected_updates and args.expected_batch == 48
    assert passes * utterances / 48 == pytest.approx(updates, rel=1e-3)
    samples = hours * 3600 * 16000 / utterances
    assert args.batch_type == "numel" and args.batch_bins / samples == pytest.approx(48, rel=2e-3)
    assert args.accum_grad == 1
    assert args.optim == "adamw" and args.grad_clip == float("inf")
    wanted = {"lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.01}
    assert args.optim_conf == wanted
    assert args.exclude_weight_decay and not any(args.exclude_weight_decay_conf.values())
    conf = args.scheduler_conf
    assert conf["warmup_steps"] == 0.05 * updates and conf["max_lr"] == 1e-3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = CosineAnnealingWarmupRestarts(optimizer, **conf)

    def rate(step):
        scheduler.step_in_cycle = step
        return scheduler.get_lr()[0]

    warm = conf["warmup_steps"]
    assert rate(0) == 0 and rate(warm) == pytest.approx(1e-3) and rate(warm // 2) == 5e-4
    assert rate((warm + updates) // 2) == pytest.approx(5e-4, rel=1e-3)
    assert rate(updates) < 1e-12 and updates < scheduler.first_cycle_steps


def test_the_top_level_configuration_is_the_base():
    top = EGS.parent / "conf"
    assert (FULL / "train_star.yaml").resolve() == top / "train_star.yaml"
    assert (SMALL / "train_asr_finetune.yaml").resolve() == top / "train_asr_finetune.yaml"
    base, model = (vars(parse(FULL / f"train_{name}.yaml")) for name in ("star", "starhubert"))
    assert {key for key in base if base[key] != model[key]} == {"config", "teacher"}


def test_the_head_is_superbs(tmp_path):
    """Fails if ESPnet reads the file otherwise than s3prl builds its head."""
    args = student_task("asr").get_parser().parse_args(["--config", str(FULL / "train_asr.yaml")])
    args = argparse.Namespace(**vars(args) | {"token_list": ["<blank>", "A", "<sos/eos>"]})
    model = student_task("asr").build_model(args)
    lstm = torch.nn.LSTM(1024, 1024, num_layers=2, bidirectional=True)
    expected = sum(p.numel() for p in lstm.parameters()) + 81 * 1024
    assert sum(p.numel() for p in model.encoder.parameters()) == expected
    assert args.max_epoch * args.num_iters_per_epoch == 200_000
    conf = args.scheduler_conf
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.Adam(parameters, **args.optim_conf)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, **conf)
    assert conf["total_steps"] == 200_001
    rates = {}
    for step in (0, 1400, 100_700, 200_000):
        scheduler.last_epoch = step
        rates[step] = scheduler.get_lr()[0]
    assert max(rates.values()) == pytest.approx(1e-4, rel=1e-3)
    assert rates[0] < 1e-5 and rates[200_000] < 1e-8
    assert rates[1400] == pytest.approx(1e-4, rel=1e-3)
    assert rates[100_700] == pytest.approx(5e-5, rel=1e-2)


def few(data, exp, config, *options):
    command = ["--config", str(config), "--output_dir", str(exp), "--ngpu", "0", "--max_epoch", "1"]
    command += ["--num_iters_per_epoch", "2", "--num_workers", "0", "--use_tensorboard", "false"]
    command += ["--token_type", "char", "--token_list", f"{data}/tokens"]
    for part in ("train", "valid"):
        command += [f"--{part}_shape_file", f"{data}/utt2num_samples"]
        for triple in ("wav.scp,speech,sound", "text,text,text"):
            command += [f"--{part}_data_path_and_name_and_type", f"{data}/{triple}"]
    asr_train.main([*command, *options])


def test_heads_leave_the_models_that_are_decoded(data_directory, tiny_student, tmp_path):
    """Fails if a run of hours ends without the model file that run.sh names."""
    tiny_student.save_pretrained(tmp_path / "student")
    upstream = f"upstream={tmp_path}/student"
    named = (FULL.parent / "run.sh").read_text()
    frontend = ["--frontend", "star", "--frontend_conf", upstream]
    small = ["--encoder_conf", "hidden_size=8", "--encoder_conf", "project=8"]
    few(data_directory, tmp_path / "frozen", FULL / "train_asr.yaml", *frontend, *small)
    assert (tmp_path / "frozen" / "valid.cer_ctc.best.pth").is_file()
    assert "--asr_model valid.cer_ctc)" in named
    finetune = FULL / "train_asr_finetune.yaml"
    few(data_directory, tmp_path / "tuned", finetune, "--encoder_conf", upstream)
    assert (tmp_path / "tuned" / "valid.cer_ctc.ave.pth").is_file()
    config = yaml.safe_load((tmp_path / "tuned" / "config.yaml").read_text())
    assert config["scheduler"] == "warmuplr" and config["frontend"] is None
