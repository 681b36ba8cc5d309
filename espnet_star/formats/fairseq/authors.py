"""Students that others released: a Lightning checkpoint and a YAML, or one file of s3prl.

The ``distiller`` block is the architecture in fairseq's naming; tensors of a Lightning checkpoint
whose names start with ``student_model.`` are the student. :mod:`.released` says of whom.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import HubertConfig

from espnet_star.data.errors import some
from espnet_star.errors import StarError
from espnet_star.files.yaml_files import read_yaml
from espnet_star.formats.fairseq.file import load_plain
from espnet_star.formats.fairseq.released import Plan, plan
from espnet_star.students.star_encoder import StarEncoder

PREFIX = "student_model."


@dataclass(frozen=True)
class Imported:
    """A student read from the authors' files.

    Attributes:
        student: In eval mode, float32.
        left_out: What else the checkpoint held, e.g. ``{"teacher_model": 211}`` tensors.
    """

    student: StarEncoder
    left_out: dict[str, int]


def import_student(
    checkpoint: str | Path, architecture: str | Path | None = None, heads: str = "none"
) -> Imported:
    """Read a student that its authors released.

    Args:
        checkpoint: Lightning's ``.ckpt`` or s3prl's, read as tensors and plain values only.
        architecture: The YAML that belongs to Lightning's; None for s3prl's, which holds it.
        heads: Which prediction heads to keep, see :func:`~.released.plan`.

    Raises:
        StarError: If a file is unreadable, the architecture is none of ours (naming the key),
            or tensors are missing, unknown, misshapen or not finite (naming them as the
            checkpoint does).
    """
    path = Path(checkpoint)
    if architecture is None:
        block, found = _read_s3prl(path)
        prefix, source = "", f"{path}"
    else:
        block, found = _read_distiller(Path(architecture)), None
        prefix, source = PREFIX, f"{path} and {architecture}"
    released = _plan(block, heads, path if architecture is None else architecture)
    state = _read_state_dict(path) if found is None else found
    tensors, left_out = _sort(state, released, prefix, path)
    with torch.device("meta"):
        expected = released.cls(**released.options).state_dict()
    names = {released.name(name): name for name in expected}
    _check_names(tensors, set(names), source, prefix)
    for name, tensor in tensors.items():
        _check_tensor(prefix + name, tensor, expected[names[name]].shape, f"{path}")
    student = released.cls(**released.options)
    student.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return Imported(student.eval(), left_out)


def read_architecture(path: str | Path) -> HubertConfig:
    """The ``distiller`` block of a YAML as a student's configuration.

    Raises:
        StarError: Naming the key that stands in the way, what was found there and what
            is supported.
    """
    released = _plan(_read_distiller(Path(path)), "none", path)
    with torch.device("meta"):
        return released.cls(**released.options).config


def _plan(block: Mapping[str, Any], heads: str, path: str | Path) -> Plan:
    """Plan of a block, proved to make a student."""
    try:
        released = plan(block, heads)
        with torch.device("meta"):
            released.cls(**released.options)
    except StarError as error:
        raise StarError(f"{path}: distiller: {error}") from error
    return released


def _read_distiller(path: Path) -> dict[str, Any]:
    block = read_yaml(path).get("distiller")
    if not isinstance(block, dict):
        raise StarError(
            f"{path}: has no block 'distiller'; give the YAML that the authors publish beside "
            "the checkpoint"
        )
    return block


def _read_s3prl(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and tensors of a checkpoint of s3prl's Distiller."""
    content = load_plain(path)
    config = content.get("Config") if isinstance(content, dict) else None
    block = config.get("distiller") if isinstance(config, dict) else None
    if not isinstance(block, dict) or not isinstance(content.get("Distiller"), dict):
        raise StarError(
            f"{path}: has no 'Distiller' and 'Config', as checkpoints of s3prl's DistilHuBERT "
            "have; give the YAML of any other (--yaml)"
        )
    return block, dict(content["Distiller"])


def _sort(
    state: Mapping[str, Any], released: Plan, prefix: str, path: Path
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The student's tensors by the authors' names, and how many others there are."""
    with torch.device("meta"):
        expected = {released.name(name) for name in released.cls(**released.options).state_dict()}
    tensors: dict[str, torch.Tensor] = {}
    others: Counter[str] = Counter()
    for key, value in state.items():
        # As torch writes the weight norm's parts since 2.0.
        name = key.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if not key.startswith(prefix):
            others[key.partition(".")[0]] += 1
            continue
        name, value = released.adapt(name.removeprefix(prefix), value)
        unused = [label for start, label in released.unused.items() if name.startswith(start)]
        if unused and name not in expected:
            others[unused[0]] += 1
        else:
            tensors[name] = value
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


def _check_names(
    tensors: Mapping[str, torch.Tensor], expected: set[str], source: str, prefix: str
) -> None:
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        found = [f"missing {some(missing, 20)}"] if missing else []
        found += [f"unknown {some(unknown, 20)}"] if unknown else []
        raise StarError(
            f"{source} do not describe the same student: {'; '.join(found)}"
            + (f" (names after {prefix!r})" if prefix else "")
        )


def _check_tensor(name: str, tensor: Any, shape: torch.Size, source: str) -> None:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        kind = str(tensor.dtype) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise StarError(f"{source}: {name} must hold floating-point numbers, got {kind}")
    if tensor.shape != shape:
        raise StarError(
            f"{source}: {name} must have shape {tuple(shape)} by the YAML, got "
            f"{tuple(tensor.shape)}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise StarError(f"{source}: {name} holds NaN or infinity; take another checkpoint")
