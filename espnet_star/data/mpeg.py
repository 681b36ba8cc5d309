"""Streams of an MP3 file, found by its frame headers.

libsndfile stops at the length that a stream's Xing tag states, and guesses one by the first
frame's bit rate where there is no tag.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

# Kilobits a second by index, and Hz by version.
_KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# What a tag may be off by: some encoders count the tag's own frame.
_SLACK = 1


class _Frame(NamedTuple):
    """A layer III frame: its bytes, its tag's place, and what a stream keeps the same."""

    size: int
    tag: int
    kind: tuple[int, int, bool]


@dataclass
class Stream:
    """Frames of one stream.

    Attributes:
        start: Its first byte.
        end: Behind its last byte.
        frames: Counted.
        promised: Frames that its Xing tag states; None without such a tag.
        tagged: Whether it begins with a tag of any kind.
        place: Where that tag is.
        kind: Version, rate in Hz and whether it is mono.
    """

    start: int
    end: int
    frames: int
    promised: int | None
    tagged: bool
    place: int
    kind: tuple[int, int, bool]


def id3_size(content: bytes, place: int) -> int:
    """Bytes of an ID3v2 tag at ``place``; 0 if there is none."""
    head = content[place : place + 10]
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _frame(content: bytes, place: int) -> _Frame | None:
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer != 1 or kbits in (0, 15) or rate == 3:
        return None
    hertz, mono = _RATES[version][rate], head[3] >> 6 == 3
    per_kbit = 144000 if version == 3 else 72000
    size = per_kbit * _KBITS[3 if version == 3 else 2][kbits] // hertz + (head[2] >> 1 & 1)
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Frame(size, place + 4 + side, (version, hertz, mono))


def _sync(content: bytes, place: int) -> _Frame | None:
    # Two in a row, or one that ends the file: any two bytes may look like a header.
    frame = _frame(content, place)
    if frame is None:
        return None
    after = place + frame.size
    following = _frame(content, after)
    if following is None and after < len(content) and not _is_tag(content, after):
        return None
    return frame if following is None or following.kind == frame.kind else None


def _is_tag(content: bytes, place: int) -> bool:
    return content[place : place + 3] in (b"TAG", b"ID3") or content[place : place + 3] == b"APE"


def _promise(content: bytes, place: int, frame: _Frame) -> tuple[bool, int | None, int | None]:
    """Whether a frame is a tag, and the frames and bytes that it states."""
    if content[frame.tag : frame.tag + 4] not in (b"Xing", b"Info"):
        return content[place + 36 : place + 40] == b"VBRI", None, None
    flags = int.from_bytes(content[frame.tag + 4 : frame.tag + 8], "big")
    numbers = struct.unpack(">2I", content[frame.tag + 8 : frame.tag + 16].ljust(8, b"\0"))
    frames = numbers[0] if flags & 1 else None
    size = numbers[1 if flags & 1 else 0] if flags & 2 else None
    return True, frames or None, size or None


def find_streams(content: bytes, start: int) -> list[Stream]:
    """Streams of a file, in its order; none if there is no layer III at ``start``.

    Args:
        content: The file, or a map of it.
        start: Where the first frame is.
    """
    frame = _sync(content, start)
    if frame is None:
        return []
    _, promised, size = _promise(content, start, frame)
    end = len(content) - (128 if content[-128:-125] == b"TAG" else 0)
    if promised is not None and size is not None and abs(end - start - size) <= frame.size:
        # The usual file: its tag is about all of it, so its frames need not be counted.
        return [Stream(start, len(content), promised, promised, True, frame.tag, frame.kind)]
    return _walk(content, start, end)


def _walk(content: bytes, start: int, end: int) -> list[Stream]:
    streams: list[Stream] = []
    place, current = start, None
    while place < end:
        frame = _frame(content, place)
        if frame is None or (current is not None and frame.kind != current.kind):
            frame = _sync(content, place)
        if frame is None:
            skipped = id3_size(content, place)
            place, current = (place + skipped, None) if skipped else (place + 1, current)
            if not skipped:
                place = content.find(b"\xff", place, end)
                if place < 0:
                    break
            continue
        tagged, promised, _ = _promise(content, place, frame)
        full = (
            current is not None
            and current.promised is not None
            and current.frames >= current.promised + _SLACK
        )
        if current is None or tagged or full or frame.kind != current.kind:
            current = Stream(place, place, 0, promised, tagged, frame.tag, frame.kind)
            streams.append(current)
        place += frame.size
        if place <= end:
            current.frames += not tagged
            current.end = place
    return [stream for stream in streams if stream.frames]


def cut_short(stream: Stream) -> bool:
    """Whether a stream has fewer frames than its tag states."""
    return stream.promised is not None and stream.frames < stream.promised - _SLACK


def length_tag(content: bytes, stream: Stream) -> bytes:
    """A frame to put before a stream without tag, which states its number of frames."""
    head = bytearray(content[stream.start : stream.start + 4])
    head[1] |= 1  # no checksum
    head[2] = 14 << 4 | (head[2] & 0x0C)  # the longest frame, which holds any tag
    frame = _frame(bytes(head), 0)
    if frame is None:
        return b""
    tag = b"Xing" + struct.pack(">2I", 1, stream.frames)
    return (bytes(head).ljust(frame.tag, b"\0") + tag).ljust(frame.size, b"\0")
