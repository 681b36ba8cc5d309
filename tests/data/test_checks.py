import io

import pytest
import soundfile

from espnet_star.bin import star_data
from espnet_star.data.checks import BINS, SAMPLE, check_datadir, read_speakers
from espnet_star.data.errors import DataError
from espnet_star.data.prepare import PrepareOptions, prepare


@pytest.fixture
def datadir(make_source, tone, tmp_path):
    audio = {f"u{i}": (tone(0.5 + i), 16000, "wav") for i in range(3)}
    source = make_source(
        audio,
        utt2spk={"u0": "s1", "u1": "s1", "u2": "s2"},
        text={key: "ab c" for key in audio},
    )
    prepare(PrepareOptions(str(source), str(tmp_path / "dump")))
    return tmp_path / "dump"


def test_report(datadir):
    report = check_datadir(datadir, need=["text", "utt2spk"])
    assert (report.utterances, report.speakers, report.opened) == (3, 2, 3)
    assert report.hours == pytest.approx(4.5 / 3600)
    assert report.bins == [1, 1, 1, 0, 0, 0, 0, 0]
    assert len(report.bins) == len(BINS) + 1


def test_missing_file_is_named(datadir):
    with pytest.raises(DataError, match="label: cannot be opened"):
        check_datadir(datadir, need=["label"])


def test_every_key_in_every_file(datadir):
    (datadir / "text").write_text("u0 a\nu1 b\nzz c\n")
    with pytest.raises(DataError, match="2 problems") as error:
        check_datadir(datadir)
    assert "text lacks 1 utterances of wav.scp: u2" in str(error.value)
    assert "text has 1 utterances that wav.scp lacks: zz" in str(error.value)


def test_empty_transcript(datadir):
    (datadir / "text").write_text("u0 a\nu1\nu2 c\n")
    with pytest.raises(DataError, match="1 empty transcripts: u1"):
        check_datadir(datadir)


def test_wrong_rate_length_and_unreadable(datadir, tone, tmp_path):
    soundfile.write(tmp_path / "low.wav", tone(0.5, 8000), 8000)
    soundfile.write(tmp_path / "long.wav", tone(2.0), 16000)
    (tmp_path / "bad.wav").write_text("no audio")
    lines = "".join(f"u{i} {tmp_path / n}.wav\n" for i, n in enumerate(["low", "long", "bad"]))
    (datadir / "wav.scp").write_text(lines)
    with pytest.raises(DataError) as error:
        check_datadir(datadir)
    assert "u0: expected 16000 Hz mono" in str(error.value)
    assert "u1: utt2num_samples says 24000 samples" in str(error.value)
    assert "u2: cannot read" in str(error.value)


def test_full_reads_all_and_default_a_sample(datadir, tone, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    keys = [f"u{i:03d}" for i in range(60)]
    for name in ("text", "utt2spk", "spk2utt"):
        (datadir / name).unlink()
    (datadir / "wav.scp").write_text("".join(f"{k} {tmp_path / 'a.wav'}\n" for k in keys))
    (datadir / "utt2num_samples").write_text("".join(f"{k} 8000\n" for k in keys))
    assert check_datadir(datadir).opened == SAMPLE + 2
    report = check_datadir(datadir, full=True)
    assert (report.opened, report.speakers) == (60, None)


def test_unseen_speaker_is_named(datadir, tmp_path):
    train = tmp_path / "train"
    train.mkdir()
    (train / "utt2spk").write_text("x s1\n")
    with pytest.raises(DataError, match=r"1 speakers .* cannot|1 speakers .*: s2"):
        check_datadir(datadir, train_speakers=train)
    (train / "utt2spk").write_text("x s1\ny s2\n")
    check_datadir(datadir, train_speakers=train)
    check_datadir(datadir, train_speakers=train / "utt2spk")


@pytest.mark.parametrize("space", ["<space>", "▁"])
def test_characters_outside_the_token_list(datadir, tmp_path, space):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(["<blank>", "<unk>", space, "ab", "c", "<sos/eos>"]), "utf-8")
    check_datadir(datadir, token_list=tokens)
    (datadir / "text").write_text("u0 ab\nu1 abß\nu2 <c\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 characters are not in") as error:
        check_datadir(datadir, token_list=tokens)
    assert "'ß' (U+00DF) in u1" in str(error.value)


