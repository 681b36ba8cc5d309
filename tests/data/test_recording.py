"""Fails if a recording is read to where a header says, not to where its bytes end."""

import io
import struct

import numpy as np
import pytest
import soundfile

from espnet_star.data import mpeg
from espnet_star.data.audio import AudioOptions, Job, convert, read_mono
from espnet_star.data.errors import Dropped
from espnet_star.data.headers import survey
from espnet_star.data.recording import open_recording

FS = 16000


def noise(seconds, seed=0, level=0.1):
    count = int(seconds * FS)
    return (level * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def encoded(samples, kind, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, FS, format=kind, **options)
    return file.getvalue()


def patched(content, place, new):
    return content[:place] + new + content[place + len(new) :]


def sized(content, size, mark=b"data", form="<I", behind=4):
    """A file whose header states another size of its samples."""
    return patched(content, content.index(mark) + behind, struct.pack(form, size))


def written(tmp_path, content, name="a.bin"):
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def read(path):
    with open_recording(path) as sound:
        return sound.read(0, sound.frames)[:, 0], sound.notes, sound.direct


def flac_without_length(samples):
    content = encoded(samples, "FLAC")
    return patched(content, 21, bytes([content[21] & 0xF0, 0, 0, 0, 0]))


def headerless(kind):
    """A second of noise in a file whose header does not know it."""
    samples = noise(1)
    if kind == "flac":
        return flac_without_length(samples)
    content = encoded(samples, kind.split()[0].upper(), subtype="PCM_16")
    return {
        "wav 0": lambda: sized(patched(content, 4, b"\0" * 4), 0),
        "wav -1": lambda: sized(patched(content, 4, b"\xff" * 4), 0xFFFFFFFF),
        "wav sox": lambda: sized(content, 0x7FFFF000),
        "rf64 0": lambda: patched(content, 20, bytes(16)),
        "rf64 -1": lambda: patched(content, 20, b"\xff" * 16),
        "au -1": lambda: patched(content, 8, b"\xff" * 4),
        "au 0": lambda: patched(content, 8, b"\0" * 4),
        "w64 0": lambda: sized(content, 0, form="<Q", behind=16),
        "w64 -1": lambda: sized(content, 2**64 - 1, form="<Q", behind=16),
        "caf -1": lambda: sized(content, -1, form=">q"),
        "aiff 0": lambda: sized(sized(content, 0, b"COMM", ">I", 10), 0, b"SSND", ">I"),
    }[kind]()


KINDS = ["flac", "wav 0", "wav -1", "wav sox", "au -1", "au 0", "w64 0", "w64 -1", "caf -1"]
KINDS += ["rf64 0", "rf64 -1"]


@pytest.mark.parametrize("kind", [*KINDS, "aiff 0"])
def test_a_length_that_no_header_knows(tmp_path, kind):
    """As FFmpeg, SoX and flac write into pipes; in a file, through a pipe, and by parts."""
    path = written(tmp_path, headerless(kind))
    samples, notes, _ = read(path)
    np.testing.assert_allclose(samples, noise(1), atol=1e-4)
    assert notes == ()
    whole = convert(Job("u", path), str(tmp_path / "out"), AudioOptions())
    piped = convert(Job("p", f"cat {path} |"), str(tmp_path / "out"), AudioOptions())
    part = convert(Job("s", path, 0.25, 0.75), str(tmp_path / "out"), AudioOptions())
    assert (whole.samples, piped.samples, part.samples) == (16000, 16000, 8000)
    np.testing.assert_allclose(soundfile.read(part.path)[0], noise(1)[4000:12000], atol=1e-4)
    # What ESPnet then reads.
    assert len(soundfile.read(whole.path)[0]) == 16000
    assert len(read_mono(path, FS)) == 16000
    (tmp_path / "wav.scp").write_text(f"u {path}\n")
    assert survey(tmp_path, AudioOptions()).counts == {"u": 16000}


def joined(kind):
    first, second = noise(1.5), noise(1, seed=1)
    options = {"opus": {"subtype": "OPUS"}}.get(kind, {})
    name = "OGG" if kind == "opus" else kind.upper()
    return encoded(first, name, **options) + encoded(second, name, **options)


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "flac", "wav", "au"])
def test_files_joined_by_cat(tmp_path, kind):
    """libsndfile gives the first alone without a word, or refuses all."""
    path = written(tmp_path, joined(kind))
    samples, notes, direct = read(path)
    assert len(samples) == 40000 and not direct
    assert notes == ("read on: 2 files joined in one",)
    second = soundfile.read(io.BytesIO(joined(kind)[len(encoded_first(kind)) :]))[0]
    np.testing.assert_allclose(samples[24000:], second, atol=2e-3)
    # A segment over the seam.
    part = convert(Job("s", path, 1.25, 2.0), str(tmp_path / "out"), AudioOptions())
    np.testing.assert_allclose(soundfile.read(part.path)[0], samples[20000:32000], atol=2e-3)
    assert part.notes == ("written", *notes)


