"""Distillation by Lightning: the same student as ESPnet2's trainer makes, however it runs."""

import math

import pytest
import torch
import yaml
from espnet3_runs import assert_close, espnet2, weights


@pytest.fixture(scope="module")
def by_espnet2(base, data_directory, tmp_path_factory):
    """The same training by ``star_train``."""
    exp = tmp_path_factory.mktemp("espnet2") / "exp"
    model = base["model"]
    options = ["--teacher", model["teacher"], "--output_dir", str(exp), "--ngpu", "0"]
    options += ["--num_workers", "0", "--batch_type", "unsorted", "--batch_size", "4"]
    options += ["--max_epoch", "2", "--seed", "3", "--grad_clip", "inf", "--optim", "adamw"]
    options += ["--use_matplotlib", "false", "--use_tensorboard", "false"]
    options += ["--exclude_weight_decay", "true", "--scheduler", "CosineAnnealingWarmupRestarts"]
    pairs = [("encoder", f"{key}={value}") for key, value in model["encoder_conf"].items()]
    adamw = ("lr=1.0e-3", "betas=[0.9,0.98]", "eps=1.0e-6", "weight_decay=0.01")
    pairs += [("optim", pair) for pair in adamw]
    cosine = ("first_cycle_steps=100", "warmup_steps=2", "max_lr=1.0e-3", "min_lr=0.0")
    pairs += [("scheduler", pair) for pair in cosine]
    for name, pair in pairs:
        options += [f"--{name}_conf", pair]
    for split in ("train", "valid"):
        options += [f"--{split}_shape_file", f"{data_directory}/utt2num_samples"]
        table = f"{data_directory}/wav.scp,speech,sound"
        options += [f"--{split}_data_path_and_name_and_type", table]
    espnet2(options)
    return exp


def test_a_resumed_run_makes_the_student_of_espnet2(plain, by_espnet2):
    """Fails if batches, their order, updates, decay or what is restored were other ones."""
    assert_close(plain / "last.ckpt", by_espnet2 / "latest.pth")


def test_the_configuration_records_the_same_choices(plain, by_espnet2):
    """Fails if target_norm or the architecture stayed open, or ESPnet2's defaults remained."""
    ours, theirs = (
        yaml.safe_load((exp / "config.yaml").read_text()) for exp in (plain, by_espnet2)
    )
    for key in ("losses", "encoder", "encoder_conf", "teacher", "batch_type", "batch_size", "seed"):
        assert ours[key] == theirs[key], key
    for key in ("max_epoch", "accum_grad", "use_amp", "train_dtype", "grad_clip", "ngpu"):
        assert ours[key] == theirs[key], key
    for key in ("train_shape_file", "train_data_path_and_name_and_type"):
        assert [*map(list, map(str, ours[key]))] == [*map(list, map(str, theirs[key]))], key
    assert ours["losses"][0]["conf"] == {"target_norm": "none"}
    assert ours["scheduler_conf"] == theirs["scheduler_conf"] and math.isinf(ours["grad_clip"])


def test_checkpoints_hold_the_student_alone(plain):
    """Fails if the teacher's weights were saved, or its parameters trained."""
    for path in plain.glob("*.ckpt"):
        states = torch.load(path, weights_only=True)
        assert all(name.startswith("encoder.") for name in states["state_dict"])
        for optimizer in states.get("optimizer_states", []):
            assert len(optimizer["state"]) == len(states["state_dict"])


def test_the_average_has_the_last_epoch_in_it(plain):
    """Fails if it was made before Lightning had saved that epoch, as ESPnet3 by itself does."""
    average = weights(plain / "valid.loss.ave.pth")
    best = [weights(path) for path in plain.glob("epoch*_valid.loss.ckpt")]
    assert len(best) == 2
    for key, value in average.items():
        torch.testing.assert_close(value, (best[0][key] + best[1][key]) / 2)


def test_two_processes_train_as_one(experiment, plain):
    """Fails if ranks saw the same samples, or the teacher took part in the exchange."""
    ddp = {"num_device": 2, "trainer": {"strategy": "ddp"}}
    exp = experiment("ddp", ddp, stages=("train", "export"), world=2)
    assert_close(exp / "last.ckpt", plain / "last.ckpt")
    assert_close(exp / "valid.loss.ave.pth", plain / "valid.loss.ave.pth")
    assert yaml.safe_load((exp / "config.yaml").read_text())["dist_world_size"] == 2


def test_shards_train_as_one_and_go_on_after_a_stop(experiment, plain):
    """Fails if a checkpoint could not be written, or weights or moments were lost on the way."""
    fsdp = {"num_device": 2, "trainer": {"strategy": {"_target_": "cpu_fsdp.CpuFSDP"}}}
    short = {**fsdp, "trainer": {**fsdp["trainer"], "max_epochs": 1}}
    exp = experiment("fsdp", short, fsdp, world=2)
    assert_close(exp / "last.ckpt", plain / "last.ckpt")
    assert_close(exp / "valid.loss.ave.pth", plain / "valid.loss.ave.pth")


def test_bfloat16_leaves_weights_and_objective_in_float32(experiment, plain):
    """Fails if precision were ignored, or the loss rounded to eight bits."""
    exp = experiment("bf16", {"trainer": {"precision": "bf16-mixed"}})
    ours, exact = weights(exp / "last.ckpt"), weights(plain / "last.ckpt")
    gaps = [float((value - exact[key]).abs().max()) for key, value in ours.items()]
    assert 1e-6 < max(gaps) < 0.05
    assert {value.dtype for value in ours.values()} == {torch.float32}
    log = (exp / "train.log").read_text()
    losses = [
        float(line.split(" loss=")[1].split(",")[0])
        for line in log.splitlines()
        if "epoch:valid:" in line
    ]
    rounded = [float(torch.tensor(loss).bfloat16()) for loss in losses]
    assert len(losses) == 2 and losses != rounded
