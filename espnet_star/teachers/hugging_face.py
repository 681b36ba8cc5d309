"""HuBERT and its relatives from Hugging Face Transformers as teachers."""

from __future__ import annotations

import logging
from typing import Any

import transformers

from espnet_star.teachers import loading
from espnet_star.teachers.transformers_encoder import TransformersTeacher

logger = logging.getLogger(__name__)


class HuggingFaceTeacher(TransformersTeacher):
    """HuBERT, WavLM, wav2vec 2.0, data2vec-audio, UniSpeech or UniSpeech-SAT.

    See :class:`TransformersTeacher` for what it gives.

    Args:
        name: Hub name, or directory written by ``save_pretrained``.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.
        do_normalize: Whether to bring waveforms to zero mean and unit variance. None
            follows ``preprocessor_config.json``; where that is absent, as fairseq did,
            only models with a LayerNorm front are normalized (a GroupNorm front
            removes scale and offset itself).

    Raises:
        StarError: If the checkpoint is absent, broken, incomplete, of another
            sampling rate or of another frame rate.
    """

    model_types = (
        "hubert",
        "wavlm",
        "wav2vec2",
        "data2vec-audio",
        "unispeech",
        "unispeech-sat",
    )

    def __init__(self, name: str, dtype: str = "float32", do_normalize: bool | None = None) -> None:
        super().__init__()
        self.name = name
        computed = loading.check_dtype(dtype)
        config = loading.read_config(name, self.model_types)
        settings = loading.read_preparation(name)
        loading.check_frame_rate(name, config.conv_kernel, config.conv_stride)
        config.add_adapter = False  # it would follow the last layer and halve the frames
        model = loading.load_weights(transformers.AutoModel, name, config)
        group_norm = self.use(model, computed)
        self.do_normalize = _preparation(name, do_normalize, settings, default=not group_norm)

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Teacher.chosen`."""
        return {"do_normalize": self.do_normalize}


def _preparation(name: str, asked: bool | None, settings: dict[str, Any], default: bool) -> bool:
    """Whether waveforms are normalized, with a word in the log where it was a guess."""
    if asked is not None:
        return asked
    if "do_normalize" in settings:
        return bool(settings["do_normalize"])
    logger.warning(
        "teacher %r: no preprocessor_config.json with do_normalize; assuming %s (set the "
        "teacher's do_normalize to choose)",
        name,
        default,
    )
    return default
