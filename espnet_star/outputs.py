"""What a teacher and a student hand to a distillation objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch

SAMPLE_RATE = 16000
RECEPTIVE_FIELD = 400
HOP = 320


def frame_count(samples: torch.Tensor) -> torch.Tensor:
    """Number of 50 Hz frames of a HuBERT-shaped front for waveforms at 16 kHz.

    Args:
        samples: Waveform lengths in samples, any shape, integer.

    Returns:
        ``floor((samples - 400) / 320) + 1``, never below zero, same shape.
    """
    frames = torch.div(samples - RECEPTIVE_FIELD, HOP, rounding_mode="floor") + 1
    return frames.clamp(min=0)


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

    Raises:
        ValueError: If the shapes above do not hold.
    """

    hidden_states: tuple[torch.Tensor, ...]
    lengths: torch.Tensor
    attentions: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self) -> None:
        """Check shapes once, so that objectives need not."""
        object.__setattr__(self, "hidden_states", tuple(self.hidden_states))
        if len(self.hidden_states) < 2:
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
        if self.lengths.shape != shape[:1]:
            raise ValueError(
                f"lengths must have shape ({shape[0]},), got {tuple(self.lengths.shape)}"
            )
        if self.attentions is not None:
            object.__setattr__(self, "attentions", tuple(self.attentions))
            self._check_attentions(shape[0], shape[1])

    def _check_attentions(self, batch: int, frames: int) -> None:
        assert self.attentions is not None
        if len(self.attentions) != self.num_layers:
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

    def mask(self) -> torch.Tensor:
        """``(B, N)`` boolean mask of valid frames."""
        return valid_mask(self.lengths, self.hidden_states[0].shape[1])
