"""Decide which clip goes into which set of the demo corpus. Pure functions, no files.

One split serves all tasks: a held-out clip is held out of distillation, of speech
recognition and of speaker identification alike. Clips with the same words or the same
bytes stay on one side of it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNKNOWN = "UNKNOWN"
TEST_SHARE = 0.12
VALID_SHARE = 0.08
# Clips without a known speaker only ever serve distillation: few suffice to watch it.
UNKNOWN_VALID_SHARE = 0.02
MIN_SECONDS = 1.0
MIN_WORDS = 2
MIN_SPEAKER_CLIPS = 40
# The hero speaks a third of all lines; uncapped, guessing him would score 33 %.
MAX_SPEAKER_CLIPS = 250
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        name: Name in the archive, such as ``020006J1``.
        speaker: Character, or ``UNKNOWN``.
        words: Normalized transcript, or None where there is none to be trusted.
        seconds: Duration.
        digest: Hash of the compressed bytes, equal for copies.
    """

    name: str
    speaker: str
    words: str | None
    seconds: float
    digest: str

    @property
    def utt_id(self) -> str:
        """Utterance id; starting with the speaker keeps Kaldi's sort orders equal."""
        return f"{self.speaker}-{self.name}"


def normalize(text: str | None) -> str | None:
    """Turn a line of dialogue into the words that are spoken.

    Args:
        text: Line without stage directions.

    Returns:
        Lower-case words of a-z and apostrophes with single blanks, or None if what is
        spoken cannot be told: digits (read out in more than one way), sounds in
        brackets, letters foreign to English.
    """
    if text is None:
        return None
    # The game's font draws the trade mark sign under these two codes.
    text = text.replace("^_", " ").lower()
    if re.search(r"[0-9<>()\[\]{}]", text):
        return None
    text = re.sub(r"[.,;:!?\"\-]", " ", text)
    if re.search(r"[^a-z' ]", text):
        return None
    # An apostrophe at the edge of a word cannot be told from a quotation mark.
    words = [word.strip("'") for word in text.split()]
    return " ".join(word for word in words if word) or None


def rank(key: str, seed: int) -> str:
    """Sort key that shuffles, equal on every machine and Python version."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def shuffled(clips: Iterable[Clip], seed: int) -> list[Clip]:
    """Clips in an order that depends on their names and the seed alone."""
    return sorted(clips, key=lambda clip: rank(clip.name, seed))


def same_content(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Group clips that are copies, or in which one speaker says the same words."""
    group_of: dict[object, list[Clip]] = {}

    def keys(clip: Clip) -> list[object]:
        return [clip.digest] + ([(clip.speaker, clip.words)] if clip.words else [])

    for clip in clips:
        touched = {id(group_of[key]): group_of[key] for key in keys(clip) if key in group_of}
        group = [member for old in touched.values() for member in old] + [clip]
        group_of.update((key, group) for member in group for key in keys(member))
    return list({id(group): group for group in group_of.values()}.values())


def split_clips(clips: Sequence[Clip], seed: int = 0) -> dict[str, str]:
    """Assign every clip to train, valid or test.

    Args:
        clips: All clips.
        seed: Seed of the shuffle.

    Returns:
        Split by clip name: about 80/8/12 within each character, counted over clips of
        at least a second; no test clips of an unknown speaker.
    """
    by_speaker: dict[str, list[list[Clip]]] = defaultdict(list)
    for group in same_content(clips):
        by_speaker[min((c.speaker for c in group), key=lambda name: name == UNKNOWN)].append(group)
    splits: dict[str, str] = {}
    for speaker, groups in by_speaker.items():
        groups.sort(key=lambda group: min(rank(clip.name, seed) for clip in group))
        sizes = [sum(clip.seconds >= MIN_SECONDS for clip in group) for group in groups]
        known = speaker != UNKNOWN
        room = {
            "test": round((TEST_SHARE if known else 0) * sum(sizes)),
            "valid": round((VALID_SHARE if known else UNKNOWN_VALID_SHARE) * sum(sizes)),
        }
        for group, size in zip(groups, sizes, strict=True):
            split = next((name for name in room if 0 < size <= room[name]), "train")
            if split != "train":
                room[split] -= size
            splits.update((clip.name, split) for clip in group)
    return splits


def speaker_clips(clips: Iterable[Clip], splits: Mapping[str, str], seed: int) -> list[Clip]:
    """Clips for speaker identification, none of a rare speaker, few of a frequent one."""
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.speaker != UNKNOWN and clip.seconds >= MIN_SECONDS:
            by_speaker[clip.speaker].append(clip)
    kept: list[Clip] = []
    for members in by_speaker.values():
        if len(members) < MIN_SPEAKER_CLIPS:
            continue
        share = min(1.0, MAX_SPEAKER_CLIPS / len(members))
        for split in SPLITS:
            part = [clip for clip in members if splits[clip.name] == split]
            kept += shuffled(part, seed)[: round(share * len(part))]
    return kept


def thin_out(clips: Sequence[Clip], hours: float, seed: int) -> list[Clip]:
    """Keep about ``hours`` of clips, the same share of every speaker's."""
    share = hours * 3600 / max(sum(clip.seconds for clip in clips), 1e-9)
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    kept = (
        shuffled(members, seed)[: math.ceil(min(share, 1.0) * len(members))]
        for members in by_speaker.values()
    )
    return [clip for members in kept for clip in members]


def build_sets(
    clips: Sequence[Clip], subset_hours: float | None = None, seed: int = 0
) -> dict[str, list[Clip]]:
    """Choose the clips of every set.

    Args:
        clips: All clips that can be decoded and are not silent.
        subset_hours: If given, thin every training set out to about so many hours.
        seed: Seed of the split.

    Returns:
        Clips by set, sorted by utterance id as in the C locale: ``train`` and ``valid``
        for distillation, ``asr_*`` and ``sid_*`` for the two tasks.
    """
    splits = split_clips(clips, seed)
    chosen = {
        "": [clip for clip in clips if splits[clip.name] != "test"],
        "asr_": [
            clip
            for clip in clips
            if clip.words is not None
            and len(clip.words.split()) >= MIN_WORDS
            and clip.seconds >= MIN_SECONDS
        ],
        "sid_": speaker_clips(clips, splits, seed),
    }
    sets: dict[str, list[Clip]] = {}
    for prefix, members in chosen.items():
        for split in SPLITS if prefix else SPLITS[:2]:
            part = [clip for clip in members if splits[clip.name] == split]
            if split == "train" and subset_hours is not None:
                part = thin_out(part, subset_hours, seed)
            sets[prefix + split] = sorted(part, key=lambda clip: clip.utt_id.encode())
    return sets
