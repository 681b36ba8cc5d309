"""Check a prepared data directory before hours of training are spent on it."""

from __future__ import annotations

import bisect
import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from espnet_star.data.errors import DataError, Dropped, some
from espnet_star.data.kaldi import (
    check_spk2utt,
    read_counts,
    read_table,
    read_utt2spk,
    read_wav_scp,
    split_lines,
)
from espnet_star.data.levels import check_peak, peak_of
from espnet_star.data.recording import ark_place, file_notes, read_ark
from espnet_star.data.source import read_label_table
from espnet_star.terminal.units import pluralize

BINS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0)
NEED = ("text", "utt2spk")
SAMPLE = 20
BAR = 40
# More samples than any file has: libsndfile's way to say that a header does not tell.
UNKNOWN_FRAMES = 1 << 48


@dataclass
class Report:
    """What a data directory holds.

    Attributes:
        utterances: Number of utterances.
        hours: Their length.
        speakers: Number of speakers, None without ``utt2spk``.
        bins: Number of utterances shorter than each of `BINS` seconds and not shorter
            than the one before; the last entry counts the rest.
        opened: How many audio files were read.
        notes: Of these, which end before or after their headers say.
    """

    utterances: int = 0
    hours: float = 0.0
    speakers: int | None = None
    bins: list[int] = field(default_factory=list)
    opened: int = 0
    notes: list[str] = field(default_factory=list)


def check_datadir(
    datadir: str | Path,
    need: Sequence[str] = (),
    fs: int = 16000,
    train_speakers: str | Path | None = None,
    token_list: str | Path | None = None,
    full: bool = False,
    source: str | Path | None = None,
) -> Report:
    """Check that a directory is complete, consistent and readable.

    Args:
        datadir: Directory with ``wav.scp`` and ``utt2num_samples``.
        need: Further files that must be there (``text``, ``utt2spk``, ...).
        fs: Sampling rate that every file must have, in Hz.
        train_speakers: Training directory (or its ``utt2spk``) whose speakers must
            include those of ``datadir``.
        token_list: Token list whose characters must cover the transcripts.
        full: Decode every audio file, where the default is the first, the last and
            some random ones.
        source: Directory it was prepared from, of which nothing may have been dropped.

    Raises:
        DataError: Listing everything that was found wrong.
    """
    directory = Path(datadir)
    wavs = read_wav_scp(directory / "wav.scp")
    counts = read_counts(directory / "utt2num_samples")
    if not wavs:
        raise DataError(f"{directory / 'wav.scp'} is empty; prepare the directory again")
    names = sorted({*need, *(name for name in NEED if (directory / name).exists())})
    tables = {name: read_label_table(directory / name) for name in names}
    problems = _compare_keys(directory / "utt2num_samples", counts, wavs)
    for name, table in tables.items():
        problems += _compare_keys(directory / name, table, wavs)
    check_spk2utt(directory)
    problems += _check_transcripts(directory, tables.get("text", {}), token_list)
    if train_speakers is not None:
        problems += _check_speakers(directory, Path(train_speakers))
    if source is not None:
        problems += check_complete(directory, Path(source))
    chosen = _choose(sorted(wavs), full)
    found, notes = _check_audio(chosen, wavs, counts, fs)
    problems += found
    if problems:
        raise DataError(
            f"{pluralize(len(problems), 'problem')} in {directory}:\n  " + "\n  ".join(problems)
        )
    report = _report(counts, tables, fs, len(chosen))
    report.notes = notes
    return report


def _report(
    counts: dict[str, int], tables: dict[str, dict[str, str]], fs: int, opened: int
) -> Report:
    return Report(
        utterances=len(counts),
        hours=sum(counts.values()) / fs / 3600,
        speakers=len(set(tables["utt2spk"].values())) if "utt2spk" in tables else None,
        bins=histogram(counts.values(), fs),
        opened=opened,
    )


def histogram(samples: Iterable[int], fs: int) -> list[int]:
    """Number of utterances by length, see :attr:`Report.bins`."""
    bins = [0] * (len(BINS) + 1)
    for length in samples:
        bins[bisect.bisect_right(BINS, length / fs)] += 1
    return bins


def histogram_lines(bins: Sequence[int]) -> list[str]:
    """The same drawn, a line for each length that occurs."""
    edges = ["0", *(f"{edge:g}" for edge in BINS), "..."]
    return [
        f"  {low:>3} to {high:>3} s {count:>8} {'#' * max(1, round(BAR * count / sum(bins)))}"
        for low, high, count in zip(edges[:-1], edges[1:], bins, strict=True)
        if count
    ]


