"""Student to and from a Hugging Face directory that ``HubertModel`` reads."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor
from transformers.utils import cached_file

from espnet_star.encoders.attention import own_attention
from espnet_star.errors import StarError
from espnet_star.files.staging import staged
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students.base import Student
from espnet_star.students.config import check_config
from espnet_star.students.star_encoder import StarEncoder, encoder_from_config
from espnet_star.terminal.quiet import without_weight_bars

WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "preprocessor_config.json")
# Written into config.json; raised when a reader of today would misread what is written.
FORMAT = 1
# Largest difference of a hidden state between us and transformers, relative to its size.
TOLERANCE = 1e-5
_PROJECTION = "feature_projection.projection"
# Heads and pre-training leftovers of published HuBERT checkpoints, not of the encoder.
_UNUSED = ("masked_spec_embed", "lm_head.", "classifier.", "projector.", "layer_weights")


def save_student(encoder: StarEncoder, directory: str | Path) -> None:
    """Write a student's directory, whole or not at all.

    Args:
        encoder: The student.
        directory: Created if missing; files of the same name are replaced once everything
            has been written beside them.

    Raises:
        StarError: If it cannot be written.
    """
    with staged(directory) as scratch:
        write_student(encoder, scratch)


def write_student(encoder: StarEncoder, directory: Path) -> None:
    """Write configuration, weights and feature extractor.

    HubertModel always has a linear map after the convolutions; where the student has
    none, an identity matrix is written and ``identity_projection`` notes it.

    Args:
        encoder: The student.
        directory: An existing one, for instance of :func:`staged`.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    if encoder.config.identity_projection:
        width = encoder.config.hidden_size
        state[f"{_PROJECTION}.weight"] = torch.eye(width)
        state[f"{_PROJECTION}.bias"] = torch.zeros(width)
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=SAMPLE_RATE,
        padding_value=0.0,
        do_normalize=False,
        return_attention_mask=True,
    )
    notes = {"architectures": ["HubertModel"], "star_format": FORMAT}
    HubertConfig.from_dict(encoder.config.to_dict() | notes).save_pretrained(directory)
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    # safetensors lets nobody but the owner read, whatever the umask says.
    (directory / WEIGHTS).chmod((directory / "config.json").stat().st_mode)
    extractor.save_pretrained(directory)


