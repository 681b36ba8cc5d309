"""Decode the clips of ``queen.1c`` and write Kaldi-style data directories.

Audio is written at its original rate; a later stage of the recipe resamples it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from corpus_sets import UNKNOWN, Clip, build_sets, normalize
from queen_archive import (
    Entry,
    Line,
    QueenError,
    clip_entries,
    pair_clips,
    read_entry,
    read_index,
)

# Shorter or quieter than this is a place holder, not speech.
SHORTEST_SECONDS = 0.3
SILENCE_RMS = 1e-3


def decode(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decode one compressed clip.

    Args:
        data: MP3, Ogg or FLAC file.
        name: Clip, for error messages.

    Returns:
        Samples ``(T,)`` in float32 within [-1, 1], and the sampling rate.

    Raises:
        QueenError: If libsndfile cannot read it or it is not mono.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise QueenError(
            f"clip {name}: {len(data)} bytes that libsndfile cannot decode ({error}); it needs "
            "libsndfile 1.1 or newer for MP3, and the talkie with compressed voices"
        ) from error
    if samples.ndim != 1:
        raise QueenError(f"clip {name}: expected mono, found {samples.shape[1]} channels")
    # Lossy compression overshoots; 16-bit samples would wrap or be cut off anyway.
    return np.clip(samples, -1.0, 1.0), rate


def store_clip(data: bytes, name: str, line: Line | None, wavdir: Path) -> Clip | None:
    """Decode one clip and write it as FLAC.

    Args:
        data: Compressed bytes.
        name: Clip.
        line: Who says what in it, if known.
        wavdir: Folder for ``NAME.flac``.

    Returns:
        Description of the clip, or None if there is no speech in it.
    """
    samples, rate = decode(data, name)
    seconds = len(samples) / rate
    if seconds < SHORTEST_SECONDS or float(np.sqrt(np.mean(samples**2))) < SILENCE_RMS:
        return None
    # Renamed when complete: a training run may be reading the file of an earlier run.
    partial = wavdir / f".{name}.flac"
    soundfile.write(partial, samples, rate, subtype="PCM_16")
    partial.replace(wavdir / f"{name}.flac")
    return Clip(
        name=name,
        speaker=line.speaker if line else UNKNOWN,
        words=normalize(line.text) if line else None,
        seconds=seconds,
        digest=hashlib.sha256(data).hexdigest(),
    )


def store_clips(
    data: bytes, entries: Mapping[str, Entry], lines: Mapping[str, Line], wavdir: Path, jobs: int
) -> list[Clip]:
    """Decode all clips with ``jobs`` threads; libsndfile runs outside Python's lock."""
    wavdir.mkdir(parents=True, exist_ok=True)

    def store(name: str) -> Clip | None:
        return store_clip(read_entry(data, entries[name]), name, lines.get(name), wavdir)

    with ThreadPoolExecutor(jobs) as pool:
        return [clip for clip in pool.map(store, sorted(entries)) if clip is not None]


def write_data_dir(clips: Sequence[Clip], directory: Path, wavdir: Path, text: bool) -> None:
    """Write ``wav.scp``, ``utt2spk``, ``spk2utt`` and, if asked for, ``text``.

    Args:
        clips: Clips sorted by utterance id.
        directory: Data directory; files of an earlier run are replaced.
        wavdir: Folder of the audio, written into ``wav.scp`` as it is given.
        text: Whether the clips have transcripts to write.
    """
    directory.mkdir(parents=True, exist_ok=True)
    speakers: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        speakers[clip.speaker].append(clip.utt_id)
    tables = {
        "wav.scp": [f"{clip.utt_id} {wavdir / clip.name}.flac" for clip in clips],
        "utt2spk": [f"{clip.utt_id} {clip.speaker}" for clip in clips],
        "spk2utt": [f"{name} {' '.join(utts)}" for name, utts in sorted(speakers.items())],
    }
    if text:
        tables["text"] = [f"{clip.utt_id} {clip.words}" for clip in clips]
    for name, rows in tables.items():
        (directory / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def table(sets: Mapping[str, Sequence[Clip]]) -> str:
    """Clips, hours and speakers of every set, for people to read."""
    rows = [f"{'set':<10} {'clips':>6} {'hours':>6} {'speakers':>8} {'words':>6}"]
    for name, clips in sets.items():
        hours = sum(clip.seconds for clip in clips) / 3600
        speakers = len({clip.speaker for clip in clips} - {UNKNOWN})
        words = sum(len(clip.words.split()) for clip in clips if clip.words)
        rows.append(f"{name:<10} {len(clips):>6} {hours:>6.2f} {speakers:>8} {words:>6}")
    return "\n".join(rows)


def prepare(
    queen: Path, wavdir: Path, datadir: Path, subset_hours: float | None, jobs: int
) -> dict[str, list[Clip]]:
    """Do all of it; see the command line's help for the arguments.

    Returns:
        Clips by set.

    Raises:
        QueenError: If the archive is damaged or a set would be empty.
    """
    data = queen.read_bytes()
    index = read_index(data, str(queen))
    clips = store_clips(data, clip_entries(index), pair_clips(data, index), wavdir, jobs)
    sets = build_sets(clips, subset_hours)
    empty = [name for name, members in sets.items() if not members]
    if empty:
        raise QueenError(
            f"{queen}: no clips for {', '.join(empty)} out of {len(clips)}; expected the English "
            "talkie with thousands of clips"
        )
    for name, members in sets.items():
        write_data_dir(members, datadir / name, wavdir, text=name.startswith("asr_"))
    return sets


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queen", type=Path, default=Path("downloads/queen/queen.1c"))
    parser.add_argument("--wavdir", type=Path, default=Path("downloads/wav"))
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--subset_hours", type=float, help="thin the training sets out to this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    if args.subset_hours is not None and args.subset_hours <= 0:
        parser.error(f"--subset_hours must be positive, got {args.subset_hours}")
    started = time.monotonic()
    try:
        sets = prepare(args.queen, args.wavdir, args.data_dir, args.subset_hours, args.jobs)
    except (QueenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(sets))
    print(f"prepared in {time.monotonic() - started:.0f} s with {args.jobs} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
