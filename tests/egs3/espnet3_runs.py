"""Short distillations by ESPnet3 in processes of their own, one a rank."""

import copy
import multiprocessing
import os
import socket
import sys
import traceback
from multiprocessing.connection import wait
from pathlib import Path

import torch
import yaml

# Forked from one that has imported everything and touched neither autograd nor logging.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["espnet_star.espnet3.system", "espnet_star.espnet3.callback"])


def merged(base, extra):
    """Nested mappings, those of ``extra`` winning."""
    result = copy.deepcopy(base)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def write(path, *parts):
    """Configuration file out of parts, the last of which win."""
    config = {}
    for part in parts:
        config = merged(config, part)
    path.write_text(yaml.safe_dump(config))
    return path


def run(config, *stages, world=1):
    """Run stages on one or several ranks; exit code and log of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [Path(f"{config}.rank{rank}.log") for rank in range(world)]
    processes = [
        CONTEXT.Process(target=_rank, args=(config, stages, rank, world, port, log))
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    waiting = {process.sentinel: process for process in processes}
    while waiting and (ended := wait(waiting, timeout=240)):
        # A rank that fails leaves the others waiting for it.
        if any(waiting.pop(sentinel).exitcode for sentinel in ended):
            break
    for process in processes:
        process.kill()
        process.join()
    return [(p.exitcode, log.read_text()) for p, log in zip(processes, logs, strict=True)]


def espnet2(command):
    """Run ``star_train`` beside the tests."""
    process = CONTEXT.Process(target=_espnet2, args=(command,))
    process.start()
    process.join(240)
    assert process.exitcode == 0


def _espnet2(command):
    from espnet_star.tasks.star import StarTask

    torch.set_num_threads(1)
    StarTask.main(cmd=command)


def _rank(config, stages, rank, world, port, log):
    torch.set_num_threads(1)
    if world > 1:  # what torchrun sets
        values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        values |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        values |= {"TORCHELASTIC_RUN_ID": "test"}
        os.environ |= {name: str(value) for name, value in values.items()}
    from espnet_star.espnet3.launch import main

    # Never closed: logging goes on writing while the process ends.
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    try:
        main(["--stages", *stages, "--training_config", str(config)])
    except BaseException:
        traceback.print_exc()
        raise


def weights(path):
    """Weights by name, out of a model file or a checkpoint."""
    states = torch.load(path, map_location="cpu", weights_only=True)
    return states.get("state_dict", states)


def assert_close(one, other, gap=5e-6):
    """The same weights but for rounding."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        found = float((value - other[key]).abs().max())
        assert found < gap, f"{key}: {found}"
