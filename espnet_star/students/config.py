"""Architectures of the student: presets and checked overrides."""

from __future__ import annotations

from typing import Any

from transformers import HubertConfig

from espnet_star.encoders.base import hop_and_field
from espnet_star.errors import StarError, unknown_name
from espnet_star.outputs import HOP, RECEPTIVE_FIELD


def _front(width: int, first: int = 128, inner: int = 256) -> dict[str, Any]:
    """STaRHuBERT's convolutions (method paper, released student): seven blocks, hop 320."""
    return {
        "conv_dim": [first] + [inner] * 5 + [width] * 3,
        "conv_kernel": [10, 1, 3, 3, 3, 3, 1, 2, 2],
        "conv_stride": [5, 1, 2, 2, 2, 2, 1, 2, 2],
    }


def _encoder(width: int, inner: int, heads: int, layers: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
    }


# Widths of starhubert and starhubert_l are those of the authors' released models;
# they publish only the sizes of _s (14.1 M) and _xs (9.39 M), whose widths are ours.
# The demo's student is ours: half the convolutions, half the layers.
PRESETS: dict[str, dict[str, Any]] = {
    "starhubert": _front(432) | _encoder(432, 976, 8, 12),
    "starhubert_l": _front(432) | _encoder(432, 1392, 8, 12),
    "starhubert_s": _front(336) | _encoder(336, 784, 8, 12),
    "starhubert_xs": _front(272) | _encoder(272, 616, 8, 12),
    "demo": _front(240, first=64, inner=128) | _encoder(240, 640, 4, 6),
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
}
# Kept off: the student sees unmasked audio and has no mask embedding.
_FIXED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False}

# Only what the student implements may be set; transformers accepts any key in silence.
_SUPPORTED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "feat_extract_norm": ("group", "layer"),
    "feat_proj_layer_norm": (True,),
    "layerdrop": (0.0,),
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
        feat_proj_layer_norm: LayerNorm between convolutions and Transformer; True alone.
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

    Raises:
        StarError: On a misspelled preset or key, or values that do not fit together.
    """
    if preset not in PRESETS:
        raise unknown_name("student preset", str(preset), PRESETS)
    values = COMMON | PRESETS[preset]
    for key in overrides:
        if key not in values:
            raise unknown_name("student option", key, values)
    values |= overrides
    _check_sizes(values)
    if values["identity_projection"] is None:
        values["identity_projection"] = values["conv_dim"][-1] == values["hidden_size"]
    config = HubertConfig(**values, **_FIXED)
    check_config(config)
    return config


def _check_sizes(values: dict[str, Any]) -> None:
    """Refuse what transformers would meet with a traceback or not at all."""
    for key in _encoder(1, 1, 1, 1):
        if not _is_size(values[key]):
            raise StarError(f"student option {key} must be a positive integer, got {values[key]!r}")
    for key in _front(1):
        found = values[key]
        if not isinstance(found, (list, tuple)) or not found or not all(map(_is_size, found)):
            raise StarError(
                f"student option {key} must be a list of positive integers, got {found!r}"
            )
    counts = [len(values[key]) for key in _front(1)]
    if len(set(counts)) > 1:
        raise StarError(
            "conv_dim, conv_kernel and conv_stride must have one entry a convolution, got "
            f"{counts[0]}, {counts[1]} and {counts[2]}"
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def config_options(config: HubertConfig) -> dict[str, Any]:
    """The part of a configuration that rebuilds the student: plain values for YAML."""
    keys = COMMON | PRESETS["starhubert"]
    plain = {key: getattr(config, key, COMMON.get(key)) for key in keys}
    return {key: list(v) if isinstance(v, (list, tuple)) else v for key, v in plain.items()}


def check_config(config: HubertConfig) -> None:
    """Refuse architectures that the student does not implement or that cannot work.

    Raises:
        StarError: Naming the key, the value found and what was expected.
    """
    for key, allowed in _SUPPORTED.items():
        found = getattr(config, key, allowed[0])
        if found not in allowed:
            raise StarError(f"student option {key} must be one of {allowed}, got {found!r}")
    dims, kernels, strides = config.conv_dim, config.conv_kernel, config.conv_stride
    hop, field = hop_and_field(kernels, strides)
    if (hop, field) != (HOP, RECEPTIVE_FIELD):
        raise StarError(
            f"the convolutions have hop {hop} and receptive field {field} samples; teachers "
            f"run at hop {HOP} and field {RECEPTIVE_FIELD} (50 frames/s at 16 kHz)"
        )
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
