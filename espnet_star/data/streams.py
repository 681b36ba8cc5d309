"""Where the audio of a file ends, whatever its headers say.

Pipes leave headers without a length, ``cat`` joins files, recorders stop before they write
the size. libsndfile reads the first stream as far as its header goes and is silent about the
rest, so that rest is looked for here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from espnet_star.data import mpeg

# Sizes of 2 GiB and more that SoX, FFmpeg and arecord write for "unknown".
UNKNOWN = 0x7FFF0000
GOES_ON = "read on"
CUT_SHORT = "cut short"
# A tail below this is no speech that is missed, in seconds.
SHORTEST_TAIL = 0.1
_TAGS = (b"TAG", b"APE", b"ID3", b"LYR", b"3DI")
# What follows fLaC: the first block, maybe the last one too, and its length.
_STREAMINFO = (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22")


class Piece(NamedTuple):
    """Bytes that libsndfile reads to their end.

    Attributes:
        start: First byte.
        end: Behind the last byte.
        prefix: What is put before them.
        patches: Bytes to replace, by their place in the file.
        unknown: Whether its length is known only after decoding.
    """

    start: int
    end: int
    prefix: bytes = b""
    patches: tuple[tuple[int, bytes], ...] = ()
    unknown: bool = False


class Streams(NamedTuple):
    """Pieces of a file, none where libsndfile reads it right as it is; and notes for the user."""

    pieces: tuple[Piece, ...] = ()
    notes: tuple[str, ...] = ()


def find_streams(content: bytes, thorough: bool = True) -> Streams:
    """Look where the streams of a file end.

    Args:
        content: The file, or a map of it.
        thorough: Read it all where that is needed; else joined FLAC files pass for the first.
    """
    start = mpeg.id3_size(content, 0)
    mark = content[start : start + 4]
    if mark in _PARSERS:
        return _joined(_chain(content, _PARSERS[mark]))
    if mark == b"fLaC":
        return _joined(_flac(content, start, thorough))
    if mark == b"OggS":
        return _joined(_ogg(content))
    if mark == b"caff":
        return Streams(_caf(content))
    return _mp3(content, start)


class _Found(NamedTuple):
    """What the header of a WAV or AU file leaves to put right, and where a next file begins."""

    patches: tuple[tuple[int, bytes], ...] = ()
    note: str = ""
    following: int = 0


def _chain(content: bytes, parse: Callable[[bytes], _Found]) -> tuple[list[Piece], list[str]]:
    pieces, notes, start = list[Piece](), list[str](), 0
    while True:
        found = parse(content[start:] if start else content)
        end = start + found.following if found.following else len(content)
        patches = tuple((start + place, new) for place, new in found.patches)
        pieces.append(Piece(start, end, patches=patches))
        notes += [found.note] if found.note else []
        if not found.following:
            return pieces, notes
        start = end


def _joined(found: tuple[list[Piece], list[str]]) -> Streams:
    pieces, notes = found
    if len(pieces) > 1:
        notes = [*notes, f"{GOES_ON}: {len(pieces)} files joined in one"]
    touched = len(pieces) > 1 or any(p.patches or p.prefix or p.unknown for p in pieces)
    return Streams(tuple(pieces) if touched else (), tuple(notes))


def _mp3(content: bytes, start: int) -> Streams:
    streams = mpeg.find_streams(content, start)
    pieces = [
        Piece(
            s.start,
            s.end,
            b"" if s.tagged else mpeg.length_tag(content, s),
            ((s.place + 8, s.frames.to_bytes(4, "big")),) if mpeg.cut_short(s) else (),
        )
        for s in streams
    ]
    notes = [
        f"{CUT_SHORT}: {s.frames} of {s.promised} frames are there"
        for s in streams
        if mpeg.cut_short(s)
    ]
    return _joined((pieces, notes))


def _flac(content: bytes, start: int, thorough: bool) -> tuple[list[Piece], list[str]]:
    places = [start]
    place = content.find(b"fLaC", start + 4) if thorough else -1
    while place > 0:
        if content[place + 4 : place + 8] in _STREAMINFO:
            places.append(place)
        place = content.find(b"fLaC", place + 4)
    end = len(content) - (128 if content[-128:-125] == b"TAG" else 0)
    pieces = []
    for first, last in zip(places, [*places[1:], end], strict=True):
        # 36 bits behind the rate, the channels and the bits of a sample.
        total = int.from_bytes(content[first + 21 : first + 26], "big") & 0xFFFFFFFFF
        pieces.append(Piece(first, last, unknown=total == 0 and last > first + 42))
    return pieces, []


def state_length(flac: bytes, samples: int) -> bytes:
    """A FLAC file whose header states so many samples."""
    kept = flac[21] & 0xF0
    return flac[:21] + (kept << 32 | samples).to_bytes(5, "big") + flac[26:]


def _ogg(content: bytes) -> tuple[list[Piece], list[str]]:
    starts, place, has_data = [0], 0, False
    while content[place : place + 4] == b"OggS" and place + 27 <= len(content):
        begins, entries = content[place + 5] & 2, content[place + 26]
        # Several streams that begin together are played together; later ones follow.
        if begins and has_data:
            starts.append(place)
        has_data = not begins
        table = place + 27 + entries
        place = table + sum(content[place + 27 : table])
    ends = [*starts[1:], len(content)]
    return [Piece(first, last) for first, last in zip(starts, ends, strict=True)], []


def _caf(content: bytes) -> tuple[Piece, ...]:
    place = 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 12], "big", signed=True)
        if content[place : place + 4] == b"data":
            if size != -1:
                break
            rest = (len(content) - place - 12).to_bytes(8, "big")
            return (Piece(0, len(content), patches=((place + 4, rest),)),)
        place += 12 + max(size, 0)
    return ()


def _au(content: bytes) -> _Found:
    header, size = (int.from_bytes(content[i : i + 4], "big") for i in (4, 8))
    end = header + size
    if size == 0xFFFFFFFF or end >= len(content):
        return _Found(note=_short(len(content) - header, size, 2))
    if size and content[end : end + 4] == b".snd":
        return _Found(following=end)
    if not _is_audio(content, end, 1600 if size else 1):
        return _Found()
    return _Found(((8, b"\xff" * 4),), _longer(len(content) - end, size))


def _riff(content: bytes) -> _Found:
    place, byte_rate, align = 12, 32000, 1
    while True:
        name, size = content[place : place + 4], _little(content, place + 4)
        if len(name) < 4 or place + 8 > len(content):
            return _Found()
        if name == b"fmt ":
            byte_rate = _little(content, place + 16) or byte_rate
            align = max(1, _little(content, place + 20) & 0xFFFF)
        if name == b"data":
            break
        place += 8 + size + (size & 1)
    begin = place + 8
    held = len(content) - begin
    if size > held:
        return _Found(note=_short(held, size, align))
    for end in {begin + size, begin + size + (size & 1)}:
        if size and content[end : end + 4] == b"RIFF" and content[end + 8 : end + 12] == b"WAVE":
            return _Found(following=end)
        if not _is_audio(content, end, int(byte_rate * SHORTEST_TAIL) if size else 1):
            return _Found()
    # Only whole samples, or libsndfile would shift the channels.
    real = (held // align * align).to_bytes(4, "little") if held < UNKNOWN else b"\xff" * 4
    return _Found(((place + 4, real),), _longer(held - size, size))


def _rf64(content: bytes) -> _Found:
    """WAV of over 4 GiB, whose sizes of 64 bits stand in a chunk of their own."""
    place, size = 12, int.from_bytes(content[28:36], "little")
    while content[place : place + 4] != b"data":
        place += 8 + _little(content, place + 4) + (_little(content, place + 4) & 1)
        if place + 8 > len(content):
            return _Found()
    held = len(content) - place - 8
    if content[12:16] != b"ds64" or 0 < size <= held:
        return _Found()
    note = _short(held, size, 1) if size else ""
    sizes = (len(content) - 8).to_bytes(8, "little") + held.to_bytes(8, "little")
    return _Found(((20, sizes),), note)


def _short(held: int, size: int, align: int) -> str:
    lacks = size < UNKNOWN and size - held >= align
    return f"{CUT_SHORT}: {held} of {size} bytes are there" if lacks else ""


def _longer(by: int, size: int) -> str:
    return f"{GOES_ON}: {by} bytes past its size" if size else ""


def _little(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "little")


def _is_audio(content: bytes, place: int, least: int) -> bool:
    """Whether what follows the samples is more of them: neither chunks nor tags nor filling."""
    if len(content) - place < least or content[place : place + 3] in _TAGS:
        return False
    sample = content[place : place + (1 << 20)]
    if sample.count(sample[:1]) == len(sample):
        return False
    while place + 8 <= len(content):
        name, size = content[place : place + 4], _little(content, place + 4)
        if not all(0x20 <= byte < 0x7F for byte in name):
            return True
        place += 8 + size + (size & 1)
    # Chunks to the end, up to a byte of padding.
    return place > len(content) + 1


_PARSERS = {b"RIFF": _riff, b"RF64": _rf64, b".snd": _au}
