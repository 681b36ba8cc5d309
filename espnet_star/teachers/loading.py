"""What every adapter of a Transformers checkpoint needs: files, weights and checks."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from espnet_star.encoders.attention import own_attention
from espnet_star.encoders.base import hop_and_field
from espnet_star.errors import StarError, unknown_name
from espnet_star.outputs import HOP, RECEPTIVE_FIELD, SAMPLE_RATE
from espnet_star.terminal.quiet import without_weight_bars

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Only masked frames need it, and checkpoints trained without masking lack it.
UNUSED_KEYS = frozenset({"masked_spec_embed"})


def one_line(error: BaseException) -> str:
    """First non-empty line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def read_model_type(name: str) -> str:
    """Model type of a checkpoint, from its ``config.json``.

    Args:
        name: Hub name or directory.

    Returns:
        What ``model_type`` says.

    Raises:
        StarError: If there is no such directory or hub name, or no model type in it.
    """
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        raise StarError(
            f"teacher {name!r}: no config.json in this directory; give one written by "
            "save_pretrained, an experiment of ESPnet (it has a config.yaml), or a hub name"
        )
    if not path.is_dir() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise StarError(f"teacher {name!r}: no such directory; check the path")
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(name)
    except (OSError, ValueError) as error:
        raise StarError(
            f"teacher {name!r}: cannot read config.json ({one_line(error)}); check the hub "
            "name and the network, or give a directory written by save_pretrained"
        ) from error
    if "model_type" not in config:
        raise StarError(f"teacher {name!r}: config.json names no model_type; add it")
    return str(config["model_type"])


def read_config(name: str, model_types: Collection[str]) -> Any:
    """Transformers configuration of a checkpoint that an adapter can read.

    Args:
        name: Hub name or directory.
        model_types: Model types of the adapter.

    Returns:
        The configuration object.

    Raises:
        StarError: As :func:`read_model_type`, or if the model type is another one.
    """
    model_type = read_model_type(name)
    if model_type not in model_types:
        raise unsupported(name, model_type, model_types)
    values, _ = transformers.PretrainedConfig.get_config_dict(name)
    return transformers.CONFIG_MAPPING[model_type].from_dict(own_attention(values, name))


def unsupported(name: str, model_type: str, known: Collection[str]) -> StarError:
    """Error for a model type that no adapter, or not the adapter asked for, can read."""
    return StarError(
        f"teacher {name!r} has model_type {model_type!r} (config.json), supported: "
        f"{', '.join(sorted(known))}"
    )


def read_preparation(name: str) -> dict[str, Any]:
    """Content of ``preprocessor_config.json``, empty where there is none.

    Args:
        name: Hub name or directory.

    Returns:
        The feature extractor's settings as a dictionary.

    Raises:
        StarError: If the model was trained at a sampling rate other than 16 kHz.
    """
    try:
        settings, _ = transformers.FeatureExtractionMixin.get_feature_extractor_dict(name)
    except OSError:
        return {}
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise wrong_rate(name, rate, "preprocessor_config.json")
    return settings


def wrong_rate(name: str, rate: object, source: str) -> StarError:
    """Error for a model of another sampling rate, and where that is written."""
    return StarError(
        f"teacher {name!r} was trained at {rate} Hz ({source}), the student reads "
        f"{SAMPLE_RATE} Hz; choose a teacher trained at {SAMPLE_RATE} Hz"
    )


def load_weights(model_class: Any, name: str, config: Any, **kwargs: Any) -> torch.nn.Module:
    """Build a model in float32 and fill in every weight, or fail.

    Transformers only warns of a weight that the checkpoint lacks and leaves it random;
    a teacher with random weights would train a student on noise.

    Args:
        model_class: Transformers class with ``from_pretrained``.
        name: Hub name or directory.
        config: Transformers configuration to build from.
        **kwargs: Handed on to ``from_pretrained``.

    Returns:
        The model. Pickled checkpoints go through torch's ``weights_only`` reader.

    Raises:
        StarError: If weights are absent, unreadable, misshapen or incomplete.
    """
    path = Path(name)
    if path.is_dir() and not any((path / file).is_file() for file in WEIGHT_FILES):
        raise StarError(
            f"teacher {name!r}: no weights in this directory; expected {WEIGHT_FILES[0]} "
            f"or {WEIGHT_FILES[2]} beside config.json"
        )
    try:
        with without_weight_bars():
            model, info = model_class.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                **kwargs,
            )
    except pickle.UnpicklingError as error:
        raise StarError(
            f"teacher {name!r}: its pickled weights are damaged or hold more than tensors, which "
            "is not read; give a checkpoint in safetensors"
        ) from error
    except ImportError as error:  # quantized weights and the like
        raise StarError(
            f"teacher {name!r}: its config.json asks for what is not installed "
            f"({one_line(error)}); install it, or remove that key from config.json"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise StarError(
            f"teacher {name!r}: cannot load the weights ({one_line(error)}); copy or "
            "download the checkpoint again, and check that config.json belongs to it"
        ) from error
    for key in UNUSED_KEYS & set(info["missing_keys"]):
        setattr(model, key, None)  # random numbers are no vector
    missing = sorted(set(info["missing_keys"]) - UNUSED_KEYS)
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise StarError(
            f"teacher {name!r}: the checkpoint lacks {len(missing)} weights of its "
            f"{config.model_type} encoder ({shown}); config.json and weights do not belong together"
        )
    return model


def check_frame_rate(name: str, kernels: Collection[int], strides: Collection[int]) -> None:
    """Refuse a convolutional front that does not give the student's frames.

    Args:
        name: Teacher, for the message.
        kernels: Kernel size of each convolution.
        strides: Stride of each convolution.

    Raises:
        StarError: If the hop is not 320 samples or the receptive field not 400.
    """
    hop, field = hop_and_field(kernels, strides)
    if hop != HOP:
        raise StarError(
            f"teacher {name!r} gives {SAMPLE_RATE / hop:g} frames/s (hop {hop}), the student "
            f"{SAMPLE_RATE / HOP:g} (hop {HOP}); choose a teacher with hop {HOP}"
        )
    if field != RECEPTIVE_FIELD:
        raise StarError(
            f"teacher {name!r} sees {field} samples a frame, the student {RECEPTIVE_FIELD}, so "
            f"frame counts differ; choose a teacher with a receptive field of {RECEPTIVE_FIELD}"
        )


def check_dtype(dtype: str) -> torch.dtype:
    """Computation type from its name.

    Raises:
        StarError: If the name is not one of :data:`DTYPES`.
    """
    if dtype not in DTYPES:
        raise unknown_name("teacher dtype", dtype, DTYPES)
    return DTYPES[dtype]


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Run in ``dtype`` whatever precision the student's training step runs in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