def _compare_keys(path: Path, keys: Iterable[str], expected: Iterable[str]) -> list[str]:
    found, wanted = set(keys), set(expected)
    problems = []
    if wanted - found:
        problems.append(
            f"{path} lacks {len(wanted - found)} utterances of wav.scp: "
            f"{some(sorted(wanted - found))}"
        )
    if found - wanted:
        problems.append(
            f"{path} has {len(found - wanted)} utterances that wav.scp lacks: "
            f"{some(sorted(found - wanted))}"
        )
    return problems


def check_complete(directory: Path, source: Path) -> list[str]:
    """What a prepared directory lacks of the one it was prepared from; nothing if it is whole."""
    kept = read_table(directory / "wav.scp")
    dropped = sorted(read_table(source / "wav.scp").keys() - kept.keys())
    if not dropped:
        return []
    return [
        f"{len(dropped)} utterances of {source} were dropped, so results would not be those of "
        f"the whole set: {some(dropped)}; {directory / 'skipped.txt'} tells why"
    ]


def _choose(keys: list[str], full: bool) -> list[str]:
    if full or len(keys) <= SAMPLE + 2:
        return keys
    # Seeded by nothing of the data: repeated checks of one directory look alike.
    return [keys[0], *random.Random(0).sample(keys[1:-1], SAMPLE), keys[-1]]


def _check_audio(
    keys: list[str], wavs: dict[str, str], counts: dict[str, int], fs: int
) -> tuple[list[str], list[str]]:
    """Problems of audio files, and what is worth a note."""
    problems, notes = [], []
    for key in keys:
        try:
            problem = _check_file(wavs[key], counts.get(key), fs)
            notes += [f"{key}: {wavs[key]}: {note}" for note in file_notes(wavs[key])]
        except (Dropped, soundfile.SoundFileError, OSError) as error:
            problem = f"cannot read {wavs[key]} ({str(error).split(': ')[-1]})"
        if problem:
            problems.append(f"{key}: {problem}")
    return problems, notes


def _check_file(path: str, expected: int | None, fs: int) -> str | None:
    samples, peak = 0, 0.0
    with soundfile.SoundFile(io.BytesIO(read_ark(path)) if ark_place(path) else path) as sound:
        rate, channels = sound.samplerate, sound.channels
        if sound.frames > UNKNOWN_FRAMES:
            return (
                f"{path} does not say its length, without which ESPnet cannot read it; "
                "star_data prepare writes it anew"
            )
        # Decoded in blocks: a header can promise what the file does not hold.
        for block in sound.blocks(65536, dtype="float32"):
            samples += len(block)
            # Not Python's max, which loses a NaN.
            peak = float(np.maximum(peak, peak_of(block)))
    try:
        check_peak(peak)
    except Dropped as reason:
        return f"{path} has {reason}"
    if rate != fs or channels != 1:
        return f"expected {fs} Hz mono, {path} has {rate} Hz, {channels} channels"
    if expected not in (None, samples):
        return f"utt2num_samples says {expected} samples, {path} holds {samples}"
    return None


def read_speakers(path: Path) -> set[str]:
    """Speakers of a directory's ``utt2spk``, or of such a file."""
    return set(read_utt2spk(path / "utt2spk" if path.is_dir() else path).values())


def _check_speakers(directory: Path, train: Path) -> list[str]:
    unseen = sorted(read_speakers(directory) - read_speakers(train))
    if not unseen:
        return []
    return [
        f"{len(unseen)} speakers of {directory / 'utt2spk'} are not in {train}, so no classifier "
        f"trained on it can name them: {some(unseen)}"
    ]


def read_characters(path: str | Path) -> set[str]:
    """Characters that a token list can write (special tokens such as ``<blank>`` aside).

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        tokens = split_lines(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the token list ({error})") from error
    special = {token for token in tokens if len(token) > 2 and token[0] + token[-1] == "<>"}
    return {char for token in tokens if token not in special for char in token}


def _check_transcripts(
    directory: Path, text: dict[str, str], token_list: str | Path | None
) -> list[str]:
    problems = []
    empty = sorted(key for key, words in text.items() if not words)
    if empty:
        problems.append(f"{directory / 'text'}: {len(empty)} empty transcripts: {some(empty)}")
    if token_list is None:
        return problems
    known = read_characters(token_list) | {" "}
    first: dict[str, str] = {}
    for key, words in text.items():
        for char in set(words) - known:
            first.setdefault(char, key)
    if first:
        examples = some(
            f"{char!r} (U+{ord(char):04X}) in {key}" for char, key in sorted(first.items())
        )
        problems.append(
            f"{directory / 'text'}: {len(first)} characters are not in {token_list}: {examples}"
        )
    return problems
