"""Models to be measured: presets, published shapes, directories, experiments, teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from espnet_star import catalog
from espnet_star.encoders import Encoder
from espnet_star.encoders.attention import own_attention
from espnet_star.errors import StarError, unknown_name
from espnet_star.outputs import HOP
from espnet_star.students import STUDENTS, Student
from espnet_star.students.directory import build_own, is_own, load_student
from espnet_star.students.experiment import is_distillation, load_experiment
from espnet_star.students.hugging_face import find_file, load_config, read_json
from espnet_star.students.star_encoder import encoder_from_config
from espnet_star.teachers import build_teacher, loading
from espnet_star.teachers.hugging_face import HuggingFaceTeacher
from espnet_star.teachers.whisper import MEL_HOP, WhisperTeacher

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
# Published encoders as plain transformers runs them, without their weights: model type and
# configuration in its naming. DistilHuBERT is a preset of ours as well.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert_base": ("hubert", _BASE),
    "wav2vec2_base": ("wav2vec2", _BASE),
    "wavlm_base": ("wavlm", _BASE),
    "distilhubert_transformers": (
        "hubert",
        _BASE | {"num_hidden_layers": 2, "feat_proj_layer_norm": False},
    ),
}
PRESETS = {name: cls for cls in STUDENTS.values() for name in cls.presets}


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        name: Its label in tables.
        source: What it was found by: preset, directory, hub name.
        build: Makes it anew with random weights, in eval mode and float32, on torch's
            default device.
        load: Makes it with its own weights on the CPU; None where it has none.
        bytes: Size of the weights on disk, None where there is no directory.
        counts_on: Device that its operations are counted on: ``meta``, or ``cpu`` where
            it needs real numbers to run.
        max_samples: Longest utterance that it reads, None where there is no limit.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    load: Callable[[], nn.Module] | None = None
    bytes: int | None = None
    counts_on: str = "meta"
    max_samples: int | None = None

    def at_work(self) -> nn.Module:
        """The model as it would be used: its own weights if there are any, students prepared."""
        model = (self.load or self.build)()
        return model.prepare() if isinstance(model, Encoder) else model


def student_subject(name: str, student: Student) -> Subject:
    """A student of an architecture that is at hand."""
    build = type(student)
    return Subject(name, name, lambda: build(**student.options()).eval())


def find_subjects(texts: Sequence[str]) -> list[Subject]:
    """Every model of a comparison, before any is measured.

    Args:
        texts: As for :func:`find_subject`, or ``LABEL=MODEL``. Something that exists under
            the whole text, ``=`` and all, is taken for that.

    Raises:
        StarError: As :func:`find_subject`, or if two models have one label.
    """
    found: dict[str, Subject] = {}
    for text in texts:
        label, equals, source = text.partition("=")
        if not equals or Path(text).exists():
            label = source = text
        if not label or not source:
            raise StarError(f"model {text!r}: expected a model, or LABEL=MODEL with both given")
        if label in found:
            raise StarError(
                f"two models are called {label!r}; give one of them another label, as LABEL=MODEL"
            )
        found[label] = replace(find_subject(source), name=label)
    return list(found.values())


def find_subject(name: str) -> Subject:
    """What a name stands for.

    Args:
        name: A key of ``PRESETS`` or :data:`SHAPES`, a Hugging Face directory, the folder
            of a distillation experiment, a hub name, or any other teacher. ``./starhubert``
            is a directory even where there is a preset of that name.

    Raises:
        StarError: If it is none of these, or a model that cannot be measured.
    """
    if name in PRESETS:
        return Subject(name, name, partial(_untrained, PRESETS[name], name))
    if name in SHAPES:
        model_type, values = SHAPES[name]
        return Subject(name, name, lambda: _from_config(model_type, values))
    path = Path(name)
    if not path.exists() and "/" not in name and not path.suffix and ":" not in name:
        raise unknown_name("model (or directory)", name, [*PRESETS, *SHAPES])
    kind = catalog.kind_of(name)
    if kind == "onnx":
        raise StarError(f"{name}: operations of an ONNX file cannot be counted; give the student")
    if kind == "student":
        return _of_student(name)
    return _of_teacher(name, kind)


def _untrained(architecture: type[Student], preset: str) -> Student:
    return architecture(preset=preset).eval()


def _of_student(name: str) -> Subject:
    """A student's directory, hub name or experiment; a directory's weights are not read yet."""
    if is_distillation(name):
        found = student_subject(name, load_experiment(name))
        return replace(found, load=lambda: load_experiment(name))
    path = find_file(name, "config.json")
    values = read_json(path)
    if is_own(values):
        build_own(values, path)

        def build() -> Student:
            return build_own(values, path).eval()
    else:
        config = load_config(name)

        def build() -> Student:
            return encoder_from_config(config).eval()

    return Subject(name, name, build, lambda: load_student(name), _weight_bytes(Path(name)))


def _of_teacher(name: str, kind: str) -> Subject:
    """A teacher; without weights where its configuration says all, else it is asked to work."""
    path = Path(name)
    size = path.stat().st_size if path.is_file() else _weight_bytes(path)
    subject = Subject(name, name, lambda: build_teacher(name, kind), bytes=size)
    if kind not in ("hugging_face", "whisper"):
        return replace(subject, counts_on="cpu")
    values = own_attention(read_json(find_file(name, "config.json")))
    model_type = values.pop("model_type")
    if kind == "hugging_face":
        return replace(
            subject,
            build=lambda: _from_config(model_type, values),
            load=lambda: _with_weights(name),
        )
    whisper = transformers.WhisperConfig(**values)
    return replace(
        subject,
        build=lambda: WhisperTeacher.from_config(whisper),
        load=lambda: build_teacher(name, kind),
        max_samples=whisper.max_source_positions * HOP,
    )


def _from_config(model_type: str, values: dict[str, Any]) -> nn.Module:
    config = transformers.AutoConfig.for_model(model_type, **values)
    return transformers.AutoModel.from_config(config, dtype=torch.float32).eval()


def _with_weights(name: str) -> nn.Module:
    """A relative of HuBERT in plain transformers, as it would run without this package."""
    config = loading.read_config(name, HuggingFaceTeacher.model_types)
    return loading.load_weights(transformers.AutoModel, name, config).eval()


def _weight_bytes(directory: Path) -> int | None:
    """Bytes of the weights that transformers would load, None where there are none."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = list(directory.glob(pattern)) if directory.is_dir() else []
        if files:
            return sum(file.stat().st_size for file in files)
    return None


def run(model: nn.Module, speech: torch.Tensor) -> torch.Tensor:
    """Last state ``(1, N, D)`` of one waveform.

    On the meta device Whisper starts from its log-mel spectrogram, which is no part of
    the network.

    Args:
        model: What :attr:`Subject.build` or :meth:`Subject.at_work` made.
        speech: Samples at 16 kHz, ``(1, T)``.
    """
    # On the CPU even if the model is on torch's meta device: lengths steer the code.
    lengths = torch.tensor([speech.shape[1]], device="cpu")
    if isinstance(model, WhisperTeacher) and speech.is_meta:
        mel_lengths = lengths // MEL_HOP
        bins = model.encoder.config.num_mel_bins
        mel = torch.empty(1, bins, int(mel_lengths), device="meta")
        return model.encode_mel(mel, mel_lengths)[0][-1]
    if isinstance(model, Encoder):
        return model.output(model.encode(speech, lengths).hidden_states[-1])
    return model(speech).last_hidden_state
