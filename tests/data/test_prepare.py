import errno
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_star.data import prepare as module
from espnet_star.data.audio import AudioOptions
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_counts, read_table
from espnet_star.data.prepare import MARKER, NOT_SELECTED, PrepareOptions, prepare


@pytest.fixture
def source(make_source, tone):
    audio = {
        "a-stereo": (tone(1.0, 44100, channels=2), 44100, "wav"),
        "b-direct": (tone(0.5), 16000, "flac"),
        "c-low": (tone(0.7, 8000), 8000, "wav"),
    }
    speakers = {"a-stereo": "s1", "b-direct": "s2", "c-low": "s1"}
    text = {key: f"WORDS OF {key}" for key in audio}
    return make_source(audio, utt2spk=speakers, text=text, label=speakers)


@pytest.fixture
def options(source, tmp_path):
    def build(srcdir=source, **changes):
        return PrepareOptions(str(srcdir), str(tmp_path / "dump"), **changes)

    return build


def test_tables_agree_and_audio_is_ready(source, options, tmp_path):
    summary = prepare(options(), nj=2)
    assert (summary.kept, summary.skipped, summary.up_to_date) == (3, {}, False)
    assert summary.notes == {"written": 2, "mixed down": 1, "resampled": 2}
    dump = tmp_path / "dump"
    wavs, counts = read_table(dump / "wav.scp"), read_counts(dump / "utt2num_samples")
    for key, path in wavs.items():
        samples, fs = soundfile.read(path)
        assert (fs, samples.shape) == (16000, (counts[key],))
    assert wavs["b-direct"] == str(source / "audio" / "b-direct.flac")
    assert read_table(dump / "spk2utt") == {"s1": "a-stereo c-low", "s2": "b-direct"}
    for name in ("text", "utt2spk", "label"):
        assert read_table(dump / name) == read_table(source / name)
    assert summary.hours == pytest.approx(2.2 / 3600, rel=1e-3)


def test_one_and_two_processes_agree(options, tmp_path):
    prepare(options(), nj=1)
    first = {p.name: p.read_bytes() for p in (tmp_path / "dump").rglob("*") if p.is_file()}
    prepare(options(), nj=2, force=True)
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "dump").rglob("*") if p.is_file()}


def test_every_drop_is_listed(make_source, options, tone, tmp_path):
    good = tone(0.5)
    with_nan = good.copy()
    with_nan[7] = np.nan
    source = make_source(
        {
            "empty": b"",
            "good": (good, 16000, "wav"),
            "long": (tone(3.0), 16000, "wav"),
            "missing": str(tmp_path / "nowhere.wav"),
            "nan": (with_nan, 16000, "wav"),
            "short": (tone(0.01), 16000, "wav"),
            "silent": (np.zeros(8000), 16000, "wav"),
            "textfile": b"<html>404 not found</html>",
            "wordless": (good, 16000, "wav"),
        },
        name="bad",
        text={
            **{k: "w" for k in ("empty", "good", "long", "missing", "nan", "short", "silent")},
            **{"textfile": "w", "wordless": ""},
        },
    )
    soundfile.write(source / "audio" / "nan.wav", with_nan, 16000, "FLOAT")
    summary = prepare(options(source, audio=AudioOptions(max_duration=2.0)), nj=2)
    listed = read_table(tmp_path / "dump" / "skipped.txt")
    assert summary.kept == 1
    assert listed == summary.skipped
    assert {key: reason.split(":")[0] for key, reason in listed.items()} == {
        "empty": "empty file",
        "long": "longer than max_duration",
        "missing": "missing file",
        "nan": "NaN or infinite samples",
        "short": "shorter than min_samples",
        "silent": "all samples are zero",
        "textfile": "unreadable",
        "wordless": "empty transcript",
    }
    assert list(read_table(tmp_path / "dump" / "text")) == ["good"]


def test_nothing_left_is_an_error(make_source, options, tmp_path):
    source = make_source({"a": b"", "b": b"text"}, name="bad")
    with pytest.raises(DataError, match=r"no utterance is left of 2 \(a: empty file, b: unread"):
        prepare(options(source))
    assert not (tmp_path / "dump" / "wav.scp").exists()
    assert len(read_table(tmp_path / "dump" / "skipped.txt")) == 2


def test_disagreement_is_an_error_up_front(source, options, tmp_path):
    (source / "utt2spk").write_text("a-stereo s1\nb-direct s2\nzz s3\n")
    with pytest.raises(DataError, match=r"1 utterances not in .*utt2spk: c-low; 1 .*: zz;"):
        prepare(options())
    assert not (tmp_path / "dump").exists()
    summary = prepare(options(allow_mismatch=True))
    assert summary.skipped == {"c-low": "not in utt2spk", "zz": "not in wav.scp"}


def test_segments_are_cut(make_source, options, tone, tmp_path):
    source = make_source({"rec": (tone(3.0, 8000), 8000, "wav")}, name="cut")
    (source / "segments").write_text("u1 rec 0.0 1.0\nu2 rec 1.5 -1\n")
    (source / "utt2spk").write_text("u1 s\nu2 s\n")
    prepare(options(source))
    counts = read_counts(tmp_path / "dump" / "utt2num_samples")
    assert counts == {"u1": 16000, "u2": 24000}
    (source / "segments").write_text("u1 other 0.0 1.0\n")
    with pytest.raises(DataError, match="u1 is cut from recording other"):
        prepare(options(source))


