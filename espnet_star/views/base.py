"""The interface of a view: a batch becomes what each encoder is fed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from espnet_star.encoders.base import Shape


@dataclass(frozen=True)
class Pass:
    """One run of an encoder.

    Attributes:
        speech: Waveforms at 16 kHz, ``(B, T)``.
        lengths: Samples of each, ``(B,)``.
        mask: ``(B, N)``, true on frames that the encoder's mask vector replaces; None for none.
        labels: ``(B, N)``, what the frames are to be recognized as; None for none.
    """

    speech: torch.Tensor
    lengths: torch.Tensor
    mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None


class View(torch.nn.Module, ABC):
    """Makes a batch into passes of student and teacher.

    What it draws at random it draws from torch's global generator, which ESPnet seeds anew in
    every epoch, so that a resumed run sees what it would have seen. ``training`` tells
    training from validation.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.

    Attributes:
        passes: Name of each pass, by which objectives ask for it, and ``"student"`` or
            ``"teacher"``: whose it is. An encoder may run several times.
        masked: Names of those that come with a mask.
        data: Names of what it reads besides ``speech``, e.g. ``"labels"`` or ``"speech2"``.
    """

    passes: ClassVar[Mapping[str, str]] = {"teacher": "teacher", "student": "student"}
    masked: tuple[str, ...] = ()
    data: ClassVar[tuple[str, ...]] = ()

    def __init__(self, student: Shape, teacher: Shape):
        super().__init__()
        self.student, self.teacher = student, teacher

    @abstractmethod
    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """The passes of a batch, in the order in which they run.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``.
            speech_lengths: Samples of each, ``(B,)``.
            **batch: Whatever else the loader has brought, ``NAME`` and ``NAME_lengths``.
        """

    def chance(self, lengths: torch.Tensor) -> np.random.Generator:
        """Random numbers for a batch, for draws that torch has no function for.

        In training they follow from torch's global generator, and differ from rank to rank; in
        validation from the batch itself, so that every epoch is held against the same.

        Args:
            lengths: Samples of each utterance, ``(B,)``.
        """
        if not self.training:
            return np.random.default_rng(lengths.tolist())
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if distributed else 0
        return np.random.default_rng([int(torch.randint(2**62, ())), rank])

    @classmethod
    def collate_fn(cls, train: bool) -> Callable[..., Any]:
        """What data loading processes make of ``[(utterance, {name: array})]``.

        Here zero padding, -1 for labels. A view whose work belongs into those processes
        returns its own.
        """
        # Brings soundfile, which a training step without files has no use for.
        from espnet2.train.collate_fn import CommonCollateFn

        return CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)
