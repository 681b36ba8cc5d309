"""Turn one utterance of any audio file into 16-bit mono at the wanted rate."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import soundfile
import soxr

from espnet_star.data.channel import apply_channel, draw_channel
from espnet_star.data.errors import DataError, Dropped
from espnet_star.data.levels import SILENCE, check_peak, clipped_share, peak_of
from espnet_star.data.recording import Recording, open_recording
from espnet_star.data.spans import fit

CLIPPED = "clipped"


@dataclass(frozen=True)
class AudioOptions:
    """How utterances are converted.

    Attributes:
        fs: Sampling rate of the output in Hz.
        audio_format: ``flac`` or ``wav`` (16 bit).
        min_samples: Shorter utterances are dropped, in samples at ``fs``.
        min_duration: The same in seconds; the stricter of both holds.
        max_duration: Longer utterances are dropped, in seconds.
        channel_seed: Seed of the random channels, or None for none.
    """

    fs: int = 16000
    audio_format: str = "flac"
    min_samples: int = 400
    min_duration: float = 0.1
    max_duration: float = 30.0
    channel_seed: int | None = None


class Job(NamedTuple):
    """One utterance to convert; ``start`` and ``end`` in seconds cut a recording."""

    utterance: str
    source: str
    start: float | None = None
    end: float | None = None


class Result(NamedTuple):
    """Outcome of a `Job`: a path and samples, or the reason why it was dropped.

    ``notes`` name what was done to the audio: written, mixed down, resampled; what a user should
    look at has details behind a colon (``clipped: 0.4 % of the samples``).
    """

    utterance: str
    path: str = ""
    samples: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()


def file_name(utterance: str, audio_format: str) -> str:
    """Name below the audio folder, ``ab/utterance.flac``, for any utterance id.

    Ids may hold slashes and dots (VoxCeleb's do), which must not lead out of the
    folder; 256 subfolders keep each small on network file systems.
    """
    digest = hashlib.sha256(utterance.encode()).hexdigest()
    name = quote(utterance, safe="@+=,")
    stem = name if len(name) <= 200 else digest
    return f"{digest[:2]}/{stem}.{audio_format}"


def _check(samples: np.ndarray) -> None:
    if not len(samples):
        raise Dropped("no samples")
    peak = peak_of(samples)
    if peak < SILENCE:
        told = f" in 16 bits: the peak is {peak:.1e}" if peak else ""
        raise Dropped(f"all samples are zero{told}")
    check_peak(peak)


def check_length(samples: int, options: AudioOptions) -> None:
    """Hold a length, in samples at ``fs``, against the limits.

    Raises:
        Dropped: With the limit that it breaks.
    """
    if samples < options.min_samples:
        raise Dropped("shorter than min_samples")
    if samples < options.min_duration * options.fs:
        raise Dropped("shorter than min_duration")
    if samples > options.max_duration * options.fs:
        raise Dropped("longer than max_duration")


def convert(job: Job, folder: str, options: AudioOptions) -> Result:
    """Convert one utterance, or say why it is dropped.

    Args:
        job: The utterance.
        folder: Audio folder; its subfolders are made as needed.
        options: Format, limits and channel.

    Returns:
        The path written, or the absolute path of the source where that can be used as
        it is (mono WAV or FLAC at the right rate, whole, no channel asked for).

    Raises:
        OSError: If the output cannot be written.
    """
    try:
        with open_recording(job.source) as sound:
            samples, notes = _cut(sound, job, options.max_duration)
            rate, channels, direct = sound.rate, sound.channels, sound.direct
        _check(samples)
        direct = direct and job.start is None and rate == options.fs and channels == 1
        # Beyond full scale nothing is used as it is: shards and others would clip it unseen.
        if direct and options.channel_seed is None and not clipped_share(samples):
            check_length(len(samples), options)
            source = str(Path(job.source).absolute())
            return Result(job.utterance, source, len(samples), notes=tuple(notes))
        mono, made = _to_mono(samples, rate, options)
        _check(mono)
        check_length(len(mono), options)
    except Dropped as reason:
        return Result(job.utterance, reason=str(reason))
    if options.channel_seed is not None:
        channel = draw_channel(options.channel_seed, job.utterance, options.fs)
        mono = apply_channel(mono, channel)
    if share := clipped_share(mono):
        made.append(f"{CLIPPED}: {100 * share:.3g} % of the samples")
    path = Path(folder) / file_name(job.utterance, options.audio_format)
    _write(path, mono, options)
    return Result(job.utterance, str(path), len(mono), notes=("written", *notes, *made))


def _cut(sound: Recording, job: Job, max_duration: float) -> tuple[np.ndarray, list[str]]:
    """Samples ``(T, C)`` of an utterance, and notes on its recording."""
    span = fit(job.start, job.end, sound.seconds)
    first, last = round(span.start * sound.rate), min(round(span.end * sound.rate), sound.frames)
    # A header that promises hours is believed; reading them would fill the memory.
    if (last - first) / sound.rate > max_duration:
        raise Dropped("longer than max_duration")
    samples = sound.read(first, last)
    return samples, [*sound.notes, *([span.note] if span.note else [])]


def _to_mono(samples: np.ndarray, rate: int, options: AudioOptions) -> tuple[np.ndarray, list[str]]:
    notes = []
    if samples.shape[1] > 1:
        notes.append("mixed down")
    if rate != options.fs:
        notes.append("resampled")
    return resample(samples.mean(axis=1), rate, options.fs), notes


def resample(samples: np.ndarray, rate: int, fs: int) -> np.ndarray:
    """Samples ``(T,)`` at ``rate`` Hz as samples at ``fs`` Hz."""
    return soxr.resample(samples, rate, fs) if rate != fs and samples.size else samples


def read_mono(path: str | Path, fs: int) -> np.ndarray:
    """A whole audio file, mixed down and resampled as `convert` does it.

    Args:
        path: File of any rate, format and number of channels; never a command.
        fs: Sampling rate of the result in Hz.

    Returns:
        Samples ``(T,)`` in float32, which may be none.

    Raises:
        DataError: If the file is missing, no audio, cut short, or of another range.
    """
    source = str(path)
    try:
        if source.endswith("|"):  # which `open_recording` would run
            raise Dropped("missing file")
        with open_recording(source) as sound:
            samples, rate, notes = sound.read(0, sound.frames), sound.rate, sound.notes
        check_peak(peak_of(samples))
    except Dropped as reason:
        raise DataError(f"{path}: {reason}; expected an audio file that libsndfile reads") from None
    for note in notes:
        logging.warning("%s: %s", path, note)
    return resample(samples.mean(axis=1), rate, fs)


def _write(path: Path, samples: np.ndarray, options: AudioOptions) -> None:
    # Encoded in memory, since libsndfile hides the errno of a full disk.
    encoded = io.BytesIO()
    soundfile.write(
        encoded, samples, options.fs, format=options.audio_format.upper(), subtype="PCM_16"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getbuffer())
