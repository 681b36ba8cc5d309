"""Trials of speaker verification: lists of pairs, and ESPnet's tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_counts, read_wav_scp, split_lines, write_lines

# ESPnet's trainer splits the key of a pair at this character.
JOINT = "*"
FILES = ("trial.scp", "trial2.scp", "trial_label", "trial_shape")


class Trial(NamedTuple):
    """Two utterances, and whether one speaker said both (1) or not (0)."""

    label: int
    first: str
    second: str


def read_trials(path: str | Path) -> list[Trial]:
    """Read lines ``1 utterance utterance``: 1 for one speaker, 0 for two.

    Args:
        path: The list; its order and repeated pairs are kept.

    Raises:
        DataError: If it cannot be read, a line has another form, or trials of one kind are
            missing, without which there is no equal error rate.
    """
    try:
        lines = split_lines(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the trials ({error})") from error
    trials = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != 3 or words[0] not in {"0", "1"}:
            raise DataError(
                f"{path}:{number}: expected '1 utterance utterance' (1 one speaker, 0 two), got "
                f"{line!r}"
            )
        trials.append(Trial(int(words[0]), words[1], words[2]))
    kinds = {trial.label for trial in trials}
    if kinds != {0, 1}:
        raise DataError(
            f"{path}: {len(trials)} trials, {'none' if 1 not in kinds else 'all'} of one speaker; "
            "an equal error rate needs trials of one speaker (1) and of two (0)"
        )
    return trials


def check_named(
    trials: Sequence[Trial], known: Iterable[str], path: str | Path, where: str
) -> None:
    """Refuse trials of utterances that are not there.

    Args:
        trials: What was read from ``path``.
        known: Utterances that are there.
        path: The list, for the message.
        where: What lacks the utterances, for the message.

    Raises:
        DataError: Naming some of them.
    """
    absent = {name for trial in trials for name in trial[1:]} - set(known)
    if absent:
        count = sum(trial.first in absent or trial.second in absent for trial in trials)
        raise DataError(
            f"{path}: {count} of {len(trials)} trials name {len(absent)} utterances that {where} "
            f"lacks: {some(sorted(absent))}; skipped.txt there tells which were dropped and why"
        )


def write_pairs(trials: Sequence[Trial], datadir: str | Path, path: str | Path) -> int:
    """Write the tables that ESPnet's speaker task validates on.

    ``trial.scp`` and ``trial2.scp`` give both sides of each pair, ``trial_label`` whether it
    is one speaker, ``trial_shape`` the samples of the first side.

    Args:
        trials: Pairs; repeated ones are written once.
        datadir: Prepared directory with ``wav.scp`` and ``utt2num_samples``.
        path: Where the pairs were read, for messages.

    Returns:
        Pairs written.

    Raises:
        DataError: If utterances are absent, a name holds ``*``, or one pair has two labels.
    """
    directory = Path(datadir)
    wavs, counts = read_wav_scp(directory / "wav.scp"), read_counts(directory / "utt2num_samples")
    check_named(trials, wavs.keys() & counts.keys(), path, str(directory))
    pairs: dict[str, Trial] = {}
    for trial in trials:
        if JOINT in trial.first + trial.second:
            raise DataError(
                f"{path}: {trial.first} {trial.second}: names of utterances may not hold "
                f"{JOINT!r}, at which ESPnet takes pairs apart"
            )
        same = pairs.setdefault(f"{trial.first}{JOINT}{trial.second}", trial)
        if same.label != trial.label:
            raise DataError(
                f"{path}: {trial.first} {trial.second} is labeled 0 and 1; keep one of them"
            )
    columns = zip(
        FILES,
        (
            lambda trial: wavs[trial.first],
            lambda trial: wavs[trial.second],
            lambda trial: trial.label,
            lambda trial: counts[trial.first],
        ),
        strict=True,
    )
    for name, value in columns:
        write_lines(directory / name, (f"{key} {value(trial)}" for key, trial in pairs.items()))
    return len(pairs)
