"""Encoders of Transformers' wav2vec 2.0 family, wherever their weights came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from espnet_star.encoders.base import Shape, Want, hop_and_field
from espnet_star.encoders.inner import FEED_FORWARD, PROJECTION, caught
from espnet_star.outputs import LayerOutputs, valid_mask
from espnet_star.teachers import loading
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.once import run_once
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

    Masked frames are the checkpoint's vector for them, put where pre-training puts it: behind
    the projection and its dropout, before the positional convolution. A checkpoint without
    the vector takes no masks. Runs of one batch under several masks share its convolutions.
    """

    inner = (PROJECTION, FEED_FORWARD)
    model: Any
    # No parameter: it is none of what names a cache of states, or of what sizes are told of.
    mask_vector: torch.Tensor | None = None
    do_normalize: bool
    normalize_eps = NORMALIZE_EPS

    def use(self, model: Any, dtype: torch.dtype, vector: torch.Tensor | None = None) -> bool:
        """Take the model in; to be followed by ``do_normalize``.

        Args:
            model: In float32, every weight filled in.
            dtype: Of matrix products and convolutions.
            vector: What masked frames become, ``(D,)``; None takes the model's own, if any.

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
        self.mask_vector = vector if vector is not None else _vector_of(model)
        self.masks = self.mask_vector is not None
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
            self._masking(want.mask),
            self._padding.of(lengths if padded else None),
            loading.autocast(self.dtype, speech.device),
            caught(want.inner, self._module_of) as inner,
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
            inner={name: state.float() for name, state in inner.items()},
        )

    def _module_of(self, kind: str, layer: int) -> torch.nn.Module:
        """What gives an inner state."""
        if kind == PROJECTION:
            return self.model.feature_projection
        return self.model.encoder.layers[layer - 1].feed_forward

    def extract_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """See :meth:`Encoder.extract_all`."""
        if len(wants) == 1:
            return super().extract_all(speech, lengths, sizes, wants)
        with run_once(self.model, "feature_extractor"):
            return super().extract_all(speech, lengths, sizes, wants)

    @contextmanager
    def _masking(self, mask: torch.Tensor | None) -> Iterator[None]:
        """Put the vector where the mask is, in what the projection hands to the encoder."""
        if mask is None or self.mask_vector is None:
            yield
            return
        vector = self.mask_vector

        def replace(_module: torch.nn.Module, _args: Any, out: Any) -> Any:
            states = out[0] if isinstance(out, tuple) else out  # wav2vec 2.0 adds its features
            put = torch.where(mask[..., None], vector.to(states), states)
            return (put, *out[1:]) if isinstance(out, tuple) else put

        handle = self.model.feature_projection.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def _use_attention(self, implementation: str) -> None:
        """Switch the kernel: the fast ones do not return attention maps."""
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)


def _vector_of(model: Any) -> torch.Tensor | None:
    """The model's vector for masked frames; None where its checkpoint has none."""
    vector: torch.Tensor | None = getattr(model, "masked_spec_embed", None)
    return None if vector is None else vector.detach()
