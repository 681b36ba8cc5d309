"""Architectures of the student: presets and checked overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import HubertConfig

from espnet_star.encoders.base import hop_and_field
from espnet_star.errors import StarError, unknown_name
from espnet_star.outputs import HOP, RECEPTIVE_FIELD


def thin_front(width: int, first: int = 128, inner: int = 256) -> dict[str, Any]:
    """STaRHuBERT's convolutions (method paper, released student): seven blocks, hop 320."""
    return {
        "conv_dim": [first] + [inner] * 5 + [width] * 3,
        "conv_kernel": [10, 1, 3, 3, 3, 3, 1, 2, 2],
        "conv_stride": [5, 1, 2, 2, 2, 2, 1, 2, 2],
    }


def full_front() -> dict[str, Any]:
    """Convolutions of HuBERT Base."""
    return {
        "conv_dim": [512] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    }


def sizes(width: int, inner: int, heads: int, layers: int) -> dict[str, Any]:
    """Sizes of a Transformer."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
    }


# Widths of starhubert and starhubert_l are those of the authors' released models;
# they publish only the sizes of _s (14.1 M) and _xs (9.39 M), whose widths are ours.
# The demo's student is ours: half the convolutions, half the layers.
# LightHuBERT's a_small (arXiv 2203.15610), DiceHuBERT (2507.02911) and "12-L Half" (2207.06867)
# are one architecture: HuBERT Base at half its width.
_HALF = full_front() | sizes(384, 1536, 6, 12)
PRESETS: dict[str, dict[str, Any]] = {
    "starhubert": thin_front(432) | sizes(432, 976, 8, 12),
    "starhubert_l": thin_front(432) | sizes(432, 1392, 8, 12),
    "starhubert_s": thin_front(336) | sizes(336, 784, 8, 12),
    "starhubert_xs": thin_front(272) | sizes(272, 616, 8, 12),
    "demo": thin_front(240, first=64, inner=128) | sizes(240, 640, 4, 6),
    "half_12l": _HALF,
    "lighthubert_small": _HALF | {"mask_embedding": True},
    "dicehubert": _HALF | {"mask_embedding": True, "activation_dropout": 0.0},
}

COMMON: dict[str, Any] = {
    "conv_bias": False,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "feat_proj_dropout": 0.05,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "layerdrop": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    # Ours, not transformers': no projection after the convolutions when widths agree.
    "identity_projection": None,
    # Ours as well.
    "mask_embedding": False,
    "feature_grad_mult": 1.0,
}
# transformers never masks by itself; it has the vector where a probability is above zero.
_FIXED = {"mask_feature_prob": 0.0, "apply_spec_augment": False}
_MASK_TIME_PROB = {False: 0.0, True: 0.05}

# Only what the student implements may be set; transformers accepts any key in silence.
_SUPPORTED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "feat_extract_norm": ("group", "layer"),
    "feat_proj_layer_norm": (True, False),
    "layerdrop": (0.0,),
    "mask_embedding": (True, False),
}


def student_config(preset: str = "starhubert", **overrides: Any) -> HubertConfig:
    """Configuration of a student, as the ``HubertConfig`` that it is exported with.

    Args:
        preset: One of ``PRESETS``.
        **overrides: Any key of a preset or of ``COMMON``, in transformers' names.

    Keyword Args:
        conv_dim: Channels of each convolution of the front.
        conv_kernel: Kernel size of each convolution. With the strides it must give a
            receptive field of 400 samples (25 ms).
        conv_stride: Stride of each convolution; the product must be 320 samples (20 ms).
        hidden_size: Width D of the Transformer and of every hidden state.
        intermediate_size: Width of the feed-forward layers.
        num_attention_heads: Attention heads of a layer; must divide ``hidden_size``.
        num_hidden_layers: Transformer layers L.
        conv_bias: Whether the convolutions have a bias.
        feat_extract_norm: ``"group"`` normalizes after the first convolution over time,
            one channel a group, on valid samples only; ``"layer"`` after every
            convolution over channels.
        do_stable_layer_norm: Pre-norm layers with one LayerNorm after the last; False
            is the post-norm layout of HuBERT Base.
        num_conv_pos_embeddings: Kernel size of the positional convolution, in frames.
        num_conv_pos_embedding_groups: Its groups; must divide ``hidden_size``.
        hidden_act: Activation of the feed-forward layers; ``"gelu"`` alone.
        feat_extract_activation: Activation of the convolutions; ``"gelu"`` alone.
        feat_proj_layer_norm: LayerNorm between convolutions and Transformer, as HuBERT has;
            DistilHuBERT has none.
        feat_proj_dropout: Dropout after that LayerNorm and the projection.
        hidden_dropout: Dropout of the Transformer's input and of each sublayer's output.
        attention_dropout: Dropout of attention probabilities.
        activation_dropout: Dropout inside the feed-forward layers.
        layerdrop: Probability of skipping a layer in training; 0 alone.
        initializer_range: Standard deviation of fresh linear weights.
        layer_norm_eps: Added to the variance in every LayerNorm past the convolutions.
        identity_projection: Leave out the linear map between convolutions and
            Transformer. None does so where the last of ``conv_dim`` equals
            ``hidden_size``.
        mask_embedding: Learn a vector that stands in for masked frames, for views that mask
            the student's input; behind the projection's dropout, before the positions.
        feature_grad_mult: Factor of the gradient into the convolutions; HuBERT's is 0.1.

    Raises:
        StarError: On a misspelled preset or key, or values that do not fit together.
    """
    return build_config(preset, PRESETS, {}, overrides)


def build_config(
    preset: str,
    presets: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
    overrides: Mapping[str, Any],
    waveform: bool = True,
) -> HubertConfig:
    """The same for any architecture of ours.

    Args:
        preset: One of ``presets``.
        presets: Architectures by name.
        own: Keys beyond ``COMMON`` and their defaults; HubertConfig keeps them.
        overrides: See :func:`student_config`.
        waveform: Whether the convolutions read the waveform.

    Raises:
        StarError: See :func:`student_config`.
    """
    if preset not in presets:
        raise unknown_name("student preset", str(preset), presets)
    values = COMMON | dict(own) | dict(presets[preset])
    for key in overrides:
        if key not in values:
            raise unknown_name("student option", key, values)
    values |= dict(overrides)
    _check_sizes(values)
    _check_choices(values)
    if values["identity_projection"] is None:
        values["identity_projection"] = values["conv_dim"][-1] == values["hidden_size"]
    masked = {"mask_time_prob": _MASK_TIME_PROB[bool(values["mask_embedding"])]}
    config = HubertConfig(**values, **_FIXED, **masked)
    check_config(config, waveform)
    return config


def _check_sizes(values: dict[str, Any]) -> None:
    """Refuse what transformers would meet with a traceback or not at all."""
    for key in sizes(1, 1, 1, 1):
        if not is_size(values[key]):
            raise StarError(f"student option {key} must be a positive integer, got {values[key]!r}")
    for key in thin_front(1):
        found = values[key]
        if not isinstance(found, (list, tuple)) or not found or not all(map(is_size, found)):
            raise StarError(
                f"student option {key} must be a list of positive integers, got {found!r}"
            )
    counts = [len(values[key]) for key in thin_front(1)]
    if len(set(counts)) > 1:
        raise StarError(
            "conv_dim, conv_kernel and conv_stride must have one entry a convolution, got "
            f"{counts[0]}, {counts[1]} and {counts[2]}"
        )


def _check_choices(values: Mapping[str, Any]) -> None:
    for key, allowed in _SUPPORTED.items():
        found = values.get(key, allowed[0])
        if found not in allowed:
            raise StarError(f"student option {key} must be one of {allowed}, got {found!r}")


def is_size(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def config_options(config: HubertConfig, own: Iterable[str] = ()) -> dict[str, Any]:
    """The part of a configuration that rebuilds the student: plain values for YAML.

    Args:
        config: The configuration.
        own: Keys of its architecture beyond ``COMMON``.
    """
    keys = [*COMMON, *PRESETS["starhubert"], *own]
    plain = {key: getattr(config, key, COMMON.get(key)) for key in keys}
    return {key: list(v) if isinstance(v, (list, tuple)) else v for key, v in plain.items()}


def check_config(config: HubertConfig, waveform: bool = True) -> None:
    """Refuse architectures that the student does not implement or that cannot work.

    Args:
        config: The configuration.
        waveform: Whether the convolutions read the waveform.

    Raises:
        StarError: Naming the key, the value found and what was expected.
    """
    _check_choices(vars(config))
    dims, kernels, strides = config.conv_dim, config.conv_kernel, config.conv_stride
    hop, field = hop_and_field(kernels, strides)
    if waveform and (hop, field) != (HOP, RECEPTIVE_FIELD):
        raise StarError(
            f"the convolutions have hop {hop} and receptive field {field} samples; teachers "
            f"run at hop {HOP} and field {RECEPTIVE_FIELD} (50 frames/s at 16 kHz)"
        )
    factor = getattr(config, "feature_grad_mult", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1:
        raise StarError(f"student option feature_grad_mult must lie in 0..1, got {factor!r}")
    for key in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if config.hidden_size % getattr(config, key):
            raise StarError(
                f"hidden_size must be a multiple of {key}, got {config.hidden_size} and "
                f"{getattr(config, key)}"
            )
    if config.identity_projection and dims[-1] != config.hidden_size:
        raise StarError(
            "identity_projection needs the last of conv_dim to equal hidden_size, got "
            f"{dims[-1]} and {config.hidden_size}"
        )
