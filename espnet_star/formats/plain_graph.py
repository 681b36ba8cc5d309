"""The student as a graph of few plain operations, for exporters.

The eager student steers by lengths on the host and picks the form that suits the CPU; a graph
must do neither. Here the same weights stand in the form that runtimes do fast: frames are rows
throughout, a convolution is a matrix product of neighbouring rows (which int8 quantisation
reaches too), weight norm and attention's scale are folded into weights, and the first layer's
group norm into those of each utterance. Masks are part of the graph, so an utterance has the
same features alone and in any padded batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from espnet_star.outputs import HOP, RECEPTIVE_FIELD
from espnet_star.students import StarEncoder
from espnet_star.students.front import ConvBlock
from espnet_star.students.transformer import EncoderLayer

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
        front, encoder = student.feature_extractor, student.encoder
        blocks = list(front.conv_layers)
        self.first = _FirstConvolution(blocks[0])
        self.convolutions = nn.ModuleList(_Convolution(block) for block in blocks[1:])
        self.input_norm = _copy(student.feature_projection.layer_norm)
        projection = student.feature_projection.projection
        self.projection = _Linear(projection) if isinstance(projection, nn.Linear) else None
        self.position = _Position(encoder.pos_conv_embed.conv)
        self.norm = _copy(encoder.layer_norm)
        self.pre_norm = encoder.pre_norm
        self.layers = nn.ModuleList(_Layer(layer) for layer in encoder.layers)
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
        x = self.first(speech.masked_fill(_past(lengths, speech.shape[1]), 0.0), lengths)
        for convolution in self.convolutions:
            x = convolution(x)
        frames = (lengths - OVERLAP) // HOP
        x = self.input_norm(x[:, : (speech.shape[1] - OVERLAP) // HOP])
        x = x if self.projection is None else self.projection(x)
        padding = _past(frames, x.shape[1])
        x = x.masked_fill(padding[..., None], 0.0)
        x = x + self.position(x)
        x = x if self.pre_norm else self.norm(x)
        states = [x]
        bias = padding[:, None, None].to(x.dtype) * MASKED
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        if self.last:
            return (self.norm(states[-1]) if self.pre_norm else states[-1]), frames
        return torch.stack(states), frames


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
        self.group_norm = isinstance(norm, nn.GroupNorm)
        self.layer_norm = None if self.group_norm or norm is None else _copy(norm)
        self.register_buffer("bias", bias.clone())
        self.register_buffer("taps", taps.double() if self.group_norm else taps.t().clone())
        if isinstance(norm, nn.GroupNorm):
            self.eps = norm.eps
            self.register_buffer("scale", norm.weight.detach().double())
            self.register_buffer("offset", norm.bias.detach().double())

    def forward(self, speech: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Convolution, norm, GELU."""
        batch, samples = speech.shape
        hops = (samples + HOP - 1) // HOP
        rows = F.pad(speech, (0, hops * HOP - samples)).view(batch, -1, self.stride)
        windows = _neighbours(rows, self.kernel)
        if not self.group_norm:
            x = windows @ self.taps + self.bias
            return F.gelu(x if self.layer_norm is None else self.layer_norm(x))
        weight, bias = self._normalising(windows, (lengths - self.kernel) // self.stride + 1)
        return F.gelu(windows @ weight + bias)

    def _normalising(
        self, windows: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight ``(B, K, C)`` and bias ``(B, 1, C)`` that convolve and normalise.

        Mean and variance of the output follow from mean and covariance of the windows, in
        float64 since large terms cancel; a bias of the convolution moves the mean and cancels.
        """
        valid = (~_past(lengths, windows.shape[1]))[..., None].double()
        count = lengths[:, None, None].double()
        wide = windows.double() * valid
        mean = wide.sum(dim=1, keepdim=True) / count
        centred = (wide - mean) * valid
        covariance = centred.transpose(1, 2) @ centred / count
        variance = ((self.taps @ covariance) * self.taps).sum(dim=2)  # (B, C)
        scale = self.scale / (variance + self.eps).sqrt()
        offset = self.offset - (mean @ self.taps.t())[:, 0] * scale
        weight = (self.taps * scale[..., None]).transpose(1, 2)
        return weight.float(), offset[:, None].float()


class _Convolution(nn.Module):
    """Rows ``(B, R, C)`` to ``(B, R / stride, C')`` by one matrix product."""

    def __init__(self, block: ConvBlock):
        super().__init__()
        conv = block.conv
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        weight = conv.weight.detach().permute(2, 1, 0).reshape(-1, conv.out_channels)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())
        self.norm = None if block.layer_norm is None else _copy(block.layer_norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution, norm, GELU."""
        batch, rows, width = x.shape
        blocks = x.reshape(batch, rows // self.stride, self.stride * width)
        x = _neighbours(blocks, self.kernel * width) @ self.weight
        x = x if self.bias is None else x + self.bias
        return F.gelu(x if self.norm is None else self.norm(x))


class _Position(nn.Module):
    """The positional convolution, its weight norm folded."""

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.padding, self.groups = conv.padding[0], conv.groups
        self.register_buffer("weight", conv.weight.detach().clone())
        self.register_buffer("bias", conv.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, N, D)`` to the same."""
        frames = x.shape[1]
        out = F.conv1d(
            x.transpose(1, 2), self.weight, self.bias, padding=self.padding, groups=self.groups
        )
        return F.gelu(out[:, :, :frames]).transpose(1, 2)


class _Linear(nn.Module):
    """A linear map whose weight lies as a matrix product reads it."""

    def __init__(self, *parts: nn.Linear):
        super().__init__()
        self.register_buffer("weight", torch.cat([p.weight.detach().t() for p in parts], dim=1))
        self.register_buffer("bias", torch.cat([p.bias.detach() for p in parts]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., D)`` to ``(..., D')``."""
        return x @ self.weight + self.bias


class _Layer(nn.Module):
    """One Transformer layer, queries, keys and values by one product."""

    def __init__(self, layer: EncoderLayer):
        super().__init__()
        attention, feed_forward = layer.attention, layer.feed_forward
        self.heads, self.pre_norm = attention.heads, layer.pre_norm
        self.inputs = _Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        width = attention.q_proj.out_features
        scale = math.sqrt(self.heads / width)
        self.inputs.weight[:, :width] *= scale
        self.inputs.bias[:width] *= scale
        self.output = _Linear(attention.out_proj)
        self.norm = _copy(layer.layer_norm)
        self.inner = _Linear(feed_forward.intermediate_dense)
        self.outer = _Linear(feed_forward.output_dense)
        self.final_norm = _copy(layer.final_layer_norm)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Args: ``(B, N, D)`` and what is added to scores, ``(B, 1, 1, N)``."""
        if self.pre_norm:
            x = x + self._attend(self.norm(x), bias)
            return x + self._feed(self.final_norm(x))
        x = self.norm(x + self._attend(x, bias))
        return self.final_norm(x + self._feed(x))

    def _attend(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, frames, width = x.shape
        parts = self.inputs(x).view(batch, frames, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(2, 3) + bias).softmax(dim=-1)
        return self.output((weights @ v).transpose(1, 2).reshape(batch, frames, width))

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(F.gelu(self.inner(x)))


def _past(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """``(B, size)``, true past each length."""
    return torch.arange(size, device=lengths.device)[None] >= lengths[:, None]


def _neighbours(rows: torch.Tensor, width: int) -> torch.Tensor:
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


def _copy(norm: nn.Module) -> nn.LayerNorm:
    """A LayerNorm of the same weights."""
    assert isinstance(norm, nn.LayerNorm)
    twin = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    twin.load_state_dict(norm.state_dict())
    return twin
