"""Fast-HuBERT: a HuBERT on filterbanks at 25 frames per second."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError, first_line
from espnet_star.students.config import is_size, sizes
from espnet_star.students.fbank import HOP, WINDOW, FbankFront
from espnet_star.students.front import FeatureProjection
from espnet_star.students.headed import given
from espnet_star.students.star_encoder import StarEncoder

_FRONT: Mapping[str, Any] = {
    "conv_dim": [512, 512],
    "conv_kernel": [5, 5],
    "conv_stride": [2, 2],
    "feat_proj_dropout": 0.1,
    "activation_dropout": 0.0,
    "mask_embedding": True,
    "feature_grad_mult": 0.1,
}


class FastHubert(StarEncoder):
    """The encoder of Fast-HuBERT (arXiv 2309.13860), and thin ones behind the same front.

    80 log-mel bands every 10 ms, normalized by statistics of the corpus, two convolutions with
    gated linear units to a frame every 40 ms, LayerNorm, a linear map, the mask vector, and
    HuBERT's Transformer. ``conv_dim``, ``conv_kernel`` (odd) and ``conv_stride`` are those of
    the two; hop 640 and field 400 samples with the published strides.

    Args:
        input_size: Ignored; ESPnet gives it to every encoder.
        preset: ``fast_hubert``, or ``fast_hubert_thin`` with STaRHuBERT's Transformer.
        upstream: Start from this student and its architecture instead.
        mel_bins: Bands of the filterbank.
        cmvn: File of NumPy (``.npz``) with ``mean`` and ``std`` of each band over the corpus, see
            :func:`espnet_star.students.fbank.fbank_statistics`. They are saved with the weights;
            without a file they are 0 and 1.
        overrides: See :class:`StarEncoder`.

    Raises:
        StarError: On a misspelled preset or key, or a file that does not fit.
    """

    presets = {  # noqa: RUF012
        "fast_hubert": sizes(768, 3072, 12, 12) | dict(_FRONT),
        "fast_hubert_thin": sizes(432, 976, 8, 12) | dict(_FRONT),
    }
    own = {"mel_bins": 80}  # noqa: RUF012
    reads_waveform = False
    beyond_hubert = "a filterbank front"

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "fast_hubert",
        upstream: str | None = None,
        mel_bins: int | None = None,
        cmvn: str | None = None,
        **overrides: Any,
    ):
        super().__init__(input_size, preset, upstream, **(overrides | given(mel_bins=mel_bins)))
        if cmvn is not None:
            front = self.feature_extractor
            for buffer, found in zip(
                (front.cmvn_mean, front.cmvn_std), self._read(Path(cmvn)), strict=True
            ):
                buffer.copy_(found)

    def build(self) -> Shape:
        """See :meth:`StarEncoder.build`."""
        config = self.config
        if not is_size(config.mel_bins):
            raise StarError(
                f"student option mel_bins must be a positive integer, got {config.mel_bins!r}"
            )
        if any(kernel % 2 == 0 for kernel in config.conv_kernel):
            raise StarError(
                f"student option conv_kernel must be odd numbers, got {list(config.conv_kernel)}"
            )
        for key, only in (("conv_bias", False), ("feat_extract_norm", "group")):
            if getattr(config, key) != only:
                raise StarError(
                    f"student option {key} is not for fast_hubert, got {getattr(config, key)!r}; "
                    "leave it out"
                )
        self.feature_extractor = FbankFront(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = self.transformer()
        return Shape(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            hop=HOP * math.prod(config.conv_stride),
            field=WINDOW,  # padding stands in for what a frame sees beyond
            pre_norm=bool(config.do_stable_layer_norm),
        )

    def _read(self, path: Path) -> list[torch.Tensor]:
        """Mean and standard deviation of a file."""
        expected = f"expected an .npz with mean and std, {self.config.mel_bins} numbers each"
        try:
            with np.load(path) as content:
                found = [torch.from_numpy(content[name]).float() for name in ("mean", "std")]
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise StarError(f"cmvn {path}: {expected} ({first_line(error)})") from error
        for value in found:
            if value.shape != (self.config.mel_bins,) or not bool(value.isfinite().all()):
                raise StarError(f"cmvn {path}: {expected}, finite; got shape {tuple(value.shape)}")
        if not bool((found[1] > 0).all()):
            raise StarError(f"cmvn {path}: std must be above 0 in every band")
        return found
