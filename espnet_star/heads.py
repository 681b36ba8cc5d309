"""Encoder of the recognition head: SUPERB's BLSTM, at a price a CPU can pay."""

from __future__ import annotations

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from torch import nn

from espnet_star.outputs import valid_mask


class BLSTMEncoder(AbsEncoder):
    """Bidirectional LSTM over padded sequences, exact to a packed one.

    ESPnet's ``rnn`` encoder packs its sequences, and torch trains packed LSTMs on CPUs
    several times slower than padded ones (``benchmarks/blstm.py``). Here each direction is
    an LSTM of its own; the backward one reads every utterance flipped within its own
    length, so padding always comes last and changes nothing.

    Args:
        input_size: Width of the features.
        hidden_size: Units of each direction; the output is twice as wide.
        num_layers: Layers.
        stack: Neighbouring frames joined before the first layer: 2 halves the rate.
        dropout: Before each layer but the first, and on the output.
        project: Width of a linear layer before the first recurrent one, as SUPERB has it;
            0 is none.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 256,
        num_layers: int = 2,
        stack: int = 1,
        dropout: float = 0.1,
        project: int = 0,
    ):
        super().__init__()
        self.hidden_size = hidden_size
        self.stack = stack
        first = input_size * stack
        self.projection = nn.Linear(first, project) if project else nn.Identity()
        widths = [project or first] + [2 * hidden_size] * (num_layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(w, hidden_size, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(nn.LSTM(w, hidden_size, batch_first=True) for w in widths)
        self.dropout = nn.Dropout(dropout)

    def output_size(self) -> int:
        """Width of the output."""
        return 2 * self.hidden_size

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Encode.

        Args:
            xs_pad: Features ``(B, N, D)``.
            ilens: Valid frames ``(B,)``.
            prev_states: Not used.

        Returns:
            ``(B, ceil(N / stack), 2 * hidden_size)``, zero on padding, and lengths.
        """
        x = torch.where(valid_mask(ilens, xs_pad.shape[1])[..., None], xs_pad, 0.0)
        if self.stack > 1:
            missing = -x.shape[1] % self.stack
            x = nn.functional.pad(x, (0, 0, 0, missing))
            x = x.reshape(x.shape[0], x.shape[1] // self.stack, -1)
            ilens = torch.div(ilens + self.stack - 1, self.stack, rounding_mode="floor")
        x = self.projection(x)
        flip = flip_index(ilens, x.shape[1])
        for index, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if index:
                x = self.dropout(x)
            left = ahead(x)[0]
            right = _take(back(_take(x, flip))[0], flip)
            x = torch.cat([left, right], dim=2)
        mask = valid_mask(ilens, x.shape[1])
        return torch.where(mask[..., None], self.dropout(x), 0.0), ilens, None


def flip_index(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Positions ``(B, size)`` that flip each row within its length; its own inverse."""
    steps = torch.arange(size, device=lengths.device)[None, :].expand(len(lengths), size)
    return torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)


def _take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
