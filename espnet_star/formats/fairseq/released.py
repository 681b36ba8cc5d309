"""Which student a released ``distiller`` block describes, and what its tensors are called.

Keys and names are those of the authors' readers: github.com/sungnyun/ARMHuBERT (STaRHuBERT,
ARMHuBERT, MaskHuBERT), github.com/glory20h/FitHuBERT and s3prl's ``upstream/distiller``
(DistilHuBERT).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from espnet_star.errors import StarError, unknown_name
from espnet_star.formats.fairseq.layout import (
    FIXED,
    FLAGS,
    RATES,
    SIZES,
    architecture,
    fairseq_name,
)
from espnet_star.students import ArmHubert, DistilHubert, FitHubert, StarEncoder

HEADS = ("none", "last", "all")
_MAX_HEADS = 100

# They change training, initialization or padding that attention does not see: no feature.
_NO_EFFECT = {
    "encoder_layerdrop", "feature_grad_mult", "final_dim", "max_positions",
    "checkpoint_activations", "required_seq_len_multiple", "init_conv_layers",
    "init_encoder_layers", "layer_grad_scale", "num_buckets", "max_distance",
    "_name", "_cnn_weight", "_teacher_task_agnostic",
}  # fmt: skip
_STAR = {*SIZES, *RATES, *FLAGS, *FIXED, *_NO_EFFECT, "extractor_mode", "conv_feature_layers"}
# Of a Conformer and of a spectrogram, which nobody has released a student with; the rest is
# said to training.
_LAYERWISE_NO_EFFECT = {
    "depthwise_conv_kernel_size", "attn_type", "pos_enc_type", "fp16", "pred_layer_id", "n_mels",
    "mel_spec_head_conv_layers", "freeze_student_mask", "update_teacher_mask",
}  # fmt: skip
_LAYERWISE_FIXED = {"layerwise_proj": True, "pred_head_inter_dim": 0, "enable_log_mel": False}
_REDUCTION = {
    "tr_conv1d_kernel": 2,
    "tr_layer_index": 0,
    "tr_reduce_factor": 2,
    "tr_layer_type": "conv1d",
}
_LAYERWISE = {
    *_STAR, *_LAYERWISE_NO_EFFECT, *_LAYERWISE_FIXED, *_REDUCTION, "enable_tr_layer",
    "reuse_pattern", "pred_head_final_dim",
}  # fmt: skip
_DISTIL_FIXED = {
    "attention_type": "original",
    "out_layer_type": "expand-last",
    "out_layer_inter_dim": -1,
    "task_emb_type": "expand-last",
}
_DISTIL_NO_EFFECT = {
    "extractor_dropout", "loss_type", "feat_pen_loss", "cosine_loss", "pred_layer_id",
    "init_teacher_conv_layers", "init_teacher_encoder_layers", "task_emb_size", "layer_emb_size",
}  # fmt: skip
_DISTIL = {
    *_STAR, *_DISTIL_FIXED, *_DISTIL_NO_EFFECT, "extractor_conv_feature_layers", "n_tasks",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How to make a student of a checkpoint.

    Attributes:
        cls: Its class.
        options: Its architecture.
        name: The authors' name of a tensor, by the student's.
        unused: What the checkpoint may hold besides, by the start of its name.
        adapt: A tensor of the checkpoint as the student holds it.
    """

    cls: type[StarEncoder]
    options: dict[str, Any]
    name: Callable[[str], str]
    unused: dict[str, str] = field(default_factory=lambda: {"final_proj.": "final_proj"})
    adapt: Callable[[str, Any], tuple[str, Any]] = lambda name, value: (name, value)


def plan(found: Mapping[str, Any], heads: str = "none") -> Plan:
    """The student of a ``distiller`` block.

    Args:
        found: The block.
        heads: Which prediction heads to keep, one of :data:`HEADS`; STaR's students have none.

    Raises:
        StarError: Naming the key that stands in the way, or a choice of heads that is none.
    """
    if heads not in HEADS:
        raise unknown_name("choice of heads", heads, HEADS)
    if "extractor_conv_feature_layers" in found:
        return _distilhubert(found, heads)
    if "layerwise_proj" in found or "reuse_pattern" in found:
        return _layerwise(found, heads)
    if heads != "none":
        raise StarError("students of STaR are released without heads; leave --heads out")
    return _star(found)


def _star(found: Mapping[str, Any]) -> Plan:
    _check_known(found, _STAR)
    options = architecture(found)
    return Plan(StarEncoder, options, lambda name: _name(name, options))


