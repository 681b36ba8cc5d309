"""An encoder that is used and never trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from espnet_star.encoders.base import ALL_STATES, Encoder, Shape, Want
from espnet_star.encoders.bfloat16 import Agree, alone
from espnet_star.outputs import LayerOutputs


class Wrapper(Encoder):
    """Stands for another encoder, whose weights are none of its own.

    Whoever holds it has no weight of the encoder in checkpoints, optimizers and gradient
    exchange.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, **shape: Any):
        super().__init__()
        # Straight into __dict__, past torch's registration of submodules.
        self.__dict__["encoder"] = encoder
        self.shape: Shape = replace(encoder.shape, **shape)
        self.name, self.conf = encoder.name, getattr(encoder, "conf", {})
        self.masks, self.inner, self.trainable = encoder.masks, encoder.inner, False

    def check(self, want: Want) -> None:
        """See :meth:`Encoder.check`."""
        super().check(want)
        self.encoder.check(want)

    def calibrate(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        want: Want = ALL_STATES,
        agreed: Agree = alone,
    ) -> None:
        """See :meth:`Encoder.calibrate`."""
        self.encoder.calibrate(speech, lengths, want, agreed)

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`."""
        return self.encoder.extract(speech, lengths, sizes, want)

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """See :meth:`Encoder.output`."""
        return self.encoder.output(last)

    def fingerprint(self) -> str:
        """See :meth:`Encoder.fingerprint`."""
        return self.encoder.fingerprint()

    @property
    def label(self) -> str:
        """See :attr:`Encoder.label`."""
        return self.encoder.label


class Frozen(Wrapper):
    """Out of reach for training and checkpoints, and moved along with what holds it."""

    def __init__(self, encoder: Encoder):
        super().__init__(encoder.requires_grad_(False).eval())

    def extract_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """See :meth:`Encoder.extract_all`."""
        return self.encoder.extract_all(speech, lengths, sizes, wants)

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Frozen:
        """Move the encoder wherever the holder is moved."""
        self.encoder._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def calibrate(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        want: Want = ALL_STATES,
        agreed: Agree = alone,
    ) -> None:
        """Follow the speech, then calibrate; every batch passes here first."""
        if next(self.encoder.parameters(), speech).device != speech.device:
            # FSDP moves parameters one by one, past _apply.
            self.encoder.to(speech.device)
        super().calibrate(speech, lengths, want, agreed)
