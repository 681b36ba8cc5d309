"""HuBERT, wav2vec 2.0 and WavLM as their authors published them, without fairseq."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from espnet_star.data.errors import some
from espnet_star.errors import StarError
from espnet_star.formats.fairseq.file import read_fairseq
from espnet_star.formats.fairseq.layout import FIXED, architecture, fairseq_name
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.teachers import loading
from espnet_star.teachers.padding import LAYER_NORM_EPS
from espnet_star.teachers.transformers_encoder import TransformersTeacher

# Heads of pre-training, through which no hidden state passes.
_HEADS = ("mask_emb", "label_embs_concat", "final_proj.", "quantizer.", "project_q.", "target_glu.")
# What another value of these would change cannot be told from the tensors.
_TEACHER_FIXED = FIXED | {"attn_type": ("",), "pos_enc_type": ("abs",), "quantize_input": (False,)}
_WAVLM_FIXED = _TEACHER_FIXED | {"relative_position_embedding": (True,), "gru_rel_pos": (True,)}
_PROJECTION = "feature_projection.projection"
_FINE_TUNED = ("w2v_encoder.", "encoder.w2v_model.")


class FairseqTeacher(TransformersTeacher):
    """A ``.pt`` such as ``hubert_base_ls960.pt``, ``wav2vec_small.pt`` or ``WavLM-Base.pt``.

    Also s3prl's converted copies of them. The file is read as tensors and plain values,
    nothing in it is run; what it says of its architecture must agree with its tensors. See
    :class:`TransformersTeacher` for what it gives.

    Args:
        name: The file.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.
        do_normalize: Whether to bring waveforms to zero mean and unit variance. None follows
            ``normalize`` in the checkpoint.

    Raises:
        StarError: If the file is missing, cut short or holds anything to be run, or the
            model is incomplete, fine-tuned, of another architecture, sampling rate or frame
            rate.
    """

    reads = "fairseq's `.pt` (HuBERT, wav2vec 2.0) and WavLM's `.pt`"
    normalize_eps = LAYER_NORM_EPS

    def __init__(self, name: str, dtype: str = "float32", do_normalize: bool | None = None) -> None:
        super().__init__()
        self.name = name
        computed = loading.check_dtype(dtype)
        checkpoint = read_fairseq(name)
        rate = checkpoint.task.get("sample_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise loading.wrong_rate(name, rate, "task.sample_rate in the checkpoint")
        tensors = checkpoint.tensors
        vector = tensors["mask_emb"].float() if "mask_emb" in tensors else None
        self.use(model_from_fairseq(name, checkpoint.model, tensors), computed, vector)
        if do_normalize is None:
            do_normalize = bool(checkpoint.task.get("normalize", False))
        self.do_normalize = do_normalize

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Teacher.chosen`."""
        return {"do_normalize": self.do_normalize}


def model_from_fairseq(
    name: str, options: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Any:
    """A model of Transformers with fairseq's weights, in float32.

    HuBERT and wav2vec 2.0 have the same encoder, and both become a ``HubertModel``.

    Args:
        name: Teacher, for messages.
        options: fairseq's options of the model.
        tensors: By fairseq's names; heads of pre-training are left out.

    Raises:
        StarError: If options and tensors do not agree, or are not such a model's.
    """
    for key in tensors:
        if key.startswith(_FINE_TUNED):
            raise StarError(
                f"teacher {name!r} was fine-tuned (it holds {key}); give the pre-trained checkpoint"
            )
    config = _config(name, options)
    loading.check_frame_rate(name, config.conv_kernel, config.conv_stride)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config, dtype=torch.float32)
    expected = model.state_dict()
    norm = config.feat_extract_norm
    found = {key: value for key, value in tensors.items() if not key.startswith(_HEADS)}
    state, missing, odd = {}, [], []
    for key, parameter in expected.items():
        value = found.pop(fairseq_name(key, norm), None)
        if value is None and key.startswith(_PROJECTION) and _is_square(config):
            value = _identity(key, config.hidden_size)
        if value is None:
            missing.append(fairseq_name(key, norm))
        elif value.shape != parameter.shape:
            odd.append(
                f"{fairseq_name(key, norm)} is {tuple(value.shape)}, the options say "
                f"{tuple(parameter.shape)}"
            )
        else:
            state[key] = value.float()
    if missing or found or odd:
        raise StarError(_disagreement(name, missing, list(found), odd))
    _check_finite(name, state, norm)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _config(name: str, options: Mapping[str, Any]) -> Any:
    """Configuration of Transformers for fairseq's options."""
    wavlm = bool(options.get("relative_position_embedding", False))
    try:
        values = architecture(options, _WAVLM_FIXED if wavlm else _TEACHER_FIXED)
    except StarError as error:
        raise StarError(f"teacher {name!r}: {error}") from error
    values |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False}
    if not wavlm:
        return transformers.HubertConfig(**values)
    values["num_buckets"] = options.get("num_buckets", 320)
    values["max_bucket_distance"] = options.get("max_distance", 1280)
    return transformers.WavLMConfig(**values)


def _is_square(config: Any) -> bool:
    """Whether fairseq needs no projection, since both widths are the same."""
    return bool(config.conv_dim[-1] == config.hidden_size)


def _identity(key: str, width: int) -> torch.Tensor:
    return torch.eye(width) if key.endswith("weight") else torch.zeros(width)


def _disagreement(name: str, missing: list[str], unknown: list[str], odd: list[str]) -> str:
    parts = [f"lacks {some(sorted(missing), 3)}"] if missing else []
    parts += [f"also holds {some(sorted(unknown), 3)}"] if unknown else []
    parts += odd[:1]
    return (
        f"teacher {name!r}: weights and options of the checkpoint do not belong together: it "
        f"{'; '.join(parts)}; give a pre-trained HuBERT, wav2vec 2.0 or WavLM"
    )


def _check_finite(name: str, state: Mapping[str, torch.Tensor], norm: str) -> None:
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise StarError(
                f"teacher {name!r}: {fairseq_name(key, norm)} holds NaN or infinity; copy or "
                "download the checkpoint again"
            )