def encoded_first(kind):
    options = {"opus": {"subtype": "OPUS"}}.get(kind, {})
    return encoded(noise(1.5), "OGG" if kind == "opus" else kind.upper(), **options)


def vbr():
    """Ten seconds with a loud start, by variable bit rate, and the same without Xing tag."""
    samples = np.concatenate([noise(2, level=0.3), noise(8, seed=1, level=0.003)])
    content = encoded(samples, "MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    tag = mpeg._frame(content, 0)
    assert b"Xing" in content[: tag.size]
    return content, content[tag.size :]


def test_variable_bit_rate_without_a_tag(tmp_path):
    """libsndfile guesses the length by the first frame: half of it was missing."""
    tagged, bare = vbr()
    expected, _, _ = read(written(tmp_path, tagged, "tagged.mp3"))
    guessed = soundfile.info(written(tmp_path, bare, "bare.mp3")).frames
    samples, notes, _ = read(str(tmp_path / "bare.mp3"))
    assert len(expected) == 160000 and guessed < 100000
    # The tag also tells how much the encoder put before the first sample and behind the last.
    assert 160000 <= len(samples) < 160000 + 3 * 1152 and notes == ()
    delay = int(np.argmax(np.correlate(samples[:20000], expected[:18000], "valid")))
    np.testing.assert_allclose(
        samples[delay + 2000 : delay + 158000], expected[2000:158000], atol=1e-3
    )
    (tmp_path / "wav.scp").write_text(f"u {tmp_path}/bare.mp3\n")
    assert survey(tmp_path, AudioOptions()).counts == {"u": len(samples)}


def test_parts_of_variable_bit_rate_are_what_the_whole_has(tmp_path):
    """A frame's bits lie in earlier frames: parts began with a third of a second of nothing."""
    for number, content in enumerate(vbr()):
        path = written(tmp_path, content, f"{number}.mp3")
        samples, _, _ = read(path)
        for first in (10000, 30000, 60000, 120000):
            with open_recording(path) as sound:
                part = sound.read(first, first + 8000)[:, 0]
            np.testing.assert_allclose(part, samples[first : first + 8000], atol=1e-5)


def test_sizes_that_are_too_small_or_too_large(tmp_path):
    whole = encoded(noise(2), "WAV")
    for content, length, note in (
        (sized(whole, 32000), 32000, "read on: 32000 bytes past its size"),
        (whole + whole[44:], 64000, "read on: 64000 bytes past its size"),
        (whole[: len(whole) // 2], 15989, "cut short: 31978 of 64000 bytes are there"),
    ):
        samples, notes, _ = read(written(tmp_path, content))
        assert len(samples) == length and notes == (note,)
    mp3 = encoded(noise(2), "MP3")
    samples, notes, _ = read(written(tmp_path, mp3[: len(mp3) // 2]))
    assert 14000 < len(samples) < 17000 and notes[0].startswith("cut short: ")
    half = written(tmp_path, encoded(noise(2), "FLAC")[:-9000])
    with open_recording(half) as sound, pytest.raises(Dropped, match=r"unreadable|truncated"):
        sound.read(0, sound.frames)


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST" + struct.pack("<I", 4) + b"INFO",
        b"TAG" + bytes(125),
        b"ID3\x04" + bytes(9000),
        bytes(9000),
        b"\x01\x02" * 100,
    ],
    ids=["chunk", "ID3v1", "ID3v2", "filling", "scrap"],
)
def test_what_follows_the_samples_is_not_always_audio(tmp_path, tail):
    """Fails if tags become noise, or files that ESPnet reads as they are were written anew."""
    for kind in ("WAV", "FLAC"):
        samples, notes, direct = read(written(tmp_path, encoded(noise(1), kind) + tail))
        assert (len(samples), notes, direct) == (16000, (), True)
    samples, notes, _ = read(written(tmp_path, encoded(noise(1), "MP3") + tail))
    assert (len(samples), notes) == (16000, ())


@pytest.mark.parametrize("subtype", ["GSM610", "MS_ADPCM", "ULAW"])
def test_codecs_that_cannot_seek(tmp_path, subtype):
    """Fails if telephone speech is lost to a seek, or its parts begin elsewhere."""
    content = encoded(noise(1), "WAV", subtype=subtype)
    for name, data in (("a", content), ("b", sized(content, 0xFFFFFFFF))):
        path = written(tmp_path, data, name)
        samples, _, _ = read(path)
        assert 16000 <= len(samples) < 16500
        with open_recording(path) as sound:
            np.testing.assert_allclose(sound.read(4000, 8000)[:, 0], samples[4000:8000], atol=1e-6)


def test_joined_files_that_differ_are_dropped(tmp_path):
    low = io.BytesIO()
    soundfile.write(low, noise(1), 8000, format="WAV")
    path = written(tmp_path, encoded(noise(1), "WAV") + low.getvalue())
    reason = convert(Job("u", path), str(tmp_path), AudioOptions()).reason
    assert reason == "joined of files that differ: 8000 Hz, 1 channels and 16000 Hz, 1 channels"


def archive(tmp_path, *entries):
    """A Kaldi archive; returns the values of ``wav.scp``."""
    content, values = b"", []
    for number, entry in enumerate(entries):
        content += f"utt{number} ".encode()
        values.append(f"{tmp_path}/data.ark:{len(content)}")
        content += entry
    (tmp_path / "data.ark").write_bytes(content)
    return values


def framed(blob):
    width = (len(blob).bit_length() + 7) // 8
    return b"AUDIO" + bytes([width]) + len(blob).to_bytes(width, "little") + blob


def test_entries_of_kaldi_archives(tmp_path):
    """ESPnet's own dumps, which were called missing files: WAV, framed FLAC; no features."""
    wav, flac = encoded(noise(1), "WAV"), encoded(noise(2, 1), "FLAC")
    matrix = b"\0BFM " + struct.pack("<bibi", 4, 1, 4, 2) + bytes(8)
    values = archive(tmp_path, wav, framed(flac), framed(flac_without_length(noise(1))), matrix)
    (tmp_path / "a:7").write_bytes(wav)  # a file of such a name comes first
    made = [
        convert(Job(str(n), value), str(tmp_path / "out"), AudioOptions())
        for n, value in enumerate([*values, str(tmp_path / "a:7"), f"{tmp_path}/gone.ark:7"])
    ]
    assert [result.samples for result in made] == [16000, 32000, 16000, 0, 16000, 0]
    np.testing.assert_allclose(soundfile.read(made[1].path)[0], noise(2, 1), atol=1e-4)
    assert made[3].reason == "unreadable: this entry of the archive is no audio"
    assert made[5].reason == "missing file"
    assert len(read_mono(values[1], FS)) == 32000
    cut = convert(Job("s", values[1], 0.5, 1.0), str(tmp_path / "out"), AudioOptions())
    np.testing.assert_allclose(soundfile.read(cut.path)[0], noise(2, 1)[8000:16000], atol=1e-4)


@pytest.mark.parametrize("writer", ["kaldiio", "omniio.tools.kaldi"])
def test_archives_that_espnets_writer_made(tmp_path, writer):
    library = pytest.importorskip(writer)
    samples = (noise(1) * 32768).astype(np.int16)
    flac = {"write_function": "soundfile", "write_kwargs": {"format": "flac"}}
    for name, options in (("plain", {}), ("framed", flac)):
        ark, scp = tmp_path / f"{name}.ark", tmp_path / f"{name}.scp"
        library.save_ark(str(ark), {"u": (FS, samples)}, scp=str(scp), **options)
        with open_recording(scp.read_text().split()[1]) as sound:
            found = sound.read(0, sound.frames)[:, 0]
        assert sound.rate == FS
        np.testing.assert_allclose(found, noise(1), atol=1e-4)