def test_spk2utt_that_disagrees(datadir):
    (datadir / "spk2utt").write_text("s1 u0\ns2 u1 u2\n")
    with pytest.raises(DataError, match="speaker s1"):
        check_datadir(datadir)


def test_a_source_of_which_an_utterance_was_dropped(datadir, tmp_path):
    """Fails if an official test set is scored in part without a word."""
    source = tmp_path / "undropped"
    source.mkdir()
    lines = (datadir / "wav.scp").read_text()
    (source / "wav.scp").write_text(lines)
    check_datadir(datadir, source=source)
    (source / "wav.scp").write_text(lines + "u9 nine.wav\n")
    with pytest.raises(DataError, match=r"1 utterances of .*undropped were dropped.*: u9;"):
        check_datadir(datadir, source=source)


def test_line_ends_that_are_none_are_characters(datadir, tmp_path):
    """The list was read by str.splitlines: what was just written into it was missing."""
    (datadir / "text").write_text("u0 a\u2028b\nu1 a\x85\x0c\x1cb\nu2 ab\n", encoding="utf-8")
    options = ["--text", str(datadir / "text"), "--token_type", "char"]
    star_data.main(["tokens", *options, "--output_dir", str(tmp_path)])
    check_datadir(datadir, token_list=tmp_path / "tokens.txt")


def test_a_speaker_with_a_blank_is_named_by_line(datadir):
    (datadir / "utt2spk").write_text("u0 s1\nu1 Mr s1\nu2 s2\n")
    with pytest.raises(DataError, match="utt2spk:2: speaker 'Mr s1' of utterance u1 has a blank"):
        check_datadir(datadir)
    with pytest.raises(DataError, match="utt2spk:2: speaker"):
        read_speakers(datadir)


def test_files_that_training_would_misread(datadir, tone, tmp_path):
    """A range of integers, and a length that ESPnet's reader cannot do without."""
    soundfile.write(tmp_path / "loud.wav", tone(0.5, amplitude=9000), 16000, "FLOAT")
    file = io.BytesIO()
    soundfile.write(file, tone(1.5), 16000, format="FLAC")
    content = bytearray(file.getvalue())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    (tmp_path / "endless.flac").write_bytes(content)
    soundfile.write(tmp_path / "u2.wav", tone(2.5), 16000)
    whole = (tmp_path / "u2.wav").read_bytes()
    (tmp_path / "u2.wav").write_bytes(whole + whole)
    names = ("loud.wav", "endless.flac", "u2.wav")
    lines = [f"u{n} {tmp_path}/{name}\n" for n, name in enumerate(names)]
    (datadir / "wav.scp").write_text("".join(lines))
    with pytest.raises(DataError) as error:
        check_datadir(datadir)
    assert "u0: " in str(error.value) and "samples of another range: the peak is 9" in str(
        error.value
    )
    assert "endless.flac does not say its length" in str(error.value)


def test_what_is_behind_the_end_of_a_file_is_noted(datadir, tone):
    """Training reads the first of joined files alone."""
    path = dict(line.split() for line in (datadir / "wav.scp").read_text().splitlines())["u1"]
    whole = io.BytesIO()
    soundfile.write(whole, tone(1.5), 16000, format="FLAC")
    (datadir / "joined.flac").write_bytes(whole.getvalue() * 2)
    table = (datadir / "wav.scp").read_text().replace(path, f"{datadir}/joined.flac")
    (datadir / "wav.scp").write_text(table)
    assert check_datadir(datadir).notes == [
        f"u1: {datadir}/joined.flac: read on: 2 files joined in one"
    ]


def test_a_dump_of_espnet_in_archives(datadir, tone):
    """Values such as file.ark:13 were called unreadable."""
    content, lines = b"", []
    for number in range(3):
        file = io.BytesIO()
        soundfile.write(file, tone(0.5 + number), 16000, format="WAV")
        content += f"u{number} ".encode()
        lines.append(f"u{number} {datadir}/data.ark:{len(content)}\n")
        content += file.getvalue()
    (datadir / "data.ark").write_bytes(content)
    (datadir / "wav.scp").write_text("".join(lines))
    assert check_datadir(datadir).opened == 3
