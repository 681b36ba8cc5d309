"""Students that the STaR paper's authors released: a Lightning checkpoint and a YAML.

The ``distiller`` block of the YAML is the architecture in fairseq's naming; tensors of
the checkpoint whose names start with ``student_model.`` are the student. Keys, defaults
and tensor names follow the authors' reader (github.com/sungnyun/ARMHuBERT,
``models/starhubert``), which builds a HuBERT-shaped student whatever the teacher was.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import HubertConfig

from espnet_star.data.errors import some
from espnet_star.errors import StarError, unknown_name
from espnet_star.files.yaml_files import read_yaml
from espnet_star.formats.fairseq.layout import (
    FIXED,
    FLAGS,
    RATES,
    SIZES,
    architecture,
    fairseq_name,
)
from espnet_star.students.config import student_config
from espnet_star.students.star_encoder import StarEncoder, encoder_from_config

PREFIX = "student_model."
# The authors' reader drops this head too: no feature passes through it.
_HEAD = "final_proj."

# They change training, initialization or padding that attention does not see: no feature.
_NO_EFFECT = {
    "encoder_layerdrop", "feature_grad_mult", "final_dim", "max_positions",
    "checkpoint_activations", "required_seq_len_multiple", "init_conv_layers",
    "init_encoder_layers", "layer_grad_scale", "num_buckets", "max_distance",
    "_name", "_cnn_weight", "_teacher_task_agnostic",
}  # fmt: skip
_KNOWN = {*SIZES, *RATES, *FLAGS, *FIXED, *_NO_EFFECT, "extractor_mode", "conv_feature_layers"}


@dataclass(frozen=True)
class Imported:
    """A student read from the authors' files.

    Attributes:
        student: In eval mode, float32.
        left_out: What else the checkpoint held, e.g. ``{"teacher_model": 211}`` tensors.
    """

    student: StarEncoder
    left_out: dict[str, int]


def import_student(checkpoint: str | Path, architecture: str | Path) -> Imported:
    """Read a student that the authors released.

    Args:
        checkpoint: Lightning's ``.ckpt``, read as tensors and plain values only.
        architecture: The YAML that belongs to it.

    Raises:
        StarError: If a file is unreadable, the architecture is one that ``HubertModel``
            cannot be (naming the key), or tensors are missing, unknown, misshapen or
            not finite (naming them as the checkpoint does).
    """
    config = read_architecture(architecture)
    tensors, left_out = _read_tensors(Path(checkpoint))
    with torch.device("meta"):
        expected = encoder_from_config(config).state_dict()
    names = {fairseq_name(name, config.feat_extract_norm): name for name in expected}
    _check_names(tensors, set(names), f"{checkpoint} and {architecture}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[names[name]].shape, f"{checkpoint}")
    student = encoder_from_config(config)
    student.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return Imported(student.eval(), left_out)


def read_architecture(path: str | Path) -> HubertConfig:
    """The ``distiller`` block of a YAML as a student's configuration.

    Raises:
        StarError: Naming the key that stands in the way, what was found there and what
            is supported.
    """
    found = _read_distiller(Path(path))
    try:
        options = _options(found)
        return student_config("starhubert", **options)
    except StarError as error:
        raise StarError(f"{path}: distiller: {error}") from error


def _read_distiller(path: Path) -> dict[str, Any]:
    block = read_yaml(path).get("distiller")
    if not isinstance(block, dict):
        raise StarError(
            f"{path}: has no block 'distiller'; give the YAML that the authors publish beside "
            "the checkpoint"
        )
    return block


def _options(found: dict[str, Any]) -> dict[str, Any]:
    """Options of :func:`student_config` for a ``distiller`` block."""
    for key in found:
        if key not in _KNOWN:
            raise unknown_name("key", str(key), _KNOWN)
    return architecture(found)


def _read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The student's tensors by the authors' names, and how many others there are."""
    state = _read_state_dict(path)
    tensors: dict[str, torch.Tensor] = {}
    others: Counter[str] = Counter()
    for key, value in state.items():
        # As torch writes the weight norm's parts since 2.0.
        name = key.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if not key.startswith(PREFIX):
            others[key.partition(".")[0]] += 1
        elif name.startswith(PREFIX + _HEAD):
            others["final_proj"] += 1
        else:
            tensors[name.removeprefix(PREFIX)] = value
    if not tensors:
        raise StarError(
            f"{path}: no name in its state_dict starts with {PREFIX!r}, found "
            f"{some(f'{name}.*' for name in others) or 'none'}; give a checkpoint of the authors"
        )
    return tensors, dict(others)


def _read_state_dict(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StarError(f"{path}: no such file; give the authors' .ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {refused[1]}" if refused else str(error).splitlines()[0]
        raise StarError(
            f"{path}: not a checkpoint of tensors and plain values ({reason}), and nothing else is "
            "read from files; if you trust it, save its 'state_dict' alone with torch.save and "
            "give that"
        ) from error
    except Exception as error:  # torch's own reasons depend on where the file ends
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise StarError(
            f"{path}: not a complete checkpoint ({reason}); download it again"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise StarError(f"{path}: holds no state_dict of named tensors; give the authors' .ckpt")
    return state


def _check_names(tensors: dict[str, torch.Tensor], expected: set[str], source: str) -> None:
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        found = [f"missing {some(missing, 20)}"] if missing else []
        found += [f"unknown {some(unknown, 20)}"] if unknown else []
        raise StarError(
            f"{source} do not describe the same student: {'; '.join(found)} (names after "
            f"{PREFIX!r})"
        )


def _check_tensor(name: str, tensor: Any, shape: torch.Size, source: str) -> None:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        kind = str(tensor.dtype) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise StarError(f"{source}: {PREFIX}{name} must hold floating-point numbers, got {kind}")
    if tensor.shape != shape:
        raise StarError(
            f"{source}: {PREFIX}{name} must have shape {tuple(shape)} by the YAML, got "
            f"{tuple(tensor.shape)}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise StarError(f"{source}: {PREFIX}{name} holds NaN or infinity; take another checkpoint")
