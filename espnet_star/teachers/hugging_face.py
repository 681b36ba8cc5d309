"""HuBERT and its relatives from Hugging Face Transformers as teachers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from espnet_star.masked_norm import masked_group_norm
from espnet_star.outputs import LayerOutputs, frame_count, valid_mask
from espnet_star.teachers import loading
from espnet_star.teachers.abs_teacher import AbsTeacher

# Wav2Vec2FeatureExtractor's, added to the variance.
NORMALIZE_EPS = 1e-7

logger = logging.getLogger(__name__)


class HuggingFaceTeacher(AbsTeacher):
    """HuBERT, WavLM, wav2vec 2.0, data2vec-audio, UniSpeech or UniSpeech-SAT.

    Index 0 is the input of the first layer. In the post-norm layout (base models)
    index ``l`` is what layer ``l`` returns. In the pre-norm layout
    (``do_stable_layer_norm``, as HuBERT Large) indices 0 to ``L - 1`` are the
    unnormalised residual stream and index ``L`` has passed the encoder's final
    LayerNorm, as what everybody downstream reads. Transformers' own ``hidden_states``
    end before or after that norm, depending on its version; the rest are the same.

    An utterance gets the same features in a padded batch as alone: statistics of the
    front's GroupNorm run over valid frames, positional convolutions see zeros past the
    end, and attention never looks there, also for models that Transformers runs
    without a mask (alone, an utterance has no padding). Padded frames hold finite
    values without meaning.

    WavLM's attention maps are averaged over heads by Transformers and repeated for
    each head.

    Args:
        name: Hub name, or directory written by ``save_pretrained``.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.
        do_normalize: Whether to bring waveforms to zero mean and unit variance. None
            follows ``preprocessor_config.json``; where that is absent, as fairseq did,
            only models with a LayerNorm front are normalised (a GroupNorm front
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
        self.dtype = loading.check_dtype(dtype)
        config = loading.read_config(name, self.model_types)
        settings = loading.read_preparation(name)
        loading.check_frame_rate(name, config.conv_kernel, config.conv_stride)
        config.add_adapter = False  # it would follow the last layer and halve the frames
        self.model: Any = loading.load_weights(transformers.AutoModel, name, config)
        self.num_layers = config.num_hidden_layers
        self.width = config.hidden_size
        self.pre_norm = bool(getattr(config, "do_stable_layer_norm", False))
        self._attention = self.model.config._attn_implementation
        self._padding = _Padding(config.conv_kernel[0], config.conv_stride[0])
        group_norm = self._mask_padding()
        self.do_normalize = _preparation(name, do_normalize, settings, default=not group_norm)
        loading.narrow(self.model, self.dtype)
        self.freeze()

    def _mask_padding(self) -> bool:
        """Tell the modules that look across time where utterances end.

        Returns:
            Whether the front has a GroupNorm.
        """
        for module in self.model.encoder.pos_conv_embed.modules():
            if isinstance(module, torch.nn.Conv1d):
                module.register_forward_pre_hook(self._padding.zero)
        first = self.model.feature_extractor.conv_layers[0]
        if not isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
            return False
        first.layer_norm = _MaskedGroupNorm(first.layer_norm, self._padding)
        return True

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, attentions: bool
    ) -> LayerOutputs:
        """See :meth:`AbsTeacher.extract`.

        Raises:
            StarError: If an utterance has fewer than 400 samples or more than T.
        """
        sizes = loading.check_lengths(self.name, speech, lengths)
        mask = valid_mask(lengths, speech.shape[1])
        speech = prepare_waveform(speech, mask, self.do_normalize)
        self._use_attention("eager" if attentions else self._attention)
        padded = min(sizes) < speech.shape[1]
        with (
            self._padding.of(lengths if padded else None),
            loading.autocast(self.dtype, speech.device),
        ):
            outputs = self.model(
                speech,
                attention_mask=mask.long() if padded else None,
                output_hidden_states=True,
                output_attentions=attentions,
            )
        states = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
        return LayerOutputs(
            tuple(state.float() for state in states),
            frame_count(lengths),
            tuple(maps.float() for maps in outputs.attentions) if attentions else None,
        )

    def _use_attention(self, implementation: str) -> None:
        """Switch the kernel: the fast ones do not return attention maps."""
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)


class _Padding:
    """Where the utterances of the batch in hand end, for modules deep inside the model."""

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride = kernel, stride
        self.samples: torch.Tensor | None = None

    @contextmanager
    def of(self, samples: torch.Tensor | None) -> Iterator[None]:
        """Hold for one batch the lengths ``(B,)`` in samples, None without padding."""
        self.samples = samples
        try:
            yield
        finally:
            self.samples = None

    def first_lengths(self) -> torch.Tensor | None:
        """Valid frames ``(B,)`` after the first convolution."""
        if self.samples is None:
            return None
        return (self.samples - self.kernel) // self.stride + 1

    def zero(self, module: torch.nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor | None:
        """Forward pre-hook of a convolution over ``(B, C, N)``: zero padded frames.

        A convolution pads an utterance alone with zeros. In a batch a BatchNorm or an
        earlier positional convolution (data2vec) may have left something else there.
        """
        if self.samples is None:
            return None
        mask = valid_mask(frame_count(self.samples), args[0].shape[2])
        return args[0] * mask[:, None].to(args[0].dtype)


class _MaskedGroupNorm(torch.nn.Module):
    """Stands in for the first convolution's GroupNorm and shares its parameters."""

    def __init__(self, norm: torch.nn.GroupNorm, padding: _Padding) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` to the same shape, see :func:`masked_group_norm`."""
        lengths = self.padding.first_lengths()
        return masked_group_norm(x, lengths, self.weight, self.bias, self.eps)


def prepare_waveform(speech: torch.Tensor, mask: torch.Tensor, normalize: bool) -> torch.Tensor:
    """Zero what lies past the end and, if asked, normalise each utterance.

    Equals Transformers' ``Wav2Vec2FeatureExtractor``, on the device of ``speech``.

    Args:
        speech: Waveforms ``(B, T)``.
        mask: True on valid samples, ``(B, T)``.
        normalize: Whether to bring valid samples to zero mean and unit variance.

    Returns:
        ``(B, T)`` float32, zero past the end.
    """
    speech = speech.float().masked_fill(~mask, 0.0)
    if not normalize:
        return speech
    count = mask.sum(1, keepdim=True)
    centred = (speech - speech.sum(1, keepdim=True) / count).masked_fill(~mask, 0.0)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + NORMALIZE_EPS)


def _preparation(name: str, asked: bool | None, settings: dict[str, Any], default: bool) -> bool:
    """Whether waveforms are normalised, with a word in the log where it was a guess."""
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
