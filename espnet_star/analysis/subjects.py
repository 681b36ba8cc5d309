"""Models to be measured: presets, reference shapes, directories, experiments, hub names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from espnet_star.errors import StarError, unknown_name
from espnet_star.formats.experiment import is_experiment, load_experiment
from espnet_star.formats.hugging_face import find_file, load_config, read_json
from espnet_star.students import PRESETS, StarEncoder
from espnet_star.students.star_encoder import encoder_from_config
from espnet_star.teachers.hugging_face import HuggingFaceTeacher

_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}
# Published encoders without their weights: model type and configuration in transformers'
# naming. DistilHuBERT (arXiv 2110.01900) is HuBERT Base cut after its second layer.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert_base": ("hubert", _BASE),
    "wav2vec2_base": ("wav2vec2", _BASE),
    "wavlm_base": ("wavlm", _BASE),
    "distilhubert": ("hubert", _BASE | {"num_hidden_layers": 2}),
}


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        name: As the user gave it.
        build: Makes it anew with random weights, in eval mode and float32, on torch's
            default device.
        bytes: Size of the weights on disk, None where there is no directory.
    """

    name: str
    build: Callable[[], nn.Module]
    bytes: int | None = None


def find_subject(name: str) -> Subject:
    """What a name stands for.

    Args:
        name: A key of ``PRESETS`` or :data:`SHAPES`, a Hugging Face directory, the folder
            of a distillation experiment, or a hub name. ``./starhubert`` is a directory
            even where there is a preset of that name.

    Raises:
        StarError: If it is none of these, or a model that cannot be measured.
    """
    if name in PRESETS:
        return Subject(name, lambda: StarEncoder(preset=name).eval())
    if name in SHAPES:
        model_type, values = SHAPES[name]
        return Subject(name, lambda: _from_config(model_type, values))
    path = Path(name)
    if not path.is_dir() and "/" not in name:
        raise unknown_name("model (or directory)", name, [*PRESETS, *SHAPES])
    if is_experiment(path):
        options = load_experiment(path).options()
        return Subject(name, lambda: StarEncoder(**options).eval())
    return _from_directory(name)


def _from_directory(name: str) -> Subject:
    """A Hugging Face directory or hub name; its weights are not read."""
    config_path = find_file(name, "config.json")
    values = read_json(config_path)
    model_type = values.pop("model_type", None)
    if model_type not in HuggingFaceTeacher.model_types:
        raise StarError(
            f"{config_path} has model_type {model_type!r}; measured are "
            f"{', '.join(HuggingFaceTeacher.model_types)}"
        )
    size = _weight_bytes(Path(name))
    if values.get("identity_projection"):  # only ours leaves that projection out
        config = load_config(name)
        return Subject(name, lambda: encoder_from_config(config).eval(), size)
    return Subject(name, lambda: _from_config(model_type, values), size)


def _from_config(model_type: str, values: dict[str, Any]) -> nn.Module:
    config = transformers.AutoConfig.for_model(model_type, **values)
    return transformers.AutoModel.from_config(config, dtype=torch.float32).eval()


def _weight_bytes(directory: Path) -> int | None:
    """Bytes of the weights that transformers would load, None where there are none."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = list(directory.glob(pattern)) if directory.is_dir() else []
        if files:
            return sum(file.stat().st_size for file in files)
    return None


def run(model: nn.Module, speech: torch.Tensor) -> torch.Tensor:
    """Last state ``(1, N, D)`` of one waveform.

    Args:
        model: What :attr:`Subject.build` made.
        speech: Samples at 16 kHz, ``(1, T)``.
    """
    if isinstance(model, StarEncoder):
        # On the CPU even if the model is on torch's meta device: lengths steer the code.
        lengths = torch.tensor([speech.shape[1]], device="cpu")
        return model(speech, lengths)[0]
    return model(speech).last_hidden_state
