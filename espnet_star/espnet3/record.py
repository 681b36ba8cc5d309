"""A training by ESPnet3 in the words of ESPnet2, which everything that reads experiments knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_DTYPES = {"bf16-true": "bfloat16", "16-true": "float16"}


def espnet2_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ESPnet3 did, by the names of ESPnet2's options.

    ESPnet3 fills its ``config.yaml`` up with ESPnet2's defaults (``optim: adadelta``,
    ``max_epoch: 40``), none of which has any effect on what it does.

    Args:
        config: Content of that file, everything resolved.

    Returns:
        Values to put in their place.
    """
    trainer = config["trainer"]
    precision = str(trainer.get("precision", "32-true"))
    clip = trainer.get("gradient_clip_val")
    options = {
        "max_epoch": trainer.get("max_epochs"),
        "accum_grad": trainer.get("accumulate_grad_batches", 1),
        "grad_clip": float("inf") if clip is None else clip,
        "log_interval": trainer.get("log_every_n_steps"),
        "use_amp": "mixed" in precision,
        "train_dtype": _DTYPES.get(precision, "float32"),
        "keep_nbest_models": [kept for _, kept, _ in config["best_model_criterion"]],
        "best_model_criterion": [
            [*monitor.split("/", 1), mode] for monitor, _, mode in config["best_model_criterion"]
        ],
    }
    for old, new in (("optim", "optimizer"), ("scheduler", "scheduler")):
        options[old], options[f"{old}_conf"] = _target(config[new])
    options["optim"] = options["optim"].lower()
    for split in ("train", "valid"):
        table = [f"{path}/wav.scp" for path in _directories(config["dataset"].get(split) or [])]
        options[f"{split}_data_path_and_name_and_type"] = [
            [path, "speech", "sound"] for path in table
        ]
    return options | _batches(config["dataloader"])


def _target(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and keyword arguments of what Hydra is to make."""
    name = str(section["_target_"]).rpartition(".")[2]
    return name, {key: value for key, value in section.items() if not key.startswith("_")}


def _directories(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [(entry.get("data_src_args") or {}).get("data_dir") for entry in entries]
    return [str(path) for path in found if path]


def _batches(loaders: Mapping[str, Any]) -> dict[str, Any]:
    train = loaders["train"].get("iter_factory")
    if train is None:  # torch's own DataLoader
        return {"batch_type": "unsorted", "batch_size": loaders["train"].get("batch_size", 1)}
    options = {key: train.get(key) for key in ("num_iters_per_epoch", "num_workers")}
    batches = train["batches"]
    options["batch_type"] = batches["type"]
    for key in ("batch_size", "batch_bins", "sort_in_batch", "sort_batch"):
        if key in batches:
            options[key] = batches[key]
    for split in ("train", "valid"):
        factory = (loaders.get(split) or {}).get("iter_factory") or {}
        options[f"{split}_shape_file"] = (factory.get("batches") or {}).get("shape_files") or []
    return options
