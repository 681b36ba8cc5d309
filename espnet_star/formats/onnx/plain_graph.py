"""The student as a graph of few plain operations, for exporters.

The student's own Transformer stands here, with what a graph must not do or runtimes do faster
in another form: frames are rows throughout, a convolution is a matrix product of neighboring
rows (which int8 quantization reaches too), weight norm and attention's scale are folded into
weights, and the first layer's group norm into those of each utterance. Masks are part of the
graph, so an utterance has the same features alone and in any padded batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from espnet_star import kernels
from espnet_star.encoders.masked_norm import norm_valid
from espnet_star.outputs import HOP, RECEPTIVE_FIELD, valid_mask
from espnet_star.students import StarEncoder
from espnet_star.students.front import ConvBlock, FeatureExtractor
from espnet_star.students.transformer import SelfAttention, TimeReduction

# Added to the scores of padded keys; within float16, and its exponential is zero.
MASKED = -30000.0
# What the last frame reads past its hop.
OVERLAP = RECEPTIVE_FIELD - HOP


class PlainStudent(nn.Module):
    """``speech (B, T)``, ``lengths (B,)`` to hidden states and frames.

    Args:
        student: Its weights are copied; dropout is left out.
        last: Whether to give the last state only, after the final norm of the pre-norm
            layout, in place of all of them.
    """

    def __init__(self, student: StarEncoder, last: bool = False):
        super().__init__()
        self.last = last
        twin = copy.deepcopy(student)
        front = twin.feature_extractor
        # A filterbank's is of plain operations already.
        self.front = _Front(front) if isinstance(front, FeatureExtractor) else front
        self.projection, self.encoder = twin.feature_projection, twin.encoder
        self.encoder.pos_conv_embed.conv = _folded(self.encoder.pos_conv_embed.conv)
        _replace(self, SelfAttention, _Attention)
        _replace(self, TimeReduction, _Reduction)
        _replace(self, nn.Linear, _Linear)
        _replace(self, nn.Dropout, lambda _: nn.Identity())
        self.requires_grad_(False)
        self.eval()

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the student.

        Args:
            speech: Waveforms at 16 kHz, T at least 400; what stands past a length is ignored.
            lengths: Samples of each, int64, from 400 to T.

        Returns:
            ``(L + 1, B, N, D)``, or ``(B, N, D)`` of the last layer; frames of each ``(B,)``.
        """
        valid = valid_mask(lengths, speech.shape[1])
        x, frames = self.front(speech.masked_fill(~valid, 0.0), lengths)
        x = self.projection(x)
        states, _ = self.encoder.states(x, valid_mask(frames, x.shape[1]))
        frames = self.encoder.frames(frames)
        return (self.encoder.output(states[-1]) if self.last else torch.stack(states)), frames


def _replace(root: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    """Put something else in the place of every module of a kind."""
    for module in list(root.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))


def _folded(conv: nn.Conv1d) -> nn.Conv1d:
    """The positional convolution without its weight norm."""
    # Torch's own way takes the norm from all copies of a convolution.
    twin = nn.utils.skip_init(
        nn.Conv1d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        padding=conv.padding[0],
        groups=conv.groups,
    )
    twin.load_state_dict({"weight": conv.weight, "bias": conv.bias})
    return twin


