"""From waveform to the input of the first Transformer layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import HubertConfig

from espnet_star import kernels
from espnet_star.encoders.masked_norm import masked_group_norm
from espnet_star.outputs import frame_count
from espnet_star.students.layers import Dropout, Linear

# Parameter names below are those of transformers' HubertModel, so that a state dict
# is a Hugging Face checkpoint as it stands.


class ConvBlock(nn.Module):
    """Convolution, optional normalization, GELU; ``(B, C, T) -> (B, C', T')``."""

    def __init__(self, config: HubertConfig, index: int):
        super().__init__()
        channels = config.conv_dim[index]
        self.conv = nn.Conv1d(
            1 if index == 0 else config.conv_dim[index - 1],
            channels,
            config.conv_kernel[index],
            stride=config.conv_stride[index],
            bias=config.conv_bias,
        )
        self.norm_type = config.feat_extract_norm
        self.layer_norm: nn.Module | None = None
        if self.norm_type == "layer":
            self.layer_norm = nn.LayerNorm(channels, elementwise_affine=True)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(channels, channels, affine=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Args: features ``(B, C, T)`` and valid steps ``(B,)``; both come back reduced."""
        lengths = frame_count(lengths, self.conv.stride[0], self.conv.kernel_size[0])
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.GroupNorm):
            norm = self.layer_norm
            x = masked_group_norm(x, lengths, norm.weight, norm.bias, norm.eps)
        elif self.layer_norm is not None:
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x), lengths


class FeatureExtractor(nn.Module):
    """The strided convolutions: waveform ``(B, T)`` to frames ``(B, N, C)``."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            ConvBlock(config, index) for index in range(len(config.conv_dim))
        )

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames and the valid number of them for each utterance."""
        if kernels.pays("front", speech):
            return kernels.row_front(list(self.conv_layers), speech, lengths)
        x = speech[:, None, :]
        for block in self.conv_layers:
            x, lengths = block(x, lengths)
        return x.transpose(1, 2), lengths


class FeatureProjection(nn.Module):
    """LayerNorm and a linear map if there are such, dropout."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        width = config.conv_dim[-1]
        self.layer_norm: nn.Module = nn.Identity()
        if config.feat_proj_layer_norm:
            self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection: nn.Module = nn.Identity()
        if not config.identity_projection:
            self.projection = Linear(width, config.hidden_size)
        self.dropout = Dropout(config.feat_proj_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, N, C) -> (B, N, D)``."""
        return self.dropout(self.projection(self.layer_norm(x)))


class PositionalConv(nn.Module):
    """Relative positions by a wide grouped convolution over ``(B, N, D)``."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel,
            padding=kernel // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        # Initialized before the weight norm splits it, as wav2vec 2.0 does.
        nn.init.normal_(self.conv.weight, std=(4 / (kernel * config.hidden_size)) ** 0.5)
        nn.init.zeros_(self.conv.bias)
        self.conv = nn.utils.parametrizations.weight_norm(self.conv, name="weight", dim=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape; an even kernel gives one frame too many, which is cut."""
        if kernels.pays("positions", x):
            return kernels.embed_positions(self.conv, x)
        out = self.conv(x.transpose(1, 2))[:, :, : x.shape[1]]
        return F.gelu(out).transpose(1, 2)
