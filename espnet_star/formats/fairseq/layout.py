"""fairseq's description of HuBERT-shaped encoders, and what transformers calls the same.

Keys, defaults and tensor names are those of fairseq's ``HubertConfig`` and ``HubertModel``
(github.com/facebookresearch/fairseq, ``fairseq/models/hubert``), which wav2vec 2.0, WavLM
(github.com/microsoft/unilm, ``wavlm``) and the STaR paper's students share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from espnet_star.errors import StarError
from espnet_star.formats.fairseq.conv_layers import read_conv_layers

# fairseq's key -> transformers' key and fairseq's default. Sizes have a largest value,
# so that a damaged file asks for no more than a machine has.
SIZES = {
    "encoder_layers": ("num_hidden_layers", 12, 200),
    "encoder_embed_dim": ("hidden_size", 768, 16384),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072, 65536),
    "encoder_attention_heads": ("num_attention_heads", 12, 1024),
    "conv_pos": ("num_conv_pos_embeddings", 128, 4096),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16, 4096),
}
RATES = {
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "dropout_input": ("feat_proj_dropout", 0.0),
}
FLAGS = {
    "conv_bias": ("conv_bias", False),
    "layer_norm_first": ("do_stable_layer_norm", False),
}
EXTRACTOR_MODES = {"default": "group", "layer_norm": "layer"}
CONV_LAYERS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"
# Keys whose other values mean an architecture that a HubertConfig does not describe; the
# last two are WavLM's.
FIXED: dict[str, tuple[Any, ...]] = {
    "activation_fn": ("gelu",),
    "layer_type": ("transformer",),
    "pos_conv_depth": (1, 0),
    "crop_seq_to_multiple": (1,),
    "relative_position_embedding": (False,),
    "gru_rel_pos": (False,),
}
# transformers' parameter names -> fairseq's; GroupNorm stands at 2, LayerNorm at 2.1.
_NAMES = (
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.conv\.", r"\1.0."),
    (r"\.pos_conv_embed\.conv\.parametrizations\.weight\.original0$", ".pos_conv.0.weight_g"),
    (r"\.pos_conv_embed\.conv\.parametrizations\.weight\.original1$", ".pos_conv.0.weight_v"),
    (r"\.pos_conv_embed\.conv\.", ".pos_conv.0."),
    (r"^(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
)
_WAVLM_NAMES = (
    (r"\.attention\.gru_rel_pos_const$", ".self_attn.grep_a"),
    (r"\.attention\.gru_rel_pos_linear\.", ".self_attn.grep_linear."),
    (r"\.attention\.rel_attn_embed\.", ".self_attn.relative_attention_bias."),
)
_EXTRACTOR_NORM = r"^(feature_extractor\.conv_layers\.\d+)\.layer_norm\."


def architecture(
    found: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]] = FIXED
) -> dict[str, Any]:
    """Options of a transformers configuration for fairseq's.

    Args:
        found: fairseq's keys; what is missing has fairseq's default.
        fixed: The values that keys may have.

    Raises:
        StarError: Naming the key, what was expected and what stands there.
    """
    for key, supported in fixed.items():
        if found.get(key, supported[0]) not in supported:
            choices = " or ".join(map(repr, supported))
            raise StarError(f"{key} must be {choices} for HubertModel, got {found[key]!r}")
    options: dict[str, Any] = {}
    for key, (name, default, largest) in SIZES.items():
        value = options[name] = found.get(key, default)
        if type(value) is not int or not 0 < value <= largest:
            raise StarError(f"{key} must be a whole number from 1 to {largest}, got {value!r}")
    for key in ("encoder_attention_heads", "conv_pos_groups"):
        value, width = options[SIZES[key][0]], options["hidden_size"]
        if width % value:
            raise StarError(f"encoder_embed_dim must be a multiple of {key}, got {width}, {value}")
    for key, (name, rate) in RATES.items():
        value = options[name] = found.get(key, rate)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise StarError(f"{key} must be a number from 0 to below 1, got {value!r}")
    for key, (name, flag) in FLAGS.items():
        value = options[name] = found.get(key, flag)
        if type(value) is not bool:
            raise StarError(f"{key} must be true or false, got {value!r}")
    mode = found.get("extractor_mode", "default")
    if not isinstance(mode, str) or mode not in EXTRACTOR_MODES:
        raise StarError(f"extractor_mode must be one of {[*EXTRACTOR_MODES]}, got {mode!r}")
    options["feat_extract_norm"] = EXTRACTOR_MODES[mode]
    return options | _front(found.get("conv_feature_layers", CONV_LAYERS))


def _front(text: Any) -> dict[str, Any]:
    try:
        layers = read_conv_layers(text)
    except StarError as error:
        raise StarError(f"conv_feature_layers: {error}") from error
    dims, kernels, strides = (list(column) for column in zip(*layers, strict=True))
    return {"conv_dim": dims, "conv_kernel": kernels, "conv_stride": strides}


def fairseq_name(name: str, feat_extract_norm: str) -> str:
    """What fairseq calls a parameter.

    Args:
        name: Parameter name in transformers' naming.
        feat_extract_norm: ``"group"`` or ``"layer"``.
    """
    norm = r"\1.2.1." if feat_extract_norm == "layer" else r"\1.2."
    for pattern, replacement in (*_WAVLM_NAMES, *_NAMES, (_EXTRACTOR_NORM, norm)):
        name = re.sub(pattern, replacement, name)
    return name
