"""What every teacher has, wherever its weights come from."""

from __future__ import annotations

import logging
from abc import ABC
from typing import Any, ClassVar

import torch

from espnet_star.encoders.base import ALL_STATES, Encoder, Want, weights_fingerprint
from espnet_star.encoders.bfloat16 import (
    Agree,
    CastWeights,
    alone,
    find_fault,
    finite,
    plain_tensors,
)
from espnet_star.outputs import LayerOutputs


class Teacher(Encoder, ABC):
    """A frozen encoder that gives all its hidden states, to be followed.

    A teacher is always in eval mode and needs no gradient.

    Attributes:
        model_types: What ``config.json`` of a checkpoint of its own may say; empty where
            there is no such file.
        reads: Checkpoints without ``config.json`` that it reads, for the manual.
        dtype: Of matrix products and convolutions: what was asked for, and float32 once
            :meth:`calibrate` has found that bfloat16 is wrong on this CPU.
        calibrated: Whether :meth:`calibrate` has nothing left to decide.
    """

    role = "teacher"
    model_types: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = ""
    dtype: torch.dtype = torch.float32
    calibrated: bool = False

    def chosen(self) -> dict[str, Any]:
        """Options that were left open and found out, e.g. which model file was taken."""
        return {}

    def calibrate(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        want: Want = ALL_STATES,
        agreed: Agree = alone,
    ) -> None:
        """Take up bfloat16 where that was asked for; on a CPU only if it is right there.

        The first batch decides, once: states in float32 and in bfloat16 must agree but for
        rounding, else the teacher stays in float32 and the log says what was off.
        """
        if self.calibrated:
            return
        if self.dtype != torch.float32:
            with plain_tensors(), torch.no_grad():
                self._cast_weights(speech.clone(), lengths.clone(), want, agreed)
        self.calibrated = True

    def fingerprint(self) -> str:
        """See :meth:`Encoder.fingerprint`; bfloat16 gives other states."""
        checked = "" if self.dtype == torch.float32 else "bfloat16, checked"
        return weights_fingerprint(self, repr(self) + checked)

    def _cast_weights(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        want: Want,
        agreed: Agree,
    ) -> None:
        asked, sizes = self.dtype, lengths.tolist()

        def run(dtype: torch.dtype) -> LayerOutputs:
            self.dtype = dtype
            return self.extract(finite(speech), lengths, sizes, want)

        if speech.device.type != "cpu":
            CastWeights(products_of(self), asked)
            return
        exact = run(torch.float32)
        cast = CastWeights(products_of(self), asked)
        fault = agreed(find_fault(self, lambda: exact, lambda: run(asked)))
        if fault is not None:
            cast.undo()
            self.dtype = torch.float32
            logging.warning(fault.message(f"Teacher {self.name}"))

    def freeze(self) -> None:
        """Put every parameter out of the optimizer's reach. Call at the end of ``__init__``."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: a teacher's targets must not depend on dropout."""
        return self


def products_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules whose weights may be stored in bfloat16: matrix products and convolutions.

    Norms and embeddings stay in float32, and so does the residual stream under autocast:
    that halves memory, and autocast need not cast weights at every step. Weight-normalized
    convolutions keep float32, their weight is computed at each call.
    """
    kinds = (torch.nn.Linear, torch.nn.Conv1d)
    return [module for module in model.modules() if type(module) in kinds]
