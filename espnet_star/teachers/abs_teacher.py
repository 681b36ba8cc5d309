"""The one interface behind which every teacher stands."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from espnet_star.bfloat16 import Fault, Narrowed, find_fault, finite, plain_tensors
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs


class AbsTeacher(torch.nn.Module, ABC):
    """A frozen encoder that gives all its hidden states at 50 frames per second.

    A teacher is always in eval mode and needs no gradient. The distillation model
    keeps it outside its own submodules, so that checkpoints hold the student alone.

    Attributes:
        model_types: What ``config.json`` of a checkpoint of its own may say; empty where
            there is no such file.
        reads: Checkpoints without ``config.json`` that it reads, for the manual.
        conf: Its ``kind`` and options, those that it chose itself included; what
            ``config.yaml`` keeps as ``teacher_conf``. :func:`build_teacher` fills it in.
        has_attentions: Whether it can give attention maps.
        name: Hub name or directory that the weights came from.
        num_layers: Transformer layers L.
        width: Width D of the hidden states.
        pre_norm: True if layers do not end in a LayerNorm, so that the hidden states
            are an unnormalised residual stream.
        dtype: Of matrix products and convolutions: what was asked for, and float32 once
            :meth:`settle` has found that bfloat16 is wrong on this CPU.
        settled: Whether :meth:`settle` has nothing left to decide.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = ""
    conf: dict[str, Any]
    has_attentions: bool = True
    name: str
    num_layers: int
    width: int
    pre_norm: bool
    dtype: torch.dtype = torch.float32
    settled: bool = False

    @abstractmethod
    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, attentions: bool
    ) -> LayerOutputs:
        """Hidden states of a padded batch; called without gradient, in float32 input.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``, zero or anything past the length.
            lengths: Samples of each waveform, ``(B,)``.
            attentions: Whether attention maps are needed.

        Returns:
            Hidden states with ``frame_count(lengths)`` valid frames each.
        """

    def chosen(self) -> dict[str, Any]:
        """Options that were left open and found out, e.g. which model file was taken."""
        return {}

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor, attentions: bool = False
    ) -> LayerOutputs:
        """See :meth:`extract`. Runs without gradient whatever the caller does.

        Raises:
            StarError: If attention maps are asked of a teacher that has none.
        """
        if attentions:
            self.check_attentions()
        with torch.no_grad():
            self.settle(speech, lengths, attentions)
            return self.extract(speech, lengths, attentions)

    def settle(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        attentions: bool = False,
        agreed: Callable[[Fault | None], Fault | None] = lambda fault: fault,
    ) -> None:
        """Take up bfloat16 where that was asked for; on a CPU only if it is right there.

        The first batch decides, once: states in float32 and in bfloat16 must agree but for
        rounding, else the teacher stays in float32 and the log says what was off.

        Args:
            speech: See :meth:`extract`.
            lengths: See :meth:`extract`.
            attentions: See :meth:`extract`.
            agreed: Makes the decision of all ranks out of that of this one.
        """
        if self.settled:
            return
        if self.dtype != torch.float32:
            with plain_tensors():
                self._narrow(speech.clone(), lengths.clone(), attentions, agreed)
        self.settled = True

    def _narrow(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        attentions: bool,
        agreed: Callable[[Fault | None], Fault | None],
    ) -> None:
        asked = self.dtype

        def run(dtype: torch.dtype) -> LayerOutputs:
            self.dtype = dtype
            return self.extract(finite(speech), lengths, attentions)

        if speech.device.type != "cpu":
            Narrowed(products_of(self), asked)
            return
        exact = run(torch.float32)
        narrowed = Narrowed(products_of(self), asked)
        fault = agreed(find_fault(self, lambda: exact, lambda: run(asked)))
        if fault is not None:
            narrowed.undo()
            self.dtype = torch.float32
            logging.warning(fault.message(f"Teacher {self.name}"))

    def check_attentions(self) -> None:
        """Refuse to be asked for attention maps that there are not.

        Raises:
            StarError: Naming the loss to remove.
        """
        if not self.has_attentions:
            raise StarError(
                f"teacher {self.name!r} has no attention maps; remove the loss attention_map"
            )

    def freeze(self) -> None:
        """Put every parameter out of the optimiser's reach. Call at the end of ``__init__``."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> AbsTeacher:
        """Stay in eval mode: a teacher's targets must not depend on dropout."""
        return self


def products_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules whose weights may be stored in bfloat16: matrix products and convolutions.

    Norms and embeddings stay in float32, and so does the residual stream under autocast:
    that halves memory, and autocast need not cast weights at every step. Weight-normalised
    convolutions keep float32, their weight is computed at each call.
    """
    kinds = (torch.nn.Linear, torch.nn.Conv1d)
    return [module for module in model.modules() if type(module) in kinds]
