"""Spans of frames for masked prediction, drawn as fairseq draws them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from espnet_star.errors import StarError, unknown_name

SELECTIONS = ("static", "uniform")


@dataclass(frozen=True)
class SpanMask:
    """How masks are drawn: fairseq's ``compute_mask_indices``, on valid frames only.

    An utterance of n frames gets ``max(min_masks, floor(mask_prob n / mask_length + u))``
    spans, u uniform in 0..1. They are put anywhere, or one after another, the longest first,
    into what is still free. At last single masked frames are dropped until all utterances of
    the batch have as many. ESPnet's ``espnet2.ssl.utils.mask`` does the same but that it fails
    on utterances shorter than a span, and takes 0.1 to 0.8 s for a batch of 18 times 16 s.

    Source: fairseq ``fairseq/data/data_utils.py``; the values of Recycle-and-Distill
    (arXiv:2305.11685) and HuBERT (arXiv:2106.07447).

    Args:
        mask_prob: Share of the frames that spans would cover if none overlapped or were cut.
        mask_length: Frames of a span; their mean where they are uniform.
        mask_selection: ``"static"``, or ``"uniform"`` for 0 to ``2 mask_length`` frames.
        no_mask_overlap: Whether spans must not overlap.
        mask_min_space: Free frames between two spans at least, where they must not overlap.
        min_masks: Spans of an utterance at least.
        same_count: Whether every utterance of a batch gets as many masked frames.

    Raises:
        StarError: If an option is out of its range.
    """

    mask_prob: float = 0.8
    mask_length: int = 10
    mask_selection: str = "static"
    no_mask_overlap: bool = False
    mask_min_space: int = 1
    min_masks: int = 2
    same_count: bool = True

    def __post_init__(self) -> None:
        """Refuse what would mask nothing or everything."""
        if self.mask_selection not in SELECTIONS:
            raise unknown_name("mask_selection", str(self.mask_selection), SELECTIONS)
        if not 0 < self.mask_prob < 1:
            raise StarError(
                f"mask_prob must lie between 0 and 1, got {self.mask_prob!r}: it would mask "
                f"{'nothing' if self.mask_prob <= 0 else 'everything'}"
            )
        for name, least in (("mask_length", 1), ("mask_min_space", 0), ("min_masks", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise StarError(f"{name} must be a whole number from {least} on, got {value!r}")

    def draw(self, frames: Sequence[int], chance: np.random.Generator) -> np.ndarray:
        """Masks of a batch.

        Of two frames or more at least one is masked and one is not; a single one is not.

        Args:
            frames: Valid frames of each utterance.
            chance: Where random numbers come from.

        Returns:
            ``(B, N)``, true on masked frames, N being the most frames of an utterance.
        """
        found = np.zeros((len(frames), max(frames)), dtype=bool)
        for row, count in zip(found, frames, strict=True):
            if count > 1:
                row[:count] = self._utterance(count, chance)
        if self.same_count:
            totals = found.sum(axis=1)
            least = totals[totals > 0].min(initial=found.shape[1])
            for row, total in zip(found, totals, strict=True):
                if total > least:
                    places = chance.choice(np.flatnonzero(row), total - least, replace=False)
                    row[places] = False
        return found

    def _utterance(self, frames: int, chance: np.random.Generator) -> np.ndarray:
        """Masked frames of an utterance, ``(frames,)``."""
        number = int(self.mask_prob * frames / self.mask_length + chance.random())
        number = max(self.min_masks, number)
        if self.mask_selection == "uniform":
            lengths = chance.integers(0, 2 * self.mask_length + 1, number)
        else:
            lengths = np.full(number, self.mask_length)
        place = self._apart if self.no_mask_overlap else self._anywhere
        mask = place(frames, lengths, chance)
        if not mask.any():
            first = int(chance.integers(0, frames - 1))
            mask[first : first + min(self.mask_length, frames // 2)] = True
        if mask.all():
            mask[chance.integers(0, frames)] = False
        return mask

    @staticmethod
    def _anywhere(frames: int, lengths: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """Spans that start at different frames and may overlap."""
        mask = np.zeros(frames, dtype=bool)
        if not len(lengths):
            return mask
        shortest = min(int(lengths.min()), frames - 1)
        if frames - shortest <= len(lengths):
            shortest = frames - len(lengths) - 1
        starts = max(frames - max(shortest, 0), 1)
        number = min(len(lengths), starts)
        for start, length in zip(chance.choice(starts, number, replace=False), lengths):  # noqa: B905
            mask[start : start + length] = True
        return mask

    def _apart(self, frames: int, lengths: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """Spans with free frames between them; those that find no place any more are left out."""
        mask = np.zeros(frames, dtype=bool)
        free, space = [(0, frames)], self.mask_min_space
        shortest = int(lengths.min(initial=frames))
        for length in sorted(lengths.tolist(), reverse=True):
            ends = list(accumulate(_room(part, length + space) for part in free))
            if not ends or not ends[-1]:
                break
            start, end = free.pop(bisect_right(ends, chance.random() * ends[-1]))
            # One place there is where a span fits exactly.
            first = int(chance.integers(start, max(end - length, start + 1)))
            mask[first : first + length] = True
            if first - start - space >= shortest:
                free.append((start, first - space + 1))
            if end - first - length - space > shortest:
                free.append((first + length + space, end))
        return mask


def _room(part: tuple[int, int], needed: int) -> int:
    """Frames of a free part, 0 where they are too few."""
    size = part[1] - part[0]
    return size if size >= needed else 0
