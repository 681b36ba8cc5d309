"""Read and write Kaldi-style tables: one line ``key value`` an utterance, UTF-8."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from espnet_star.data.errors import DataError
from espnet_star.data.spans import ROUNDING


class Segment(NamedTuple):
    """Part of a recording: its key in ``wav.scp``, start and end in seconds.

    ``end`` is None where the file says -1, Kaldi's way to say "to the end".
    """

    recording: str
    start: float
    end: float | None


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    # Bytes are decoded line by line, so that the error names the line at fault.
    with file:
        for number, raw in enumerate(file, 1):
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raise DataError(
                    f"{path}:1: starts with a byte order mark, which would become part of the "
                    "first key; save the file as UTF-8 without it"
                )
            try:
                yield number, raw.decode("utf-8").rstrip()
            except UnicodeDecodeError as error:
                key = raw.split(maxsplit=1)[0].decode("utf-8", "backslashreplace")
                raise DataError(
                    f"{path}:{number}: utterance {key} is not UTF-8 ({error.reason} at byte "
                    f"{error.start}); convert the file, for instance with iconv"
                ) from error


def _check_blanks(path: Path, number: int, key: str, line: str) -> None:
    behind = line[line.index(key) + len(key) :][:1]
    if behind not in ("", " ", "\t"):
        raise DataError(
            f"{path}:{number}: behind {key} stands U+{ord(behind):04X}, a blank that is no space; "
            "put a space behind an utterance's name, and none into it"
        )
    if "\r" in line:
        raise DataError(
            f"{path}:{number}: {key} has a carriage return within its line, where ESPnet would "
            "begin a new one; end lines with a line feed"
        )


def read_table(path: str | Path, allow_empty: bool = False) -> dict[str, str]:
    """Read ``key value`` lines, in the order of the file.

    Args:
        path: The file; each line ends at a line feed and is split at its first space or tab.
        allow_empty: Accept a key without value (an empty transcript) as ``""``.

    Returns:
        The value of each key.

    Raises:
        DataError: If the file is missing or not UTF-8, a line is blank, a key is
            duplicated or a value is missing, blanks are no spaces; file, line and key are named.
    """
    path = Path(path)
    table: dict[str, str] = {}
    for number, line in _decoded_lines(path):
        key, *rest = line.split(maxsplit=1)[:2] or [""]
        if not key:
            raise DataError(f"{path}:{number}: blank line; expected 'key value'")
        _check_blanks(path, number, key, line)
        if key in table:
            raise DataError(f"{path}:{number}: utterance {key} is duplicated; keep one of them")
        if not rest and not allow_empty:
            raise DataError(f"{path}:{number}: {key} has no value; expected 'key value'")
        table[key] = rest[0] if rest else ""
    return table


def split_lines(text: str) -> list[str]:
    """Lines of a text, which end at line feeds, not at U+2028 as ``str.splitlines`` has it."""
    return text.removesuffix("\n").split("\n") if text else []


def read_utt2spk(path: str | Path) -> dict[str, str]:
    """Read ``utt2spk``: the speaker of each utterance.

    Raises:
        DataError: As `read_table`, or if the name of a speaker holds a blank.
    """
    table = read_table(path)
    for number, (key, speaker) in enumerate(table.items(), 1):
        if len(speaker.split()) != 1:
            raise DataError(
                f"{path}:{number}: speaker {speaker!r} of utterance {key} has a blank in its name, "
                f"at which spk2utt would end it; write {'_'.join(speaker.split())}"
            )
    return table


def read_wav_scp(path: str | Path, allow_pipes: bool = False) -> dict[str, str]:
    """Read ``wav.scp``: the path of each recording, relative to the working directory.

    Args:
        path: The file.
        allow_pipes: Accept entries such as ``sph2pipe -f wav a.sph |``.

    Raises:
        DataError: As `read_table`; also for a pipe unless ``allow_pipes``.
    """
    table = read_table(path)
    for number, (key, value) in enumerate(table.items(), 1):
        if value.endswith("|") and not allow_pipes:
            raise DataError(
                f"{path}:{number}: {key} is a pipe ({value}), which ESPnet's training cannot read; "
                "decode it once with star_data prepare --run_pipes true, which runs the commands "
                "written in wav.scp, so do it only with files you trust"
            )
    return table


def read_segments(path: str | Path) -> dict[str, Segment]:
    """Read ``segments``: lines ``utterance recording start end``, times in seconds.

    A start below 0 by rounding passes.

    Raises:
        DataError: As `read_table`, or if a line is not of that form.
    """
    segments = {}
    for number, (key, value) in enumerate(read_table(path).items(), 1):
        try:
            recording, start_text, end_text = value.split()
            start, end = float(start_text), float(end_text)
        except ValueError:
            raise DataError(
                f"{path}:{number}: {key} must be followed by 'recording start end' in seconds, "
                f"got {value!r}"
            ) from None
        if not (math.isfinite(start) and math.isfinite(end)) or start < -ROUNDING:
            raise DataError(f"{path}:{number}: {key} has impossible times {start} to {end} s")
        if end != -1 and end <= start:
            raise DataError(f"{path}:{number}: {key} ends ({end} s) before it starts ({start} s)")
        segments[key] = Segment(recording, start, None if end == -1 else end)
    return segments


def read_counts(path: str | Path) -> dict[str, int]:
    """Read ``utt2num_samples``: the length of each utterance in samples.

    Raises:
        DataError: As `read_table`, or if a length is not a positive integer.
    """
    counts = {}
    for number, (key, value) in enumerate(read_table(path).items(), 1):
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise DataError(f"{path}:{number}: {key} needs a number of samples, got {value!r}")
        counts[key] = int(value)
    return counts


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write ``key value`` lines sorted by key, complete or not at all.

    Sorting by code point is the order of ``LC_ALL=C sort`` on UTF-8, which Kaldi wants.

    Raises:
        OSError: If the file cannot be written.
    """
    write_lines(path, (f"{key} {table[key]}".rstrip() for key in sorted(table)))


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines to a file that appears under its name only when it is complete."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    partial.replace(path)


def invert(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """``spk2utt`` of an ``utt2spk``: the utterances of a speaker, sorted, space separated."""
    spk2utt: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(utterances) for speaker, utterances in spk2utt.items()}


def check_spk2utt(datadir: str | Path) -> None:
    """Check that ``spk2utt`` says what ``utt2spk`` says, where a directory holds both.

    Raises:
        DataError: Naming the first speaker whose utterances differ.
    """
    directory = Path(datadir)
    if not ((directory / "spk2utt").exists() and (directory / "utt2spk").exists()):
        return
    expected = invert(read_utt2spk(directory / "utt2spk"))
    listed = read_table(directory / "spk2utt")
    for speaker in sorted(listed.keys() | expected.keys()):
        if set(listed.get(speaker, "").split()) != set(expected.get(speaker, "").split()):
            raise DataError(
                f"{directory / 'spk2utt'}: the utterances of speaker {speaker} are not those of "
                "utt2spk; delete spk2utt and prepare the directory again"
            )