def load_hubert(name_or_directory: str | Path) -> StarEncoder:
    """Student from a directory or hub name, in eval mode.

    Raises:
        StarError: If files are missing, the architecture is not one the student
            implements, or weights are missing or left over.
    """
    config = load_config(name_or_directory)
    encoder = encoder_from_config(config)
    path = find_file(name_or_directory, WEIGHTS)
    encoder.load_weights(read_weights(path), str(path))
    return encoder.eval()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file.

    Raises:
        StarError: If it is none, or was cut short.
    """
    try:
        return load_file(path)
    except Exception as error:
        raise StarError(
            f"{path} is not a complete safetensors file ({error}); copy or download it again"
        ) from error


@torch.no_grad()
def check_saved(student: StarEncoder, directory: str | Path) -> float:
    """Load what was saved, with our reader and with plain transformers, and compare.

    Args:
        student: What was saved, in eval mode.
        directory: Where.

    Returns:
        Largest difference from ``transformers.HubertModel`` in any hidden state, on two
        seconds of noise.

    Raises:
        StarError: If a weight came back changed or hidden states differ by more than
            ``TOLERANCE``, relative to the states' own size.
    """
    saved = load_hubert(directory).state_dict()
    for name, value in student.state_dict().items():
        if not torch.equal(saved[name], value):
            raise StarError(f"{Path(directory).name}: {name} was not read back as it was written")
    with without_weight_bars():
        plain = HubertModel.from_pretrained(directory).eval()
    speech = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0))
    ours = student.encode(speech, torch.tensor([speech.shape[1]])).hidden_states
    theirs = plain(speech, output_hidden_states=True)
    # In the pre-norm layout, whether their last state has passed the final LayerNorm
    # depends on the version of transformers; last_hidden_state always has.
    pairs = list(zip(ours[:-1], theirs.hidden_states[:-1], strict=True))
    pairs.append((student.output(ours[-1]), theirs.last_hidden_state))
    gap = max(float((a - b).abs().max()) for a, b in pairs)
    scale = max(float(a.abs().max()) for a, _ in pairs)
    if not gap <= TOLERANCE * max(1.0, scale):
        raise StarError(
            f"{Path(directory).name} gives other features in transformers: off by {gap:.2e}"
        )
    return gap


def need_hubert(student: Student, source: str | Path, advice: str = "") -> StarEncoder:
    """A student that is to be written for others to read.

    Args:
        student: The student.
        source: Where it is from, for messages.
        advice: What else to do, behind a semicolon.

    Raises:
        StarError: If no HubertModel can hold it.
    """
    if student.beyond_hubert or not isinstance(student, StarEncoder):
        raise StarError(
            f"{source}: its student is a {type(student).__name__}, which no HubertModel of "
            f"transformers can hold ({student.beyond_hubert}); espnet_star.load and --frontend "
            f"star read this folder as it is{advice}"
        )
    return student


def load_config(name_or_directory: str | Path) -> HubertConfig:
    """Configuration of a student directory, checked.

    Raises:
        StarError: If it is not a HuBERT that the student implements, or was written by a
            later version of espnet_star.
    """
    path = find_file(name_or_directory, "config.json")
    # Read here, since HubertConfig takes any model_type for its own.
    values = read_json(path)
    found = values.get("model_type")
    if found != "hubert":
        raise StarError(f"{path} must describe a HuBERT (model_type hubert), got {found!r}")
    check_format(values, path)
    try:
        values = own_attention({"identity_projection": False} | values)
        config = HubertConfig.from_dict(values)
        check_config(config)
    except StarError as error:
        raise StarError(f"{path}: {error}") from error
    except Exception as error:  # which class depends on the version of transformers
        raise StarError(f"{path} is not a HuBERT's configuration ({_one_line(error)})") from error
    return config


def check_format(values: dict[str, Any], path: Path) -> None:
    """Refuse what a later version has written.

    Raises:
        StarError: Naming both formats.
    """
    written = values.get("star_format", FORMAT)
    if written not in range(1, FORMAT + 1):
        raise StarError(
            f"{path} has star_format {written!r}, this espnet_star reads up to {FORMAT}; it was "
            "written by a later one: update espnet_star"
        )


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join(lines) or type(error).__name__


def read_json(path: Path) -> dict[str, Any]:
    """A ``config.json`` as a mapping.

    Raises:
        StarError: If the file holds anything else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StarError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(values, dict):
        raise StarError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def own_names(
    state: dict[str, torch.Tensor],
    source: str,
    identity_projection: bool,
    keep: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """A HubertModel state dict by the names of a student.

    Args:
        state: Tensors by transformers' names, with or without a ``hubert.`` prefix.
        source: File name for messages.
        identity_projection: Whether the student has no projection.
        keep: Names that the student has, though most encoders do not.

    Raises:
        StarError: If there is a projection that the student has not.
    """
    state = {key.removeprefix("hubert."): value for key, value in state.items()}
    state = {k: v for k, v in state.items() if k in keep or not k.startswith(_UNUSED)}
    # Old checkpoints name the weight norm's parts g and v.
    renames = {"weight_g": "parametrizations.weight.original0"}
    renames["weight_v"] = "parametrizations.weight.original1"
    for old, new in renames.items():
        key = f"encoder.pos_conv_embed.conv.{old}"
        if key in state:
            state[key.removesuffix(old) + new] = state.pop(key)
    return _drop_identity(state, source) if identity_projection else state


def _drop_identity(state: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """Remove the identity that ``save_student`` wrote; refuse anything else in its place."""
    weight = state.pop(f"{_PROJECTION}.weight", None)
    bias = state.pop(f"{_PROJECTION}.bias", None)
    same = weight is None or torch.equal(weight.float(), torch.eye(weight.shape[0]))
    if not same or (bias is not None and bool(bias.any())):
        raise StarError(
            f"{source}: config.json says identity_projection, but {_PROJECTION} is not an "
            "identity; remove identity_projection from config.json to keep the projection"
        )
    return state


def find_file(name_or_directory: str | Path, filename: str) -> Path:
    """A file of a local directory, or of a hub repository through its cache."""
    directory = Path(name_or_directory)
    if directory.is_dir():
        path = directory / filename
        if not path.is_file() or path.stat().st_size == 0:
            raise StarError(
                f"{directory} has no {filename}; a student directory holds config.json and "
                f"{WEIGHTS} (python -m espnet_star star_export transformers writes one)"
            )
        return path
    try:
        path = cached_file(str(name_or_directory), filename)
    except (OSError, ValueError) as error:
        raise StarError(
            f"{name_or_directory} is neither a directory here nor a hub model with {filename}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return Path(path)
