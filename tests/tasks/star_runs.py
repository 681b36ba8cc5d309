"""Command lines of short distillations, and processes that run them beside the tests."""

import io
import logging
import math
import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path

import soundfile
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


def shard_data(data):
    """Options that read shards for training and validation."""
    return ["--train_shards", str(data), "--valid_shards", str(data)]


def training(data, exp, *extra):
    """Options of any training on CPU, on a Kaldi-style directory or on shards."""
    options = ["--output_dir", str(exp), "--ngpu", "0", "--num_workers", "0"]
    options += ["--batch_type", "unsorted", "--batch_size", "4", "--log_interval", "1"]
    for name in OFF:
        options += [f"--{name}", "false"]
    read = shard_data if (Path(data) / "shards.json").exists() else sound_data
    return [*options, *read(data), *map(str, extra)]


def distillation(teacher, data, exp, student, *extra):
    """Options of a distillation into a tiny student; ``extra`` come last and win."""
    options = ["--teacher", str(teacher), "--max_epoch", "2", "--resume", "true"]
    options += ["--optim", "adamw", "--optim_conf", "lr=0.002", "--seed", "3"]
    options += pairs("--encoder_conf", [f"{key}={value}" for key, value in student.items()])
    return [*training(data, exp), *options, *map(str, extra)]


def spoiled(data, target, *keys, value=math.nan, count=8):
    """First utterances of the data; the recordings named hold a sample that is no number."""
    target.mkdir()
    lines = sorted((data / "wav.scp").read_text().splitlines())[:count]
    paths = dict(line.split() for line in lines)
    for key in keys:
        samples, rate = soundfile.read(paths[key], dtype="float32")
        samples[100] = value
        paths[key] = target / f"{key}.wav"
        soundfile.write(paths[key], samples, rate, subtype="FLOAT")
    (target / "wav.scp").write_text("".join(f"{key} {path}\n" for key, path in paths.items()))
    lengths = (data / "utt2num_samples").read_text().splitlines(keepends=True)
    kept = [line for line in lengths if line.split()[0] in paths]
    (target / "utt2num_samples").write_text("".join(kept))
    return target


def distill(command):
    """Run one; also the target of a process of its own."""
    from espnet_star.tasks.star import StarTask

    torch.set_num_threads(1)
    StarTask.main(cmd=command)


def start(command, kill_at=None):
    """Run a distillation in a process beside the tests.

    Args:
        kill_at: Where it sends itself SIGKILL, which nothing can soften: ``("log", text)``
            before that line of the log, or ``("save", name, number, part)`` in the middle
            of writing a file for the ``number``-th time, with that part of it written, or
            none of it for None.
    """
    process = CONTEXT.Process(target=_quiet, args=(command, kill_at))
    process.start()
    return process


def _quiet(command, kill_at):
    with log_of(command).open("a") as log:
        sys.stderr = log
        if kill_at is not None:
            {"log": _die_at_log, "save": _die_at_save}[kill_at[0]](*kill_at[1:])
        try:
            distill(command)
        except BaseException:
            traceback.print_exc(file=log)
            raise


def log_of(command):
    """File that a started process writes its log to."""
    return Path(command[command.index("--output_dir") + 1] + ".err")


def _die_at_log(text):
    make = logging.getLogRecordFactory()

    def watch(*args, **kwargs):
        record = make(*args, **kwargs)
        if text in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    logging.setLogRecordFactory(watch)


def _die_at_save(name, number, part):
    save, seen = torch.save, []

    def watch(states, path, *args, **kwargs):
        if getattr(path, "name", None) == name:
            seen.append(path)
        if len(seen) < number:
            return save(states, path, *args, **kwargs)
        if part is not None:
            save(states, buffer := io.BytesIO())
            path.write_bytes(buffer.getvalue()[: int(part * buffer.tell())])
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = watch


def join(processes, codes=0):
    """Wait for processes and expect an exit code of each, or the same of all."""
    processes = processes if isinstance(processes, list) else [processes]
    for process in processes:
        process.join(300)
    expected = codes if isinstance(codes, list) else [codes] * len(processes)
    assert [process.exitcode for process in processes] == expected


def ranks(command, meet, world=2, kill_at=None):
    """Start the same distillation on every rank, through ESPnet's own options and gloo."""
    options = ["--dist_backend", "gloo", "--dist_init_method", f"file://{meet}"]
    options += ["--dist_world_size", str(world)]
    return [
        start([*command, *options, "--dist_rank", str(rank)], kill_at if rank == 0 else None)
        for rank in range(world)
    ]


def states(exp):
    """Everything a checkpoint holds."""
    return torch.load(Path(exp) / "checkpoint.pth", weights_only=False)


def statistics(exp, epoch, section, name):
    """A statistic of an epoch, as the checkpoint keeps it."""
    return states(exp)["reporter"]["stats"][epoch][section][name]


def weights(exp, name="checkpoint.pth"):
    """Model's weights in a checkpoint, or in a model file."""
    states = torch.load(Path(exp) / name, weights_only=False)
    return states["model"] if name.startswith("checkpoint") else states


def assert_same_weights(one, other, name="checkpoint.pth"):
    """Bit by bit."""
    one, other = weights(one, name), weights(other, name)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(other[key], value), key


def assert_same_updates(exp, single, start, tolerance=1e-3):
    """The way from the start agrees, relative to its length, in every parameter."""
    one, other = weights(single), weights(exp)
    moved = 0
    for name, value in start.items():
        way, gap = (one[name] - value).norm(), (other[name] - one[name]).norm()
        # Softmax ignores what shifts all scores of a query: these gradients are rounding.
        if not name.endswith("k_proj.bias"):
            assert gap <= tolerance * way + 1e-7, (name, float(gap), float(way))
            moved += way > 1e-5
    assert moved > 0.8 * len(start)