def _layerwise(found: Mapping[str, Any], heads: str) -> Plan:
    """FitHuBERT, ARMHuBERT or MaskHuBERT: a head a layer."""
    _check_known(found, _LAYERWISE)
    _check_fixed(found, _LAYERWISE_FIXED)
    options = architecture(found) | {"feature_grad_mult": found.get("feature_grad_mult", 1.0)}
    count = {"none": 0, "last": 1, "all": options["num_hidden_layers"]}[heads]
    options |= {"heads": count, "head_width": found.get("pred_head_final_dim", 768)}
    unused = {"final_proj.": "final_proj", "upsampler.": "upsampler", "proj_head.": "proj_head"}
    if found.get("enable_tr_layer", False):
        _check_fixed(found, _REDUCTION)
        return Plan(FitHubert, options, lambda name: _fithubert_name(name, options), unused)
    reuse = _reuse(found.get("reuse_pattern"), options["num_hidden_layers"])
    options |= {
        "reuse": reuse,
        "second_softmax": any(reuse),
        "layer_grad_scale": found.get("layer_grad_scale", False),
        "mask_embedding": True,
    }
    return Plan(ArmHubert, options, lambda name: _name(name, options), unused)


def _distilhubert(found: Mapping[str, Any], heads: str) -> Plan:
    _check_known(found, _DISTIL)
    _check_fixed(found, _DISTIL_FIXED)
    if heads == "last":
        raise StarError("DistilHuBERT's heads share their first map; choose 'all' or 'none'")
    # s3prl's own defaults of what fairseq calls otherwise.
    renamed = {"encoder_layers": 2, "activation_dropout": 0.1} | dict(found)
    renamed["conv_feature_layers"] = renamed.pop("extractor_conv_feature_layers")
    options = architecture(renamed)
    count = found.get("n_tasks", 12)
    if type(count) is not int or not 0 < count <= _MAX_HEADS:
        raise StarError(f"n_tasks must be a whole number from 1 to {_MAX_HEADS}, got {count!r}")
    options |= {
        "feat_proj_layer_norm": False,
        "feat_proj_dropout": 0.0,
        "identity_projection": False,
        "feature_grad_mult": found.get("feature_grad_mult", 0.1),
        "heads": count if heads == "all" else 0,
        "head_width": found.get("final_dim", 768),
    }
    unused = {"output_layer.": "output_layer", "task_embedding.": "task_embedding"}
    return Plan(
        DistilHubert, options, lambda name: _distilhubert_name(name, options), unused, _split_linear
    )


def _split_linear(name: str, value: Any) -> tuple[str, Any]:
    """A matrix and a bias ``(N, D')`` for each of the predictions; of one, s3prl keeps a Linear."""
    if not isinstance(value, torch.Tensor):
        return name, value
    if name == "output_layer.2.bias" and value.dim() == 4:
        return name, value[0, 0]
    if name == "output_layer.2.layer.weight":
        return "output_layer.2.weight", value.t()[None]
    if name == "output_layer.2.layer.bias":
        return "output_layer.2.bias", value[None]
    return name, value


def _check_known(found: Mapping[str, Any], known: set[str]) -> None:
    for key in found:
        if key not in known:
            raise unknown_name("key", str(key), known)


def _check_fixed(found: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        if found.get(key, value) != value:
            raise StarError(
                f"{key} must be {value!r}, as in all that is released, got {found[key]!r}"
            )


def _reuse(text: Any, layers: int) -> list[bool]:
    """Which layers reuse: the authors write true where a layer has a map of its own."""
    if text is None:
        return []
    expected = f"reuse_pattern must be a list of {layers} True and False, the first True, as text"
    try:
        pattern = ast.literal_eval(text) if isinstance(text, str) and len(text) < 2000 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pattern = None
    if not isinstance(pattern, list) or not all(type(value) is bool for value in pattern):
        raise StarError(f"{expected}, got {str(text)[:80]!r}")
    if len(pattern) != layers or not pattern[0]:
        raise StarError(f"{expected}, got {str(text)[:80]!r}")
    return [] if all(pattern) else [not own for own in pattern]


def _name(name: str, options: Mapping[str, Any]) -> str:
    if name == "masked_spec_embed":
        return "mask_emb"
    name = re.sub(r"^heads\.", "proj_head.", name)
    return fairseq_name(name, options["feat_extract_norm"])


def _fithubert_name(name: str, options: Mapping[str, Any]) -> str:
    """The reduction is layer 0 of the list, and the Transformer's layers follow."""
    if name.startswith("encoder.reduction.conv."):
        return name.replace("encoder.reduction.conv.", "encoder.layers.0.")
    shifted = re.sub(r"^encoder\.layers\.(\d+)", lambda m: f"encoder.layers.{int(m[1]) + 1}", name)
    return _name(shifted, options)


def _distilhubert_name(name: str, options: Mapping[str, Any]) -> str:
    if name.startswith("heads.shared."):
        return name.replace("heads.shared.", "output_layer.0.")
    if name.startswith("heads."):
        return name.replace("heads.", "output_layer.2.")
    return _name(name, options)
