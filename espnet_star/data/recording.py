"""Recordings as tables name them: audio files, pipes, and entries of Kaldi archives."""

from __future__ import annotations

import functools
import io
import mmap
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from espnet_star.data.errors import Dropped
from espnet_star.data.streams import (
    CUT_SHORT,
    Piece,
    Streams,
    find_streams,
    state_length,
)

# What ESPnet's `sound` loader reads from any position without decoding it all.
DIRECT_FORMATS = {"WAV", "WAVEX", "FLAC"}
PIPE_TIMEOUT = 600.0
BLOCK = 1 << 16
# Decoders may be off by their delay; less than that is not missing, in seconds.
DELAY = 0.1
# Before a part of a compressed file, in seconds.
RUN_UP = 1
_ARK = re.compile(r"(?P<path>.+):(?P<offset>\d+)")
_AUDIO = b"AUDIO"


class _Sound(soundfile.SoundFile):
    """A sound file that is read forwards: no seek after each read, which FLAC's end refuses."""

    def seekable(self) -> bool:
        return False


class Stamp(NamedTuple):
    """A file, and what tells that it is still the same."""

    path: str
    size: int
    changed: int


@functools.lru_cache(maxsize=1)
def run_pipe(command: str) -> bytes:
    """Output of an entry of ``wav.scp`` that ends in a pipe.

    Raises:
        Dropped: If it fails, or takes too long.
    """
    # Cached, since neighboring utterances are mostly segments of one recording.
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


def ark_place(source: str) -> tuple[Path, int] | None:
    """Archive and offset of an entry ``file.ark:13``; None if it is the name of a file."""
    match = _ARK.fullmatch(source)
    if match is None or Path(source).is_file() or not Path(match["path"]).is_file():
        return None
    return Path(match["path"]), int(match["offset"])


def read_ark(source: str) -> bytes:
    """The audio file that a Kaldi archive holds at ``file.ark:13``.

    Both forms that ESPnet dumps are read: WAV as it is (``ark``), and any format in a frame
    of its own (``flac.ark``).

    Raises:
        Dropped: If there is something else.
    """
    place = ark_place(source)
    if place is None:
        raise Dropped("missing file")
    with place[0].open("rb") as file:
        file.seek(place[1])
        head = file.read(6)
        if head.startswith(b"RIFF"):
            size = int.from_bytes(head[4:] + (rest := file.read(2)), "little")
            return head + rest + file.read(size)
        if head.startswith(_AUDIO):
            return file.read(int.from_bytes(file.read(head[5]), "little"))
    raise Dropped("unreadable: this entry of the archive is no audio")


def read_bytes(source: str) -> bytes:
    """Content of a file, or of an entry ``file.ark:13``.

    Raises:
        Dropped: If an entry is no audio.
        OSError: If a file cannot be read.
    """
    return read_ark(source) if ark_place(source) else Path(source).read_bytes()


def _reason(error: Exception) -> str:
    # libsndfile repeats the path, which skipped.txt and wav.scp already give.
    return str(error).split(": ")[-1].strip() or type(error).__name__


def _cut(content: bytes, piece: Piece) -> bytes:
    data = bytearray(content[piece.start : piece.end])
    for place, new in piece.patches:
        data[place - piece.start : place - piece.start + len(new)] = new
    cut = piece.prefix + bytes(data)
    if not piece.unknown:
        return cut
    with _Sound(io.BytesIO(cut)) as sound:
        samples = sum(len(block) for block in _blocks(sound))
    return state_length(cut, samples)


def _blocks(sound: soundfile.SoundFile, limit: int | None = None) -> Iterator[np.ndarray]:
    """Samples ``(T, C)`` in blocks, to the end or ``limit``."""
    left = limit
    while left is None or left > 0:
        block = sound.read(BLOCK if left is None else min(BLOCK, left), "float32", always_2d=True)
        if not len(block):
            return
        left = None if left is None else left - len(block)
        yield block


