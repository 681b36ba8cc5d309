"""What a teacher and a student hand to a distillation objective."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

SAMPLE_RATE = 16000
RECEPTIVE_FIELD = 400
HOP = 320
# A numbered state, 0 to L, or one inside the encoder by its name.
Layer = int | str


def frame_count(
    samples: torch.Tensor, hop: int = HOP, field: int = RECEPTIVE_FIELD
) -> torch.Tensor:
    """Number of frames for waveforms at 16 kHz; by default of HuBERT's 50 a second.

    Args:
        samples: Waveform lengths in samples, any shape, integer.
        hop: Samples from a frame to the next.
        field: Samples that a frame sees.

    Returns:
        ``floor((samples - field) / hop) + 1``, never below zero, same shape.
    """
    frames = torch.div(samples - field, hop, rounding_mode="floor") + 1
    return frames.clamp(min=0)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """The same values in float64 where they are, else in float32."""
    return x if x.dtype == torch.float64 else x.float()


def valid_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Boolean mask that is true on valid positions.

    Args:
        lengths: Valid positions of each row, ``(B,)``.
        size: Padded length N.

    Returns:
        ``(B, N)`` boolean tensor on the device of ``lengths``.
    """
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


@dataclass(frozen=True)
class LayerOutputs:
    """Hidden states of every layer of an encoder for a padded batch.

    Attributes:
        hidden_states: ``L + 1`` tensors ``(B, N, D)``. Index 0 is the input of the
            first Transformer layer, index ``l`` the output of layer ``l``.
        lengths: Valid frames of each utterance, ``(B,)``, at most ``N``.
        attentions: ``L`` tensors ``(B, H, N, N)`` of attention probabilities, or
            None where no objective asked for them.
        masked: ``(B, N)``, true on frames that a mask vector has replaced; None for none.
        labels: ``(B, N)``, what the frames are to be recognized as; None for none.
        layers: Index that each of ``hidden_states`` stands for; None for all of 0 to L.
        inner: States ``(B, N, D)`` inside the encoder that were asked for, by name, see
            :mod:`espnet_star.encoders.inner`.
        speech: Waveforms ``(B, T)`` that were heard; None where nobody has noted them.
        samples: Their lengths, ``(B,)``.

    Raises:
        ValueError: If the shapes above do not hold.
    """

    hidden_states: tuple[torch.Tensor, ...]
    lengths: torch.Tensor
    attentions: tuple[torch.Tensor, ...] | None = None
    layers: tuple[int, ...] | None = None
    masked: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    inner: Mapping[str, torch.Tensor] = field(default_factory=dict)
    speech: torch.Tensor | None = None
    samples: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes once, so that objectives need not."""
        object.__setattr__(self, "hidden_states", tuple(self.hidden_states))
        if len(self.hidden_states) < 2 and self.layers is None:
            raise ValueError(
                f"hidden_states must hold L + 1 >= 2 tensors, got {len(self.hidden_states)}"
            )
        shape = self.hidden_states[0].shape
        for index, state in enumerate(self.hidden_states):
            if state.dim() != 3 or state.shape[:2] != shape[:2]:
                raise ValueError(
                    f"hidden_states[{index}] must have shape (B, N, D) with (B, N) = "
                    f"{tuple(shape[:2])}, got {tuple(state.shape)}"
                )
        for name, state in self.inner.items():
            if state.dim() != 3 or state.shape[:2] != shape[:2]:
                raise ValueError(
                    f"state {name} must have shape (B, N, D) with (B, N) = {tuple(shape[:2])}, "
                    f"got {tuple(state.shape)}"
                )
        if self.lengths.shape != shape[:1]:
            raise ValueError(
                f"lengths must have shape ({shape[0]},), got {tuple(self.lengths.shape)}"
            )
        if self.attentions is not None:
            object.__setattr__(self, "attentions", tuple(self.attentions))
            self._check_attentions(shape[0], shape[1])

    def _check_attentions(self, batch: int, frames: int) -> None:
        assert self.attentions is not None
        if self.layers is None and len(self.attentions) != self.num_layers:
            raise ValueError(
                f"attentions must hold {self.num_layers} tensors, got {len(self.attentions)}"
            )
        for index, maps in enumerate(self.attentions):
            if maps.dim() != 4 or maps.shape[0] != batch or maps.shape[2:] != (frames, frames):
                raise ValueError(
                    f"attentions[{index}] must have shape ({batch}, H, {frames}, {frames}), "
                    f"got {tuple(maps.shape)}"
                )

    @property
    def num_layers(self) -> int:
        """Transformer layers L (one less than the hidden states)."""
        return len(self.hidden_states) - 1

    def state(self, layer: Layer) -> torch.Tensor:
        """State ``(B, N, D)`` of a layer, 0 being the input of the first, or an inner one."""
        if isinstance(layer, str):
            return self.inner[layer]
        return self.hidden_states[layer if self.layers is None else self.layers.index(layer)]

    def only(self, layers: Collection[int] | None) -> LayerOutputs:
        """Without the states of other layers; None keeps all."""
        if layers is None or set(layers) >= set(self.layers or range(self.num_layers + 1)):
            return self
        kept = tuple(sorted(layers))
        return replace(self, hidden_states=tuple(map(self.state, kept)), layers=kept)

    def each(self, change: Callable[[torch.Tensor], torch.Tensor], **fields: Any) -> LayerOutputs:
        """The same with every state changed, and other values of other fields."""
        return replace(
            self,
            hidden_states=tuple(map(change, self.hidden_states)),
            inner={name: change(state) for name, state in self.inner.items()},
            **fields,
        )

    def mask(self) -> torch.Tensor:
        """``(B, N)`` boolean mask of valid frames."""
        return valid_mask(self.lengths, self.hidden_states[0].shape[1])
