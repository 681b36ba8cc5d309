"""A trained downstream model with an ONNX file in the place of its student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_star.errors import StarError
from espnet_star.formats.model_file import read_model
from espnet_star.formats.onnx_student import OnnxStudent
from espnet_star.formats.staging import staged

CONFIG = "config.yaml"
MODEL = "model.pth"
_STUDENT = "frontend.upstream."
_LAYER_WEIGHTS = "frontend.layer_weights"


def swap(
    config: str | Path,
    model_file: str | Path,
    onnx: str | Path,
    directory: str | Path,
    force: bool = False,
) -> None:
    """Write ``config.yaml`` and ``model.pth`` that ESPnet's inference runs with the ONNX file.

    The configuration names the file as it is given here; the model keeps the layer weights and
    the head, and drops the student.

    Args:
        config: ``config.yaml`` of a training with ``--frontend star``.
        model_file: One of its models.
        onnx: File with all layers of that student.
        directory: Created if missing.
        force: Replace what is there.

    Raises:
        StarError: If the model has no student as frontend or the file is not one of it.
    """
    directory = Path(directory)
    for name in (CONFIG, MODEL):
        if (directory / name).exists() and not force:
            raise StarError(f"{directory} already holds {name}; give --force true to replace it")
    values = _read_config(Path(config))
    state = read_model(Path(model_file))
    encoder = OnnxStudent(onnx)
    _check_fit(encoder, values["frontend_conf"]["student_conf"], state, model_file)
    conf = {k: v for k, v in values["frontend_conf"].items() if k != "student_conf"}
    values["frontend_conf"] = conf | {"upstream": str(onnx), "freeze_updates": None}
    kept = {key: value for key, value in state.items() if not key.startswith(_STUDENT)}
    with staged(directory) as scratch:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (scratch / CONFIG).write_text(text, encoding="utf-8")
        torch.save(kept, scratch / MODEL)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StarError(f"{path} cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise StarError(f"{path} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict) or values.get("frontend") != "star":
        raise StarError(f"{path} must come from a training with --frontend star")
    if not (values.get("frontend_conf") or {}).get("student_conf"):
        raise StarError(
            f"{path} has no student_conf: its frontend is a teacher, or an ONNX file already; "
            "expected a model trained on a student"
        )
    return values


def _check_fit(
    encoder: OnnxStudent,
    student: dict[str, Any],
    state: dict[str, torch.Tensor],
    model_file: str | Path,
) -> None:
    """Refuse a file of another shape than the student it replaces."""
    if encoder.layers != "all":
        raise StarError(
            f"{encoder.name} gives the last layer only; write it with star_onnx --layers all"
        )
    if _LAYER_WEIGHTS not in state:
        raise StarError(f"{model_file} has no {_LAYER_WEIGHTS}; expected a model of that training")
    shape = encoder.shape
    expected = (len(state[_LAYER_WEIGHTS]) - 1, student["hidden_size"])
    if (shape.layers, shape.width) != expected:
        raise StarError(
            f"{model_file} was trained on a student of {expected[0]} layers and width "
            f"{expected[1]}, but {encoder.name} has {shape.layers} and {shape.width}"
        )
