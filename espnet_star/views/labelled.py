"""Labels of frames for the student, masked or not; a teacher only where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from espnet_star.data.labels import TOLERANCE, on_frames
from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count, valid_mask
from espnet_star.registry import Registry
from espnet_star.views.base import Pass, View
from espnet_star.views.masked import MaskedView
from espnet_star.views.mixed import MixedView
from espnet_star.views.plain import PlainView

MIXING: Registry[MixedView] = Registry("view", MixedView, {"mixed": MixedView})
NONE = -1


class LabelledView(View):
    """The student's frames come with labels that the data holds at 50 frames a second.

    Frame f of a slower student has the label of frame ``floor(50 f / rate)``, as Fast-HuBERT
    has it. Frames past the labels, and padded ones, have -1. ``labels`` is a data file of type
    ``text_int``, a line an utterance. Losses that never ask for a teacher's pass train with
    ``teacher: none``.

    Source: HuBERT (arXiv:2106.07447), DiceHuBERT (arXiv:2507.02911), Fast-HuBERT
    (arXiv:2309.13860); with ``mixing`` UniSpeech-SAT (arXiv:2110.05752).

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        mask_prob: Share of the frames that spans would cover if none overlapped or were cut; 0
            masks nothing.
        mask_length: Frames of a span at the slower frame rate; their mean where they are uniform.
        mask_selection: ``"static"``, or ``"uniform"`` for 0 to ``2 mask_length`` frames.
        no_mask_overlap: Whether spans must not overlap.
        mask_min_space: Free frames between two spans at least, where they must not overlap.
        min_masks: Spans of an utterance at least.
        same_count: Whether every utterance of a batch gets as many masked frames.
        mask_valid: Whether to mask in validation too, the same frames in every epoch; a loss
            over masked frames has nothing to read otherwise.
        mixing: Options of the view ``mixed``, for a student that hears mixtures; None for none.

    Raises:
        StarError: If an option is out of its range.
    """

    passes = MaskedView.passes
    masked: tuple[str, ...] = MaskedView.masked
    data = ("labels",)

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        mask_prob: float = 0.8,
        mask_length: int = 10,
        mask_selection: str = "static",
        no_mask_overlap: bool = False,
        mask_min_space: int = 1,
        min_masks: int = 2,
        same_count: bool = True,
        mask_valid: bool = True,
        mixing: Mapping[str, Any] | None = None,
    ):
        super().__init__(student, teacher)
        self.mixed = None if mixing is None else MIXING.build("mixed", mixing, student, teacher)
        self.fed: View
        if mask_prob == 0:
            self.fed, self.masked = PlainView(student, teacher), ()
            return
        self.fed = MaskedView(
            student,
            teacher,
            mask_prob,
            mask_length,
            mask_selection,
            no_mask_overlap,
            mask_min_space,
            min_masks,
            same_count,
            mask_valid,
        )

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`.

        Raises:
            StarError: If labels are absent or belong to an utterance of another length.
        """
        labels = labels_of(batch, speech_lengths)
        passes = self.fed(speech, speech_lengths)
        passes.setdefault("teacher_masked", passes["teacher"])
        on_frames = at_rate(labels, self.student, speech, speech_lengths)
        passes["student"] = replace(passes["student"], labels=on_frames)
        if self.mixed is not None:
            heard = self.mixed(speech, speech_lengths)
            passes = {
                name: replace(given, speech=heard[self.passes[name]].speech)
                for name, given in passes.items()
            }
        return passes


def labels_of(batch: Mapping[str, Any], lengths: torch.Tensor) -> torch.Tensor:
    """Labels ``(B, L)`` of a batch at 50 frames a second, -1 past an utterance's last.

    Args:
        batch: What the loader has brought besides speech.
        lengths: Samples of each utterance, ``(B,)``.

    Raises:
        StarError: If there are none, they are no whole numbers, or they are more than two
            frames off.
    """
    labels = batch.get("labels")
    if labels is None:
        raise StarError("the batch has no labels; give a data file named labels, of type text_int")
    if labels.dim() != 2 or labels.is_floating_point():
        raise StarError(
            f"labels must be a row of whole numbers for each utterance, got {labels.dtype} of "
            f"shape {tuple(labels.shape)}; give the data file as FILE,labels,text_int"
        )
    found, frames = batch["labels_lengths"].to(lengths.device), frame_count(lengths)
    wrong = ((found - frames).abs() > TOLERANCE).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        keys: Sequence[str] = batch.get("utt_id") or ()
        name = keys[row] if row < len(keys) else f"number {row} of the batch"
        raise StarError(
            f"utterance {name}: {int(found[row])} labels for {int(frames[row])} frames at 50 a "
            f"second ({int(lengths[row])} samples); make the labels from this audio, at that rate"
        )
    return torch.where(valid_mask(found, labels.shape[1]), labels, NONE)


def at_rate(
    labels: torch.Tensor, shape: Shape, speech: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Labels ``(B, N)`` of an encoder's frames, -1 where there is none.

    Args:
        labels: At 50 frames a second, ``(B, L)``, -1 for none.
        shape: The encoder's.
        speech: Waveforms at 16 kHz, ``(B, T)``.
        lengths: Samples of each, ``(B,)``.
    """
    size = shape.frames_of(speech.shape[1])
    there = valid_mask(shape.frames(lengths), size).to(labels.device)
    return torch.where(there, on_frames(labels, size, shape.hop), NONE)