class _Front(nn.Module):
    """Silenced waveforms ``(B, T)`` to frames ``(B, N, C)``, and those of each."""

    def __init__(self, front: FeatureExtractor):
        super().__init__()
        blocks: list[Any] = list(front.conv_layers)
        self.first = _FirstConvolution(blocks[0])
        self.convolutions = nn.ModuleList(_Convolution(block) for block in blocks[1:])

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Convolutions."""
        x = self.first(speech, lengths)
        for convolution in self.convolutions:
            x = convolution(x)
        return x[:, : (speech.shape[1] - OVERLAP) // HOP], (lengths - OVERLAP) // HOP


class _FirstConvolution(nn.Module):
    """Waveform ``(B, T)`` to rows ``(B, R, C)`` of whole frames.

    Some are more than the N frames read: the norm's statistics run over all samples.
    """

    def __init__(self, block: ConvBlock):
        super().__init__()
        conv, norm = block.conv, block.layer_norm
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        taps = conv.weight.detach()[:, 0]  # (C, K)
        bias = taps.new_zeros(len(taps)) if conv.bias is None else conv.bias.detach()
        folded = isinstance(norm, nn.GroupNorm)
        # In float64, since large terms cancel in the statistics.
        self.norm = norm.double() if isinstance(norm, nn.GroupNorm) else norm
        self.register_buffer("bias", bias.clone())
        self.register_buffer("taps", taps.double() if folded else taps.t().clone())

    def forward(self, speech: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Convolution, norm, GELU."""
        batch, samples = speech.shape
        hops = (samples + HOP - 1) // HOP
        rows = F.pad(speech, (0, hops * HOP - samples)).view(batch, -1, self.stride)
        windows, norm = _neighbors(rows, self.kernel), self.norm
        if not isinstance(norm, nn.GroupNorm):
            x = windows @ self.taps + self.bias
            return F.gelu(x if norm is None else norm(x))
        lengths = (lengths - self.kernel) // self.stride + 1
        if kernels.pays("folded_norm", windows):
            weight, bias = kernels.folded_norm(self.taps, norm, windows, lengths)
            return F.gelu(windows @ weight + bias)
        wide = self.taps @ windows.double().mT
        wide = norm_valid(wide, lengths, norm.weight, norm.bias, norm.eps)
        return F.gelu(wide.mT.to(windows.dtype))


class _Convolution(nn.Module):
    """Rows ``(B, R, C)`` to ``(B, R / stride, C')`` by one matrix product."""

    def __init__(self, block: ConvBlock):
        super().__init__()
        conv = block.conv
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        weight = conv.weight.detach().permute(2, 1, 0).reshape(-1, conv.out_channels)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())
        self.norm = block.layer_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution, norm, GELU."""
        batch, rows, width = x.shape
        blocks = x.reshape(batch, rows // self.stride, self.stride * width)
        x = _neighbors(blocks, self.kernel * width) @ self.weight
        x = x if self.bias is None else x + self.bias
        return F.gelu(x if self.norm is None else self.norm(x))


class _Linear(nn.Module):
    """A linear map whose weight lies as a matrix product reads it."""

    def __init__(self, *parts: nn.Linear):
        super().__init__()
        self.register_buffer("weight", torch.cat([p.weight.detach().t() for p in parts], dim=1))
        self.register_buffer("bias", torch.cat([p.bias.detach() for p in parts]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., D)`` to ``(..., D')``."""
        return x @ self.weight + self.bias


class _Attention(nn.Module):
    """Self-attention, queries, keys and values by one product."""

    def __init__(self, attention: SelfAttention):
        super().__init__()
        self.heads = attention.heads
        self.inputs = _Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        width = attention.q_proj.out_features
        scale = math.sqrt(self.heads / width)
        self.inputs.weight[:, :width] *= scale
        self.inputs.bias[:width] *= scale
        self.output = _Linear(attention.out_proj)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, maps: bool, lent: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`SelfAttention`."""
        batch, frames, width = x.shape
        parts = self.inputs(x).view(batch, frames, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(2, 3) + (~mask).to(x.dtype) * MASKED).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, frames, width)
        return self.output(mixed), weights


class _Reduction(nn.Module):
    """Rows ``(B, N, D)`` joined in pairs by one matrix product."""

    def __init__(self, reduction: TimeReduction):
        super().__init__()
        conv = reduction.conv
        weight = conv.weight.detach().permute(2, 1, 0).reshape(-1, conv.out_channels)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`TimeReduction`."""
        pairs = torch.cat([x[:, :-1:2], x[:, 1::2]], dim=2)
        return pairs @ self.weight + self.bias


def _neighbors(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Each row followed by the start of the next ones, ``(B, R, C)`` to ``(B, R, width)``.

    Past the end stand zeros.
    """
    count = rows.shape[2]
    if width <= count:
        return rows if width == count else rows[:, :, :width]
    parts = [rows]
    for shift in range(1, -(-width // count)):
        part = rows[:, shift:, : min(count, width - shift * count)]
        parts.append(F.pad(part, (0, 0, 0, shift)))
    return torch.cat(parts, dim=2)
