"""Command lines of short distillations, and processes that run them beside the tests."""

import multiprocessing
import sys
from pathlib import Path

import torch

# Processes are forked from one that has imported ESPnet, which takes long, and has
# touched neither autograd nor an accelerator.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["espnet_star.tasks.star"])

OFF = ("use_matplotlib", "use_tensorboard", "use_amp", "multiprocessing_distributed")
ZERO_DROPOUT = [
    f"{name}=0.0"
    for name in ("feat_proj_dropout", "hidden_dropout", "attention_dropout", "activation_dropout")
]


def pairs(option, values):
    """The same option once for each ``key=value``."""
    return [part for value in values for part in (option, value)]


def sound_data(data):
    """Options that read waveforms and their lengths for training and validation."""
    options = []
    for part in ("train", "valid"):
        options += [f"--{part}_data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"]
        options += [f"--{part}_shape_file", f"{data}/utt2num_samples"]
    return options


def training(data, exp, *extra):
    """Options of any training on CPU."""
    options = ["--output_dir", str(exp), "--ngpu", "0", "--num_workers", "0"]
    options += ["--batch_type", "unsorted", "--batch_size", "4", "--log_interval", "1"]
    for name in OFF:
        options += [f"--{name}", "false"]
    return [*options, *sound_data(data), *map(str, extra)]


def distillation(teacher, data, exp, student, *extra):
    """Options of a distillation into a tiny student; ``extra`` come last and win."""
    options = ["--teacher", str(teacher), "--max_epoch", "2", "--resume", "true"]
    options += ["--optim", "adamw", "--optim_conf", "lr=0.002", "--seed", "3"]
    options += pairs("--encoder_conf", [f"{key}={value}" for key, value in student.items()])
    return [*training(data, exp), *options, *map(str, extra)]


def distil(command):
    """Run one; also the target of a process of its own."""
    from espnet_star.tasks.star import StarTask

    torch.set_num_threads(1)
    StarTask.main(cmd=command)


def start(command):
    """Run a distillation in a process beside the tests."""
    process = CONTEXT.Process(target=_quiet, args=(command,))
    process.start()
    return process


def _quiet(command):
    with (Path(command[command.index("--output_dir") + 1] + ".err")).open("a") as log:
        sys.stderr = log
        distil(command)


def weights(exp, name="checkpoint.pth"):
    """Model's weights in a checkpoint, or in a model file."""
    states = torch.load(Path(exp) / name, weights_only=False)
    return states["model"] if name.startswith("checkpoint") else states
