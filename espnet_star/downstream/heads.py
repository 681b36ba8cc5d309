"""What SUPERB's heads have and ESPnet lacks: a BLSTM that a CPU can pay, additive margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.spk.loss.abs_loss import AbsLoss
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
        stack: Neighboring frames joined before the first layer: 2 halves the rate.
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


class AMSoftmax(AbsLoss):
    """Additive margin softmax over cosines of embedding and speakers' weights.

    Cross-entropy of ``scale * (cos(x, w_j) - margin * [j is the speaker])``; Wang et al.,
    "Additive Margin Softmax for Face Verification" (arXiv 1801.05599). ESPnet has the
    angular margin only.

    Args:
        nout: Width of the embedding; the task gives it.
        nclasses: Number of speakers; the task gives it.
        margin: What the speaker's own cosine is lowered by.
        scale: Factor of all cosines.
    """

    def __init__(self, nout: int, nclasses: int, margin: float = 0.4, scale: float = 30.0):
        super().__init__(nout)
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(nclasses, nout))
        nn.init.xavier_normal_(self.weight)

    def forward(
        self, input: torch.Tensor, label: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Loss, accuracy and predicted speakers.

        Args:
            input: Embeddings ``(B, nout)``.
            label: Speakers ``(B,)`` or ``(B, 1)``; without them loss and accuracy are None.
        """
        cosine = F.linear(F.normalize(input), F.normalize(self.weight))
        predicted = cosine.argmax(dim=1)
        if label is None:
            return None, None, predicted
        label = label.reshape(-1)
        lowered = cosine - self.margin * F.one_hot(label, cosine.shape[1])
        loss = F.cross_entropy(self.scale * lowered, label)
        return loss, (predicted == label).float().mean(), predicted
