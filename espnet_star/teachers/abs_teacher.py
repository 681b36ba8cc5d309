"""The one interface behind which every teacher stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

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
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = ""
    conf: dict[str, Any]
    has_attentions: bool = True
    name: str
    num_layers: int
    width: int
    pre_norm: bool

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
            return self.extract(speech, lengths, attentions)

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
