"""Turn one utterance of any audio file into 16-bit mono at the wanted rate."""

from __future__ import annotations

import functools
import hashlib
import io
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import soundfile
import soxr

from espnet_star.data.channel import apply_channel, draw_channel
from espnet_star.data.errors import DataError

# What ESPnet's `sound` loader reads from any position without decoding it all.
DIRECT_FORMATS = {"WAV", "WAVEX", "FLAC"}
PIPE_TIMEOUT = 600.0


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

    ``notes`` name what was done to the audio: copied, mixed down, resampled, clipped.
    """

    utterance: str
    path: str = ""
    samples: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()


class Dropped(Exception):
    """An utterance cannot be used; the message is the reason."""


def file_name(utterance: str, audio_format: str) -> str:
    """Name below the audio folder, ``ab/utterance.flac``, for any utterance id.

    Ids may hold slashes and dots (VoxCeleb's do), which must not lead out of the
    folder; 256 subfolders keep each small on network file systems.
    """
    digest = hashlib.sha256(utterance.encode()).hexdigest()
    name = quote(utterance, safe="@+=,")
    stem = name if len(name) <= 200 else digest
    return f"{digest[:2]}/{stem}.{audio_format}"


@functools.lru_cache(maxsize=1)
def run_pipe(command: str) -> bytes:
    """Output of an entry of ``wav.scp`` that ends in a pipe.

    Raises:
        Dropped: If it fails, or takes too long.
    """
    # Cached, since neighbouring utterances are mostly segments of one recording.
    try:
        done = subprocess.run(
            command.rstrip("| \t"), shell=True, capture_output=True, timeout=PIPE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise Dropped(f"unreadable: pipe took over {PIPE_TIMEOUT:.0f} s") from None
    if done.returncode:
        message = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
        raise Dropped(f"unreadable: pipe failed with code {done.returncode} {message[0]}".strip())
    return done.stdout


def _open(source: str) -> soundfile.SoundFile:
    if source.endswith("|"):
        content = run_pipe(source)
        if not content:
            raise Dropped("empty file")
        file: io.BytesIO | str = io.BytesIO(content)
    else:
        path = Path(source)
        if not path.is_file():
            raise Dropped("missing file")
        if path.stat().st_size == 0:
            raise Dropped("empty file")
        file = source
    try:
        return soundfile.SoundFile(file)
    except (soundfile.SoundFileError, TypeError) as error:
        raise Dropped("unreadable: " + _reason(error)) from None


def _reason(error: Exception) -> str:
    # libsndfile repeats the path, which skipped.txt and wav.scp already give.
    return str(error).split(": ")[-1].strip() or type(error).__name__


def _read(sound: soundfile.SoundFile, job: Job, max_duration: float) -> np.ndarray:
    rate = sound.samplerate
    first = round((job.start or 0.0) * rate)
    last = sound.frames if job.end is None else min(round(job.end * rate), sound.frames)
    if first >= sound.frames > 0:
        raise Dropped("segment starts after the end of the recording")
    # A header that promises hours is believed; reading them would fill the memory.
    if (last - first) / rate > max_duration:
        raise Dropped("longer than max_duration")
    try:
        if first:
            sound.seek(first)
        samples = sound.read(last - first, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise Dropped("unreadable: " + _reason(error)) from None
    # MP3 headers only estimate a length; FLAC and WAV state it.
    if sound.format in DIRECT_FORMATS and len(samples) < last - first:
        raise Dropped(f"truncated: {len(samples)} of {last - first} samples")
    return samples


def _check(samples: np.ndarray) -> None:
    if not len(samples):
        raise Dropped("no samples")
    if not np.isfinite(samples).all():
        raise Dropped("NaN or infinite samples")
    if not samples.any():
        raise Dropped("all samples are zero")


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
        with _open(job.source) as sound:
            rate, channels, container = sound.samplerate, sound.channels, sound.format
            samples = _read(sound, job, options.max_duration)
        _check(samples)
        whole = job.start is None and not job.source.endswith("|")
        direct = whole and rate == options.fs and channels == 1 and container in DIRECT_FORMATS
        if direct and options.channel_seed is None:
            check_length(len(samples), options)
            return Result(job.utterance, str(Path(job.source).absolute()), len(samples))
        mono, notes = _to_mono(samples, rate, options)
        _check(mono)
        check_length(len(mono), options)
    except Dropped as reason:
        return Result(job.utterance, reason=str(reason))
    if options.channel_seed is not None:
        channel = draw_channel(options.channel_seed, job.utterance, options.fs)
        mono = apply_channel(mono, channel)
    if np.abs(mono).max() > 1.0:
        notes.append("clipped")
    path = Path(folder) / file_name(job.utterance, options.audio_format)
    _write(path, mono, options)
    return Result(job.utterance, str(path), len(mono), notes=tuple(["written", *notes]))


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
        DataError: If the file is missing, no audio, or cut short.
    """
    source = str(path)
    try:
        if source.endswith("|"):  # which `_open` would run
            raise Dropped("missing file")
        with _open(source) as sound:
            samples, rate = _read(sound, Job(source, source), float("inf")), sound.samplerate
    except Dropped as reason:
        raise DataError(f"{path}: {reason}; expected an audio file that libsndfile reads") from None
    return resample(samples.mean(axis=1), rate, fs)


def _write(path: Path, samples: np.ndarray, options: AudioOptions) -> None:
    # Encoded in memory, since libsndfile hides the errno of a full disk.
    encoded = io.BytesIO()
    soundfile.write(
        encoded, samples, options.fs, format=options.audio_format.upper(), subtype="PCM_16"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getbuffer())
