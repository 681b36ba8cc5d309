"""Sets of VoxCeleb1's utterances, compared with the official counts."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from voxceleb_lists import Corpus, Trial, speaker

from espnet_star.data.errors import DataError, some

# Utterances of iden_split.txt, as SUPERB has them too; 1251 speakers in each.
SPLIT_COUNTS = {"train": 138361, "valid": 6904, "test": 8251}
SPEAKERS = 1251
# Target and other trials of veri_test.txt and veri_test2.txt.
TRIAL_COUNTS = {"vox1_o": (18860, 18860), "vox1_o_cleaned": (18802, 18809)}
# The corpus without the 40 speakers of the trials.
DEV_UTTERANCES, DEV_SPEAKERS = 148642, 1211
PARTIAL = "to use the part that is there, give --allow_partial true"


@dataclass(frozen=True)
class Verification:
    """Training utterances and the pairs to validate on."""

    train: list[str]
    valid_trials: list[Trial]


def check_audio(corpus: Corpus, wanted: Collection[str], what: str) -> None:
    """Refuse a corpus that lacks audio which a list names.

    Args:
        corpus: What was found.
        wanted: Utterances that must be there.
        what: Name of the list, for the message.

    Raises:
        DataError: Saying how many are absent and which parts of the corpus there are.
    """
    missing = sorted(name for name in wanted if name not in corpus.audio)
    if missing:
        raise DataError(
            f"{corpus.root} lacks {len(missing)} of the {len(wanted)} utterances of {what}, e.g. "
            f"{some(missing, 3)}; found {' and '.join(corpus.parts)} with {len(corpus.audio)} "
            f"utterances: a part was not unpacked or a download is incomplete ({PARTIAL})"
        )


def check_empty(corpus: Corpus) -> None:
    """Refuse files without audio, which an interrupted unpacking leaves.

    Raises:
        DataError: Naming some.
    """
    if corpus.empty:
        raise DataError(
            f"{corpus.root}: {len(corpus.empty)} files hold no audio, e.g. "
            f"{some(corpus.empty, 3)}; unpack the archives again"
        )


def check_split(split: Mapping[str, list[str]], path: str) -> None:
    """Compare an identification split with the official counts.

    Raises:
        DataError: If they differ.
    """
    found = {name: len(names) for name, names in split.items()}
    speakers = len({speaker(name) for names in split.values() for name in names})
    if found != SPLIT_COUNTS or speakers != SPEAKERS:
        raise DataError(
            f"{path}: expected {_counts(SPLIT_COUNTS)} utterances of {SPEAKERS} speakers, found "
            f"{_counts(found)} of {speakers}; get the list again ({PARTIAL})"
        )


def check_trials(trials: Mapping[str, list[Trial]]) -> None:
    """Compare trial lists with the official counts.

    Raises:
        DataError: If they differ.
    """
    for name, pairs in trials.items():
        targets = sum(pair.label for pair in pairs)
        found = (targets, len(pairs) - targets)
        if found != TRIAL_COUNTS[name]:
            wanted = TRIAL_COUNTS[name]
            raise DataError(
                f"{name}: expected {wanted[0]} trials of one speaker and {wanted[1]} of two, found "
                f"{found[0]} and {found[1]}; get the list again ({PARTIAL})"
            )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def check_closed(split: Mapping[str, list[str]]) -> None:
    """Refuse an identification set whose speakers the training set does not know.

    Raises:
        DataError: If there is one, or a part is empty.
    """
    known = {speaker(name) for name in split["train"]}
    for part, names in split.items():
        if not names:
            raise DataError(f"iden_split.txt: no utterance of {part} is there")
        unseen = sorted({speaker(name) for name in names} - known)
        if unseen:
            raise DataError(
                f"iden_split.txt: {len(unseen)} speakers of {part} have no training utterance, so "
                f"no classifier can name them: {some(unseen)}"
            )


def check_pairs(name: str, trials: Collection[Trial]) -> None:
    """Refuse a list without trials of both kinds, or whose labels the names contradict.

    Raises:
        DataError: If so.
    """
    for pair in trials:
        same = int(speaker(pair.first) == speaker(pair.second))
        if same != pair.label:
            raise DataError(
                f"{name}: {pair.first} and {pair.second} are labeled {pair.label}, but their "
                f"names say {same}; get the list again"
            )
    if {pair.label for pair in trials} != {0, 1}:
        raise DataError(
            f"{name}: {len(trials)} trials are left, not of both kinds (one speaker, two "
            "speakers); an equal error rate needs both"
        )


def verification(
    names: Iterable[str],
    test_speakers: Collection[str],
    trials: list[Trial],
    valid_speakers: int,
    valid_trials: int,
) -> Verification:
    """Training set of verification, and pairs to validate on.

    Args:
        names: All utterances.
        test_speakers: Speakers of the trials, who are never trained on.
        trials: Official trials, to validate on where no speaker is held out.
        valid_speakers: Development speakers to hold out instead; 0 for none.
        valid_trials: Pairs to validate on, half of them of one speaker.

    Raises:
        DataError: If there are too few speakers or pairs.
    """
    dev = sorted(name for name in names if speaker(name) not in test_speakers)
    speakers = sorted({speaker(name) for name in dev})
    if len(speakers) < valid_speakers + 2:
        raise DataError(
            f"{len(speakers)} speakers are not in the trials; {valid_speakers} held out to "
            "validate on leave fewer than two to train on"
        )
    rng = random.Random(0)
    held_out = set(rng.sample(speakers, valid_speakers))
    train = [name for name in dev if speaker(name) not in held_out]
    if held_out:
        pairs = draw_pairs([n for n in dev if speaker(n) in held_out], valid_trials, rng)
    else:
        pairs = balanced(trials, valid_trials, rng)
    return Verification(train, pairs)


def balanced(trials: list[Trial], count: int, rng: random.Random) -> list[Trial]:
    """A random subset with as many trials of one speaker as of two, in the list's order."""
    unique = list(dict.fromkeys(trials))
    chosen: set[Trial] = set()
    for label in (0, 1):
        pool = [pair for pair in unique if pair.label == label]
        chosen.update(rng.sample(pool, min(len(pool), max(1, count // 2))))
    return [pair for pair in unique if pair in chosen]


def draw_pairs(names: list[str], count: int, rng: random.Random) -> list[Trial]:
    """Random pairs of different utterances, half of them of one speaker.

    Raises:
        DataError: If the speakers have too few utterances.
    """
    by_speaker: dict[str, list[str]] = {}
    for name in names:
        by_speaker.setdefault(speaker(name), []).append(name)
    several = [group for group in by_speaker.values() if len(group) > 1]
    if len(by_speaker) < 2 or not several:
        raise DataError(
            f"{len(by_speaker)} speakers held out to validate on, {len(several)} of them with two "
            "utterances; pairs need two speakers, one with two: raise --valid_speakers"
        )
    groups = list(by_speaker.values())
    pairs: dict[Trial, None] = {}
    # Few utterances have few pairs; the attempts end where no new ones turn up.
    for attempt in range(20 * count):
        if len(pairs) >= count:
            break
        if attempt % 2:
            first, second = rng.sample(rng.choice(several), 2)
        else:
            first, second = (rng.choice(group) for group in rng.sample(groups, 2))
        pairs[Trial(attempt % 2, *sorted((first, second)))] = None
    return list(pairs)