def test_finished_work_is_not_repeated(source, options, tmp_path):
    prepare(options())
    before = (tmp_path / "dump" / "wav.scp").stat().st_mtime_ns
    again = prepare(options(), nj=2)
    assert (again.up_to_date, again.kept) == (True, 3)
    assert (tmp_path / "dump" / "wav.scp").stat().st_mtime_ns == before
    assert not prepare(options(), force=True).up_to_date
    assert prepare(options(audio=AudioOptions(min_duration=0.6))).kept == 2
    (source / "text").write_text("a-stereo CHANGED\nb-direct W\nc-low W\n")
    assert not prepare(options(audio=AudioOptions(min_duration=0.6))).up_to_date


def test_stale_audio_is_removed_but_never_the_source(source, options, tmp_path):
    prepare(options())
    written = Path(read_table(tmp_path / "dump" / "wav.scp")["c-low"])
    prepare(options(audio=AudioOptions(min_duration=0.8)))
    assert not written.exists()
    assert (source / "audio" / "b-direct.flac").exists()


def test_foreign_wav_scp_is_not_overwritten(options, tmp_path):
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "wav.scp").write_text("mine /a.wav\n")
    with pytest.raises(DataError, match="did not write"):
        prepare(options())
    assert (tmp_path / "dump" / "wav.scp").read_text() == "mine /a.wav\n"
    assert prepare(options(), force=True).kept == 3


def test_source_is_not_the_target(source):
    with pytest.raises(DataError, match="both"):
        prepare(PrepareOptions(str(source), str(source / ".")))


@pytest.mark.parametrize("nj", [1, 2])
def test_max_hours_takes_nested_random_subsets(make_source, options, tone, tmp_path, nj):
    audio = {f"u{index:03d}": (tone(0.5, 8000), 8000, "wav") for index in range(40)}
    source = make_source(audio, name="many")
    dump = tmp_path / "dump"
    chosen = []
    for clips in (5, 12):
        summary = prepare(options(source, max_hours=(clips * 0.5 + 0.1) / 3600), nj=nj)
        chosen.append(set(read_table(dump / "wav.scp")))
        assert summary.kept == clips == len(list((dump / "data").rglob("*.flac")))
        assert list(summary.skipped.values()) == [NOT_SELECTED] * (40 - clips)
    assert chosen[0] < chosen[1]
    assert chosen[1] != set(sorted(audio)[:12])


def test_full_disk_is_one_line_and_never_looks_complete(options, monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("espnet_star.data.audio._write", full)
    with pytest.raises(DataError, match="dump: no space left on the disk"):
        prepare(options())
    assert not (tmp_path / "dump" / "wav.scp").exists()
    assert not (tmp_path / "dump" / MARKER).exists()


def test_interrupted_rerun_does_not_look_complete(options, monkeypatch, tmp_path):
    prepare(options())

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "convert", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(options(), force=True)
    assert not (tmp_path / "dump" / "wav.scp").exists()
    monkeypatch.undo()
    assert prepare(options()).kept == 3


def test_marker_holds_the_options(options, tmp_path):
    prepare(options(max_hours=1.0, audio=AudioOptions(channel_seed=5)))
    marker = json.loads((tmp_path / "dump" / MARKER).read_text())
    assert marker["options"]["max_hours"] == 1.0
    assert marker["options"]["audio"]["channel_seed"] == 5


def test_espnet_reads_the_result(options, tmp_path):
    loader = pytest.importorskip("espnet2.train.dataset")
    prepare(options())
    dataset = loader.ESPnetDataset(
        [(str(tmp_path / "dump" / "wav.scp"), "speech", "sound")], float_dtype="float32"
    )
    counts = read_counts(tmp_path / "dump" / "utt2num_samples")
    for key, samples in counts.items():
        assert dataset[key][1]["speech"].shape == (samples,)


def test_what_a_user_should_look_at_has_a_name_and_a_share(make_source, tone, tmp_path):
    """Fails if clipped, trimmed and joined recordings are only counted."""
    source = make_source(
        {"loud": (tone(1.0, 8000, amplitude=1.3), 8000, "flac"), "fine": (tone(1.0), 16000, "wav")},
        segments={"a": "fine 0 0.5", "b": "fine 0.5 1.25", "c": "fine 0.5 4", "d": "fine 0.5 1.01"},
    )
    soundfile.write(source / "loud.wav", tone(1.0, 8000, amplitude=1.3), 8000, "FLOAT")
    scp = (source / "wav.scp").read_text() + f"over {source}/loud.wav\n"
    (source / "wav.scp").write_text(scp)
    (source / "segments").open("a").write("e over 0 -1\n")
    options = PrepareOptions(str(source), str(tmp_path / "dump"))
    summary = prepare(options)
    assert summary.skipped["c"] == (
        "segment ends after its recording: 3.00 s behind the end at 1.00 s"
    )
    notes = read_table(tmp_path / "dump" / "notes.txt")
    assert notes.keys() == {"b", "e"} == summary.details.keys()
    assert notes["b"] == "segment trimmed: 0.250 s were behind the end of the recording"
    assert notes["e"].startswith("clipped: 4") and notes["e"].endswith(" % of the samples")
    assert (summary.notes["clipped"], summary.notes["segment trimmed"]) == (1, 1)
    (source / "segments").write_text("a fine 0 0.5\n")
    prepare(options)
    assert not (tmp_path / "dump" / "notes.txt").exists()


def test_a_speaker_with_a_blank_is_refused_by_line(make_source, options, tone):
    source = make_source({"utt": (tone(1.0), 16000, "wav")}, utt2spk={"utt": "Mr spk0"}, name="x")
    with pytest.raises(DataError, match="utt2spk:1: speaker 'Mr spk0' of utterance utt has a bl"):
        prepare(options(source))
