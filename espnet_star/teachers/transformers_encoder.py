"""Encoders of Transformers' wav2vec 2.0 family, wherever their weights came from."""

from __future__ import annotations

from typing import Any

import torch

from espnet_star.encoders.base import Shape, Want, hop_and_field
from espnet_star.outputs import LayerOutputs, valid_mask
from espnet_star.teachers import loading
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.padding import (
    NORMALIZE_EPS,
    MaskedGroupNorm,
    Padding,
    convolve_wide,
    prepare_waveform,
)


class TransformersTeacher(Teacher):
    """Runs a model of Transformers as a teacher; adapters say where its weights come from.

    Index 0 is the input of the first layer. In the post-norm layout (base models)
    index ``l`` is what layer ``l`` returns. In the pre-norm layout
    (``do_stable_layer_norm``, as HuBERT Large) indices 0 to ``L - 1`` are the
    unnormalized residual stream and index ``L`` has passed the encoder's final
    LayerNorm, as what everybody downstream reads. Transformers' own ``hidden_states``
    end before or after that norm, depending on its version; the rest are the same.

    An utterance gets the same features in a padded batch as alone: statistics of the
    front's GroupNorm run over valid frames, positional convolutions see zeros past the
    end, and attention never looks there, also for models that Transformers runs
    without a mask (alone, an utterance has no padding). Padded frames hold finite
    values without meaning.

    WavLM's attention maps are averaged over heads by Transformers and repeated for
    each head.
    """

    model: Any
    do_normalize: bool
    normalize_eps = NORMALIZE_EPS

    def use(self, model: Any, dtype: torch.dtype) -> bool:
        """Take the model in; to be followed by ``do_normalize``.

        Args:
            model: In float32, every weight filled in.
            dtype: Of matrix products and convolutions.

        Returns:
            Whether the front has a GroupNorm, which removes scale and offset itself.
        """
        config = model.config
        self.model, self.dtype = model, dtype
        self.shape = Shape(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            *hop_and_field(config.conv_kernel, config.conv_stride),
            pre_norm=bool(getattr(config, "do_stable_layer_norm", False)),
        )
        self._attention = config._attn_implementation
        self._padding = Padding(config.conv_kernel[0], config.conv_stride[0])
        self._padding.watch(model.encoder.pos_conv_embed)
        convolve_wide(model.encoder.pos_conv_embed)
        first = model.feature_extractor.conv_layers[0]
        group_norm = isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm)
        if group_norm:
            first.layer_norm = MaskedGroupNorm(first.layer_norm, self._padding)
        self.freeze()
        return group_norm

    def prepare_speech(
        self, speech: torch.Tensor, lengths: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Waveforms ``(B, T)`` as the model was trained on them, zero past the end."""
        return prepare_waveform(speech, mask, self.do_normalize, self.normalize_eps)

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`."""
        mask = valid_mask(lengths, speech.shape[1])
        speech = self.prepare_speech(speech, lengths, mask)
        self._use_attention("eager" if want.attentions else self._attention)
        padded = min(sizes) < speech.shape[1]
        with (
            self._padding.of(lengths if padded else None),
            loading.autocast(self.dtype, speech.device),
        ):
            outputs = self.model(
                speech,
                attention_mask=mask.long() if padded else None,
                output_hidden_states=True,
                output_attentions=want.attentions,
            )
        states = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
        return LayerOutputs(
            tuple(state.float() for state in states),
            self.shape.frames(lengths),
            tuple(maps.float() for maps in outputs.attentions) if want.attentions else None,
        )

    def _use_attention(self, implementation: str) -> None:
        """Switch the kernel: the fast ones do not return attention maps."""
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)