@contextmanager
def _mapped(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        try:
            content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # some network file systems have no maps
            content = file.read()
        yield content


def _stamp(source: str) -> Stamp:
    path = Path(source)
    if not path.is_file():
        name, _, rest = source.partition(" ")
        # A table's line "my name a.wav", whose key ends at the first blank.
        blank = rest and Path(rest.split()[-1]).is_file()
        raise Dropped(
            "missing file" + (f": is {name} part of the name before it?" if blank else "")
        )
    status = path.stat()
    if not status.st_size:
        raise Dropped("empty file")
    return Stamp(source, status.st_size, status.st_mtime_ns)


def _split(content: bytes) -> tuple[Streams, tuple[bytes, ...]]:
    if not content:
        raise Dropped("empty file")
    streams = find_streams(content)
    return streams, tuple(_cut(content, piece) for piece in streams.pieces) or (content,)


@functools.lru_cache(maxsize=1)
def _piped(command: str) -> tuple[Streams, tuple[bytes, ...]]:
    # Cached as the output is: a length that no header knows is decoded for.
    return _split(run_pipe(command))


@functools.lru_cache(maxsize=64)
def _streams_of(stamp: Stamp, thorough: bool) -> Streams:
    with _mapped(stamp.path) as content:
        return find_streams(content, thorough)


@functools.lru_cache(maxsize=1)
def _pieces_of(stamp: Stamp, streams: Streams) -> tuple[bytes, ...]:
    with _mapped(stamp.path) as content:
        return tuple(_cut(content, piece) for piece in streams.pieces)


def file_notes(path: str) -> tuple[str, ...]:
    """What a user should know of an audio file: it ends before or after its headers say."""
    if ark_place(path):
        return find_streams(read_ark(path)).notes
    return _streams_of(_stamp(path), True).notes


class Recording:
    """A recording that is open, of one or several streams.

    Attributes:
        rate: Sampling rate in Hz.
        channels: Number of channels.
        frames: Samples of each channel.
        direct: Whether ESPnet reads the file as it is, rate and channels aside.
        notes: What a user should know of it.
    """

    def __init__(self, sounds: list[soundfile.SoundFile], notes: tuple[str, ...], direct: bool):
        first = sounds[0]
        kinds = {(sound.samplerate, sound.channels) for sound in sounds}
        if len(kinds) > 1:
            listed = " and ".join(f"{rate} Hz, {n} channels" for rate, n in sorted(kinds))
            raise Dropped(f"joined of files that differ: {listed}")
        self.rate, self.channels = first.samplerate, first.channels
        self.frames = sum(sound.frames for sound in sounds)
        self.direct = direct and first.format in DIRECT_FORMATS
        self.notes = notes
        self._sounds = sounds
        self._places = [0] * len(sounds)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.rate

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples ``(T, C)`` from ``first`` up to ``last``, in float32.

        Raises:
            Dropped: If they are not all there, or cannot be decoded.
        """
        found, begin = [], 0
        for number, sound in enumerate(self._sounds):
            low, high = max(first - begin, 0), min(last - begin, sound.frames)
            if low < high:
                found += self._read(number, low, high)
            begin += sound.frames
        return np.concatenate(found) if found else np.zeros((0, self.channels), np.float32)

    def _read(self, number: int, low: int, high: int) -> list[np.ndarray]:
        sound, skip = self._sounds[number], low - self._places[number]
        try:
            # Some formats, GSM among them, are read from the first sample on only.
            if skip and soundfile.SoundFile.seekable(sound):
                # MP3 and Ogg need what comes before: a frame's bits may lie in earlier ones.
                skip = 0 if sound.format in DIRECT_FORMATS else min(low, RUN_UP * self.rate)
                sound.seek(low - skip)
            if skip < 0:
                raise Dropped("unreadable: its format cannot be read backwards")
            for _ in _blocks(sound, skip):
                pass
            blocks = list(_blocks(sound, high - low))
            self._places[number] = high
        except soundfile.SoundFileError as error:
            raise Dropped("unreadable: " + _reason(error)) from None
        missing = high - low - sum(map(len, blocks))
        # MP3 headers only estimate a length; FLAC and WAV state it.
        if missing and sound.format in DIRECT_FORMATS:
            raise Dropped(f"truncated: {high - low - missing} of {high - low} samples")
        if missing > DELAY * self.rate and not any(n.startswith(CUT_SHORT) for n in self.notes):
            note = f"{CUT_SHORT}: {missing / self.rate:.2f} s are missing"
            self.notes = (*self.notes, note)
        return blocks


@contextmanager
def open_recording(source: str, thorough: bool = True) -> Iterator[Recording]:
    """Open a path, a command that ends in ``|`` (which is run), or ``file.ark:13``.

    Args:
        source: What ``wav.scp`` has.
        thorough: See `find_streams`.

    Raises:
        Dropped: If it is missing, empty, unreadable or no audio.
    """
    held = source.endswith("|") or ark_place(source) is not None
    with ExitStack() as stack:
        try:
            if source.endswith("|"):
                streams, parts = _piped(source)
            elif held:
                streams, parts = _split(read_ark(source))
            else:
                stamp = _stamp(source)
                streams = _streams_of(stamp, thorough)
                parts = _pieces_of(stamp, streams) if streams.pieces else ()
            files: list[Any] = [io.BytesIO(part) for part in parts] or [source]
            sounds = [stack.enter_context(_Sound(file)) for file in files]
        except (soundfile.SoundFileError, TypeError) as error:
            raise Dropped("unreadable: " + _reason(error)) from None
        except OSError as error:
            raise Dropped(f"unreadable: {error.strerror or error}") from None
        yield Recording(sounds, streams.notes, not held and not streams.pieces)
