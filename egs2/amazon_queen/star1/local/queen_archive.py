"""Read the voices and the dialogues out of ``queen.1c``, a resource file of 1995.

Everything in the file is big-endian. After a header of 13 bytes come the number of
entries (uint16) and the index, 21 bytes an entry. ``NAME.SB`` is one spoken clip,
``NAME.DOG`` one dialogue whose lines say which clip holds which words.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAGIC = b"QTBL"
COUNT_OFFSET = 13
INDEX_OFFSET = 15
INDEX_ENTRY = struct.Struct(">12sBII")
DIALOGUE_PREFIX = 20
DIALOGUE_HEADER = struct.Struct(">16h")
ROW_HEADER = struct.Struct(">HHB")
HERO = "JOE"
# A stage direction inside a line: the pose to take, where to look, when to wait.
COMMAND = re.compile(r"\*..", re.DOTALL)
SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,8}(\.[A-Za-z0-9_]{1,4})?")


class QueenError(ValueError):
    """The archive, or one entry of it, is not laid out as expected."""


@dataclass(frozen=True)
class Entry:
    """Where one file of the archive lies.

    Attributes:
        name: File name such as ``020006J1.SB``.
        offset: First byte, from the start of the archive.
        size: Number of bytes.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Line:
    """What is spoken in a clip.

    Attributes:
        speaker: Character in upper case, as the dialogue's file names it.
        text: Words as printed on the game's screen; None where two lines of the
            game claim the same clip.
    """

    speaker: str
    text: str | None


def read_index(data: bytes, source: str = "queen.1c") -> dict[str, Entry]:
    """Read the table of contents.

    Args:
        data: The whole archive.
        source: Its name, for error messages.

    Returns:
        Entries by name, in the order of the archive.

    Raises:
        QueenError: If the file is no archive, is cut short, or an entry has an unsafe
            name or lies outside the file.
    """
    if not data.startswith(MAGIC):
        raise QueenError(
            f"{source}: expected the file to start with {MAGIC!r}, found {bytes(data[:4])!r}; "
            "pass the queen.1c of the freeware talkie"
        )
    if len(data) < INDEX_OFFSET:
        raise QueenError(f"{source}: header cut short at {len(data)} bytes; copy the file again")
    (count,) = struct.unpack_from(">H", data, COUNT_OFFSET)
    needed = INDEX_OFFSET + count * INDEX_ENTRY.size
    if len(data) < needed:
        raise QueenError(
            f"{source}: an index of {count} entries needs {needed} bytes, the file has "
            f"{len(data)}; copy the file again"
        )
    index = (_entry(data, number, source) for number in range(count))
    return {entry.name: entry for entry in index}


def _entry(data: bytes, number: int, source: str) -> Entry:
    raw, _bundle, offset, size = INDEX_ENTRY.unpack_from(
        data, INDEX_OFFSET + number * INDEX_ENTRY.size
    )
    name = raw.split(b"\0")[0].decode("latin-1")
    if not SAFE_NAME.fullmatch(name):
        raise QueenError(f"{source}: entry {number} has the name {name!r}, no 8.3 file name")
    if offset + size > len(data):
        raise QueenError(
            f"{source}: entry {name} should end at byte {offset + size}, the file ends at "
            f"{len(data)}; copy the file again"
        )
    return Entry(name, offset, size)


def read_entry(data: bytes, entry: Entry) -> bytes:
    """Bytes of one entry."""
    return bytes(data[entry.offset : entry.offset + entry.size])


def clip_entries(index: Mapping[str, Entry]) -> dict[str, Entry]:
    """Spoken clips by name without the extension ``.SB``."""
    return {name[:-3]: entry for name, entry in index.items() if name.endswith(".SB")}


def read_dialogue(block: bytes, name: str) -> Iterator[tuple[str, Line]]:
    """Clip names and words of one dialogue.

    Args:
        block: Bytes of a ``.DOG`` entry.
        name: Its name; without extension and digits it is the other character's.

    Yields:
        Pairs of a clip's name and the line spoken in it. Many of the clips do not
        exist: the game shows those lines without a voice.

    Raises:
        QueenError: If a table or a row lies outside the block.
    """
    body = block[DIALOGUE_PREFIX:]
    if len(body) < DIALOGUE_HEADER.size:
        raise QueenError(f"{name}: header cut short, the entry has {len(block)} bytes")
    header = DIALOGUE_HEADER.unpack_from(body)
    levels, key = abs(header[0]), header[2]
    person = re.sub(r"\d", "", name.rsplit(".", 1)[0]).upper()
    tables = (
        ("J", HERO, 32 + 96 * levels, header[3]),
        ("P", person, header[11] & 0xFFFF, header[4]),
    )
    for letter, speaker, start, count in tables:
        for line_id, text in _read_table(body, start, count, name):
            # Blanks of the formatted number are zeros in the clips' names.
            stem = f"{key:2d}{line_id:4X}{letter}".replace(" ", "0")
            for number, segment in enumerate(COMMAND.split(text), start=1):
                if segment.strip():
                    yield f"{stem}{number:X}", Line(speaker, segment.strip())


def _read_table(body: bytes, start: int, count: int, name: str) -> Iterator[tuple[int, str]]:
    """Rows of a table as pairs of line id and text."""
    if count < 0 or start > len(body):
        raise QueenError(
            f"{name}: a table of {count} lines should start at byte {start} of {len(body)}"
        )
    position = start
    for row in range(count):
        end = position + ROW_HEADER.size
        if end <= len(body):
            _, line_id, length = ROW_HEADER.unpack_from(body, position)
            position, end = end, end + length
        if end > len(body):
            raise QueenError(
                f"{name}: line {row} of {count} should end at byte {end}, the entry ends at "
                f"{len(body)}; copy the archive again"
            )
        yield line_id, body[position:end].decode("latin-1")
        # Texts are followed by padding to a multiple of four.
        position = -(-end // 4) * 4


def pair_clips(data: bytes, index: Mapping[str, Entry]) -> dict[str, Line]:
    """Say who speaks in each clip of a dialogue, and what.

    Args:
        data: The whole archive.
        index: Its table of contents.

    Returns:
        Lines by clip name; clips of cut scenes and comments are not in it.
    """
    clips = clip_entries(index)
    lines: dict[str, Line] = {}
    for name, entry in index.items():
        if not name.endswith(".DOG"):
            continue
        for clip, line in read_dialogue(read_entry(data, entry), name):
            if clip not in clips:
                continue
            known = lines.setdefault(clip, line)
            if known.text != line.text:
                lines[clip] = Line(line.speaker, None)
    return lines
