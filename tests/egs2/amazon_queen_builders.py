"""Small stand-ins for the files of the amazon_queen recipe, built byte by byte."""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

LOCAL = Path(__file__).parents[2] / "egs2" / "amazon_queen" / "star1" / "local"

RATE = 11025


def archive_bytes(files, offset_error=0):
    """A queen.1c that holds ``files`` (name -> bytes)."""
    start = 15 + 21 * len(files)
    index, body = b"", b""
    for name, content in files.items():
        offset = start + len(body) + offset_error
        index += struct.pack(">12sBII", name.encode(), 1, offset, len(content))
        body += content
    return b"QTBLCEM10\0\0\0\1" + struct.pack(">H", len(files)) + index + body


def table_bytes(rows, start):
    """A table of lines that begins at byte ``start`` of its block."""
    out = b""
    for line_id, text in rows:
        raw = text.encode("latin-1")
        out += struct.pack(">HHB", 0, line_id, len(raw)) + raw
        out += b"\0" * (-(start + len(out)) % 4)
    return out


def dialogue_bytes(key, hero, person, levels=2, person_offset=None):
    """A .DOG entry; a negative count of levels is how some of the game's have it."""
    start = 32 + 96 * abs(levels)
    hero_rows = table_bytes(hero, start)
    offset = start + len(hero_rows) if person_offset is None else person_offset
    header = [levels, 0, key, len(hero), len(person)] + [0] * 6 + [offset, 0, 0, 0, 0]
    body = struct.pack(">16h", *header) + b"\0" * (96 * abs(levels)) + hero_rows
    return b"\0" * 20 + body + table_bytes(person, start + len(hero_rows))


def mp3_bytes(seconds, seed=0, level=0.1):
    """A noise clip as the game stores its voices."""
    noise = level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    out = io.BytesIO()
    soundfile.write(out, noise, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return out.getvalue()


def ar_bytes(members):
    """An ar archive, the outer layer of a .deb."""
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def model_bin_bytes(tensors, specification="WhisperSpec"):
    """A CTranslate2 model file."""
    codes = {"f4": 0, "i1": 1, "i2": 2, "i4": 3, "f2": 4}

    def string(text):
        raw = text.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    out = struct.pack("<I", 6) + string(specification) + struct.pack("<II", 3, len(tensors))
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        out += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", codes[value.dtype.str[1:]], len(raw)) + raw
    return out + struct.pack("<I", 0)
