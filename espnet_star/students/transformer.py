"""The students' Transformer, post-norm as HuBERT Base or pre-norm as HuBERT Large.

Beyond HuBERT's, layers may reuse the attention map of one below them, frames may be joined in
front of the first layer, and gradients may be scaled from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import HubertConfig

from espnet_star import kernels
from espnet_star.outputs import valid_mask
from espnet_star.students.front import PositionalConv
from espnet_star.students.layers import Dropout, Linear, scale_gradient


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
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        maps: bool,
        lent: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend.

        Args:
            x: ``(B, N, D)``.
            mask: ``(B, 1, 1, N)``, true on valid keys; None if all are.
            maps: Whether to give the attention probabilities.
            lent: Those of a layer below, for :class:`ReusedAttention`.

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


class ReusedAttention(nn.Module):
    """Values and output of self-attention, by the map of a layer below; no dropout of it.

    Args:
        config: Sizes.
        second_softmax: Take the softmax of the map, which is one already: almost uniform, and
            what released weights were trained with (arXiv 2305.11685, the authors' code).
    """

    def __init__(self, config: HubertConfig, second_softmax: bool):
        super().__init__()
        self.heads, self.second_softmax = config.num_attention_heads, second_softmax
        self.v_proj = Linear(config.hidden_size, config.hidden_size)
        self.out_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, maps: bool, lent: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`SelfAttention`; the map that comes back is the one used."""
        assert lent is not None  # the Transformer's first layer never reuses
        batch, frames, width = x.shape
        if self.second_softmax:
            scores = lent if mask is None else lent.masked_fill(~mask, torch.finfo(lent.dtype).min)
            lent = scores.softmax(dim=-1)
        v = self.v_proj(x).view(batch, frames, self.heads, width // self.heads).transpose(1, 2)
        mixed = (lent.to(v.dtype) @ v).transpose(1, 2).reshape(batch, frames, width)
        return self.out_proj(mixed), lent if maps else None


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
    """One Transformer layer; attention of its own by default."""

    def __init__(self, config: HubertConfig, attention: nn.Module | None = None):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = SelfAttention(config) if attention is None else attention
        self.dropout = Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        maps: bool,
        lent: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`SelfAttention`."""
        if self.pre_norm:
            mixed, weights = self.attention(self.layer_norm(x), mask, maps, lent)
            x = x + self.dropout(mixed)
            return x + self.feed_forward(self.final_layer_norm(x)), weights
        mixed, weights = self.attention(x, mask, maps, lent)
        x = self.layer_norm(x + self.dropout(mixed))
        return self.final_layer_norm(x + self.feed_forward(x)), weights


class TimeReduction(nn.Module):
    """Two frames to one by a convolution; an odd last frame is dropped."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, N, D)`` to ``(B, N // 2, D)``."""
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class Transformer(nn.Module):
    """Positional convolution, LayerNorm, dropout and the layers.

    Args:
        config: Sizes.
        reuse: Whether each layer takes the attention map of the last one below it that has
            computed one; none does by default.
        second_softmax: See :class:`ReusedAttention`.
        scale_gradients: Weaken gradients from layer to layer (arXiv 2305.11685): with
            ``a = (L - i) / (L - i + 1)`` behind layer i = 0..L-1, what passes down is scaled by
            a, and what an objective sends into its state by ``a (1 - a)``.
        halve: Join frames in pairs in front of the first layer, see :class:`TimeReduction`.
    """

    def __init__(
        self,
        config: HubertConfig,
        reuse: Sequence[bool] = (),
        second_softmax: bool = False,
        scale_gradients: bool = False,
        halve: bool = False,
    ):
        super().__init__()
        count = config.num_hidden_layers
        self.pre_norm = config.do_stable_layer_norm
        self.reuse = list(reuse) or [False] * count
        self.lends = [*self.reuse[1:], False]
        self.scale_gradients = scale_gradients
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.halves = halve
        self.reduction = TimeReduction(config) if halve else None
        self.layers = nn.ModuleList(
            EncoderLayer(config, ReusedAttention(config, second_softmax) if reused else None)
            for reused in self.reuse
        )

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Valid frames of the states, of those that came in."""
        return lengths if self.reduction is None else lengths // 2

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
        x, valid = self._input(x, valid)
        states, weights = [x], []
        if self.reduction is None:
            x = self.dropout(x)
        mask = None if valid is None else valid[:, None, None]
        lent: torch.Tensor | None = None
        for index, layer in enumerate(self.layers):
            x, attention = layer(x, mask, maps or self.lends[index], lent)
            if not self.reuse[index]:
                lent = attention
            x, branch = self._branch(x, index)
            states.append(branch)
            weights.append(attention)
        return states, weights if maps else None

    def _input(
        self, x: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Input of the first layer and its mask; dropout comes behind it, or before frames join."""
        if valid is not None:
            # The positional convolution must see silence past the end, not leftovers.
            # Filled, not multiplied: a LayerNorm front may have left NaN there.
            x = x.masked_fill(~valid[..., None], 0.0)
        x = x + self.pos_conv_embed(x)
        if not self.pre_norm:
            x = self.layer_norm(x)
        if self.reduction is None:
            return x, valid
        # A pair is padding where its second frame is.
        return self.reduction(self.dropout(x)), None if valid is None else valid[:, 1::2]

    def _branch(self, x: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What goes on to the next layer, and what an objective sees."""
        if not self.scale_gradients:
            return x, x
        left = len(self.layers) - index
        factor = left / (left + 1)
        x = scale_gradient(x, factor)
        return x, scale_gradient(x, 1 - factor)

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """What the encoder hands on: the last state, normalized in the pre-norm layout."""
        return self.layer_norm(last) if self.pre_norm else last
