"""The student's Transformer, post-norm as HuBERT Base or pre-norm as HuBERT Large."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import HubertConfig

from espnet_star import kernels
from espnet_star.outputs import valid_mask
from espnet_star.students.front import PositionalConv
from espnet_star.students.layers import Dropout, Linear


class SelfAttention(nn.Module):
    """Multi-head self-attention over valid frames."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, maps: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend.

        Args:
            x: ``(B, N, D)``.
            mask: ``(B, 1, 1, N)``, true on valid keys; None if all are.
            maps: Whether to give the attention probabilities.

        Returns:
            ``(B, N, D)``, and ``(B, H, N, N)`` or None.
        """
        dropout = self.dropout if self.training else 0.0
        if not maps and kernels.pays("fused_attention", x):
            parts = (self.q_proj, self.k_proj, self.v_proj)
            return kernels.attend_from(x, parts, self.out_proj, self.heads, mask, dropout), None
        batch, frames, width = x.shape
        shape = (batch, frames, self.heads, width // self.heads)
        q, k, v = (
            proj(x).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        if not maps and kernels.pays("attention", q):
            mixed, weights = kernels.attend(q, k, v, mask, dropout), None
        else:
            scores = q @ k.transpose(2, 3) * shape[-1] ** -0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            weights = scores.softmax(dim=-1)
            mixed = F.dropout(weights, dropout) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, frames, width)
        return self.out_proj(mixed), weights if maps else None


class FeedForward(nn.Module):
    """Two linear maps with GELU between them."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.intermediate_dropout = Dropout(config.activation_dropout)
        self.intermediate_dense = Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = Dropout(config.hidden_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        if kernels.pays("gelu", x):
            x = kernels.linear_gelu(self.intermediate_dense, x)
        else:
            x = F.gelu(self.intermediate_dense(x))
        return self.output_dropout(self.output_dense(self.intermediate_dropout(x)))


class EncoderLayer(nn.Module):
    """One Transformer layer."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = SelfAttention(config)
        self.dropout = Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, maps: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`SelfAttention`."""
        if self.pre_norm:
            mixed, weights = self.attention(self.layer_norm(x), mask, maps)
            x = x + self.dropout(mixed)
            return x + self.feed_forward(self.final_layer_norm(x)), weights
        mixed, weights = self.attention(x, mask, maps)
        x = self.layer_norm(x + self.dropout(mixed))
        return self.final_layer_norm(x + self.feed_forward(x)), weights


class Transformer(nn.Module):
    """Positional convolution, LayerNorm, dropout and the layers."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, maps: bool = False
    ) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """All hidden states.

        Args:
            x: Projected frames ``(B, N, D)``.
            lengths: Valid frames ``(B,)``.
            maps: Whether attention probabilities are wanted.

        Returns:
            ``L + 1`` states ``(B, N, D)`` and ``L`` maps or None. In the pre-norm
            layout they are the residual stream, before the final LayerNorm.
        """
        padded = bool((lengths < x.shape[1]).any())
        return self.states(x, valid_mask(lengths, x.shape[1]) if padded else None, maps)

    def states(
        self, x: torch.Tensor, valid: torch.Tensor | None, maps: bool = False
    ) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """The same by a mask ``(B, N)``, true on valid frames; None if all are."""
        if valid is not None:
            # The positional convolution must see silence past the end, not leftovers.
            # Filled, not multiplied: a LayerNorm front may have left NaN there.
            x = x.masked_fill(~valid[..., None], 0.0)
        x = x + self.pos_conv_embed(x)
        if not self.pre_norm:
            x = self.layer_norm(x)
        states, weights = [x], []
        x = self.dropout(x)
        mask = None if valid is None else valid[:, None, None]
        for layer in self.layers:
            x, attention = layer(x, mask, maps)
            states.append(x)
            weights.append(attention)
        return states, weights if maps else None

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """What the encoder hands on: the last state, normalized in the pre-norm layout."""
        return self.layer_norm(last) if self.pre_norm else last
