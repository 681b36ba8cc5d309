"""Corpora become data directories; a bug here loses speech, or mixes train and valid speakers."""

import numpy as np
import pytest
import soundfile

from espnet_star.bin import star_data
from espnet_star.data.corpus import Utterance
from espnet_star.data.errors import DataError
from espnet_star.data.import_corpus import ImportOptions, hold_out
from espnet_star.data.kaldi import read_counts, read_segments, read_table, read_wav_scp


@pytest.fixture
def folder(tmp_path, tone):
    """Two speakers with a folder each, and what is no use."""
    random = np.random.default_rng(0)
    files = ["anna/book/one two.wav", "anna/book/three.flac", "bert/three.ogg", "bert/four.aiff"]
    for number, name in enumerate(files):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * random.standard_normal(11025 * (number + 1))
        soundfile.write(path, noise, 11025)
    bert = tmp_path / "audio" / "bert"
    (bert / "copy.wav").write_bytes((tmp_path / "audio" / files[0]).read_bytes())
    (bert / "four.WAV").write_bytes((tmp_path / "audio" / files[0]).read_bytes())
    (bert / "broken.wav").write_bytes(b"no audio")
    (bert / "empty.wav").write_bytes(b"")
    soundfile.write(bert / "nothing.wav", np.zeros(0), 16000)
    (bert / "notes.txt").write_text("hello")
    (bert / ".hidden.wav").write_bytes(b"x")
    return tmp_path / "audio"


def run(*options):
    star_data.main(["import", *(str(option) for option in options)])


def test_a_folder(folder, tmp_path, capsys):
    """Fails if a file is lost without a word, twice there, or of the wrong speaker."""
    run("--source", folder, "--output_dir", tmp_path / "data", "--speakers", "top")
    data = tmp_path / "data" / "train"
    wavs = read_wav_scp(data / "wav.scp")
    assert set(wavs) == {
        "anna-book-one_two",
        "anna-book-three",
        "bert-four-aiff",
        "bert-three",
    }
    assert wavs["anna-book-one_two"] == str(folder / "anna/book/one two.wav")
    assert read_table(data / "utt2spk")["anna-book-three"] == "anna"
    assert read_table(data / "spk2utt")["bert"] == "bert-four-aiff bert-three"
    assert {p.name for p in data.iterdir()} == {"wav.scp", "utt2spk", "spk2utt"}
    skipped = read_table(tmp_path / "data" / "skipped.txt")
    assert skipped["bert-copy"] == "same audio as anna-book-one_two"
    assert skipped["bert-empty"] == "empty file"
    assert skipped["bert-nothing"] == "no samples"
    assert skipped["bert-broken"].startswith("unreadable")
    assert skipped["bert-four"] == "same audio as anna-book-one_two"
    assert len(skipped) == 5
    out = capsys.readouterr().out
    assert "train: 4 utterances, 10 s, 2 speakers" in out
    assert "2 left out, same audio: bert-copy, bert-four" in out
    assert "files that are no audio: 1 .txt" in out
    run("--source", folder, "--output_dir", tmp_path / "all", "--keep_duplicates", "true")
    assert len(read_wav_scp(tmp_path / "all" / "train" / "wav.scp")) == 6
    assert not (tmp_path / "all" / "train" / "utt2spk").exists()
    run("--source", folder, "--output_dir", tmp_path / "parent", "--speakers", "parent")
    speakers = read_table(tmp_path / "parent" / "train" / "utt2spk")
    assert speakers["book-anna-book-three"] == "book"


def prepared(directory, *options):
    """Samples of each utterance after preparation and check."""
    raw = directory.parent / f"raw_{directory.name}"
    star_data.main(
        ["prepare", "--source", str(directory), "--output_dir", str(raw), "--nj", "1", *options]
    )
    star_data.main(["check", "--data_dir", str(raw)])
    return read_counts(raw / "utt2num_samples")


def test_a_kaldi_directory_with_segments_pipes_and_a_valid_set(make_source, tone, tmp_path, capsys):
    """Fails if segments move, commands run unasked, or a speaker is on both sides."""
    loud = tmp_path / "piped.wav"
    soundfile.write(loud, tone(2.0), 16000)
    source = make_source(
        {
            "rec1": (tone(3.0, 8000), 8000, "wav"),
            "rec2": f"cat {loud} |",
            "rec3": (tone(1.0), 16000, "flac"),
            "gone": str(tmp_path / "absent.wav"),
        },
        segments={
            "a1": "rec1 0.5 1.5",
            "a2": "rec1 2 -1",
            "b1": "rec2 0 2",
            "c1": "rec3 0.25 1.3",
            "c2": "gone 0 1",
        },
        utt2spk={"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"},
        text={"a1": "ONE", "a2": "TWO", "b1": "THREE", "c1": "FOUR", "c2": "FIVE"},
    )
    options = ["--source", source, "--output_dir", tmp_path / "data", "--valid_utterances", 1]
    with pytest.raises(SystemExit):
        run(*options)
    assert "rec2 is a pipe" in capsys.readouterr().err
    run(*options, "--run_pipes", "true")
    train, valid = tmp_path / "data" / "train", tmp_path / "data" / "valid"
    segments = {**read_segments(train / "segments"), **read_segments(valid / "segments")}
    assert set(segments) == {"a1", "a2", "b1", "c1"}
    assert segments["a2"] == ("rec1", 2.0, None) and segments["a1"] == ("rec1", 0.5, 1.5)
    assert read_table(tmp_path / "data" / "skipped.txt") == {"c2": "missing file"}
    speakers = [set(read_table(part / "utt2spk").values()) for part in (train, valid)]
    assert not speakers[0] & speakers[1] and speakers[0] | speakers[1] == {"a", "b", "c"}
    assert len(read_table(valid / "text")) == 1
    lengths = {**prepared(train), **prepared(valid)}
    assert lengths == {"a1": 16000, "a2": 16000, "b1": 32000, "c1": 12000}
    with pytest.raises(SystemExit):
        run(*options, "--run_pipes", "true")
    assert "already holds a wav.scp" in capsys.readouterr().err
    run(
        "--source",
        source,
        "--output_dir",
        tmp_path / "data",
        "--run_pipes",
        "true",
        "--force",
        "true",
    )
    assert not (valid / "wav.scp").exists() and len(read_table(train / "text")) == 4


@pytest.fixture
def manifests(tmp_path):
    """A talk in two channels and one in mono, by lhotse."""
    lhotse = pytest.importorskip("lhotse", reason="pip install espnet_star[recipes]")
    random = np.random.default_rng(0)
    stereo = 0.1 * random.standard_normal((24000 * 2, 2))
    soundfile.write(tmp_path / "talk.flac", stereo, 24000)
    soundfile.write(tmp_path / "mono.wav", 0.1 * random.standard_normal(16000), 16000)
    recordings = lhotse.RecordingSet.from_recordings(
        lhotse.Recording.from_file(tmp_path / name) for name in ("talk.flac", "mono.wav")
    )
    segment = lhotse.SupervisionSegment
    supervisions = lhotse.SupervisionSet.from_segments(
        [
            segment("anna 1", "talk", 0.5, 1.0, channel=0, speaker="anna", text="HI\tTHERE"),
            segment("bert-1", "talk", 0.25, 1.5, channel=1, speaker="bert", text="OH"),
            segment("anna-2", "mono", 0.5, 0.25, speaker="anna"),
        ]
    )
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    return lhotse, recordings, supervisions, stereo


def test_recordings_and_supervisions(manifests, tmp_path, capsys):
    """Fails if a channel of a conversation is mixed with the other, or times move."""
    options = ["--source", tmp_path / "recordings.jsonl.gz", "--output_dir", tmp_path / "data"]
    run(*options, "--supervisions", tmp_path / "supervisions.jsonl.gz")
    data = tmp_path / "data" / "train"
    wavs = read_wav_scp(data / "wav.scp")
    assert read_segments(data / "segments")["anna-2"] == ("mono", 0.5, 0.75)
    assert wavs["mono"] == str(tmp_path / "mono.wav")
    channel, rate = soundfile.read(wavs["bert-1"])
    expected = manifests[3][6000:42000, 1]
    assert rate == 24000
    np.testing.assert_allclose(channel, expected, atol=1e-4)
    assert read_table(data / "utt2spk") == {"anna-2": "anna", "anna_1": "anna", "bert-1": "bert"}
    assert not (data / "text").exists()
    assert "1 of 3 utterances have no transcript (anna-2), so no text" in capsys.readouterr().out
    assert prepared(data) == {"anna-2": 4000, "anna_1": 16000, "bert-1": 24000}
    again = ["--supervisions", tmp_path / "supervisions.jsonl.gz", "--need_text", "true"]
    run(*options, *again, "--force", "true")
    assert read_table(data / "text") == {"anna_1": "HI THERE", "bert-1": "OH"}
    run(*options, "--force", "true")
    assert set(read_wav_scp(data / "wav.scp")) == {"talk", "mono"}
    assert prepared(data) == {"talk": 32000, "mono": 16000}


def test_cuts(manifests, tmp_path):
    """Fails if cuts lose what lhotse was to do to them, such as a change of speed."""
    lhotse, recordings, _, _ = manifests
    mono = recordings["mono"].to_cut()
    cuts = lhotse.CutSet.from_cuts(
        [
            mono.truncate(offset=0.5, duration=0.25).with_id("part"),
            mono.perturb_speed(2.0).with_id("fast"),
            mono.append(mono).with_id("twice"),
            mono.with_id("whole"),
        ]
    )
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    run("--source", tmp_path / "cuts.jsonl.gz", "--output_dir", tmp_path / "data")
    lengths = prepared(tmp_path / "data" / "train")
    assert lengths == {"part": 4000, "fast": 8000, "twice": 32000, "whole": 16000}


def test_padded_and_mixed_cuts_are_stored(manifests, tmp_path):
    """Padding says that it has a recording: AttributeError. Mixtures keep all their tracks."""
    lhotse, recordings, _, stereo = manifests
    mono, talk = recordings["mono"].to_cut(), recordings["talk"].to_cut()
    cuts = lhotse.CutSet.from_cuts(
        [
            mono.pad(duration=1.5).with_id("right"),
            mono.pad(duration=1.5, direction="both").with_id("both"),
            mono.pad(duration=1.5).append(mono).with_id("twice"),
            mono.mix(mono, offset_other_by=0.5).with_id("mixed"),
            mono.perturb_volume(2.0).pad(duration=2.0).with_id("louder"),
            mono.resample(8000).with_id("low"),
            talk.pad(duration=3.0).with_id("stereo"),
            talk.truncate(duration=1.0).with_id("part"),
        ]
    )
    cuts.to_file(tmp_path / "cuts.jsonl")
    run(
        "--source",
        tmp_path / "cuts.jsonl",
        "--output_dir",
        tmp_path / "data",
        "--keep_duplicates",
        "1",
    )
    train = tmp_path / "data" / "train"
    wavs, segments = read_wav_scp(train / "wav.scp"), read_segments(train / "segments")
    sound = soundfile.read(tmp_path / "mono.wav")[0]

    def stored(key):
        return soundfile.read(wavs[segments[key].recording])[0]

    np.testing.assert_allclose(stored("right"), np.pad(sound, (0, 8000)), atol=1e-4)
    np.testing.assert_allclose(stored("both"), np.pad(sound, (4000, 4000)), atol=1e-4)
    np.testing.assert_allclose(
        stored("mixed"), np.pad(sound, (0, 8000)) + np.pad(sound, (8000, 0)), atol=1e-4
    )
    np.testing.assert_allclose(stored("louder")[:16000], 2 * sound, atol=1e-4)
    np.testing.assert_allclose(stored("stereo")[:48000], stereo.mean(axis=1), atol=1e-4)
    seconds = {key: count / 16000 for key, count in prepared(train).items()}
    assert seconds == pytest.approx(
        {
            "right": 1.5,
            "both": 1.5,
            "twice": 2.5,
            "mixed": 1.5,
            "louder": 2.0,
            "low": 1.0,
            "stereo": 3.0,
            "part": 1.0,
        },
        abs=0.01,
    )


def test_times_that_are_off(manifests, tmp_path, capsys):
    """An end 5 ms behind the recording was an AssertionError and nothing imported."""
    lhotse, _, _, stereo = manifests
    segment = lhotse.SupervisionSegment
    lhotse.SupervisionSet.from_segments(
        [
            segment("round", "mono", 0.5, 0.505),
            segment("round-stereo", "talk", 1.0, 1.005, channel=1),
            segment("over", "mono", 0.5, 0.75),
            segment("far", "mono", 0.5, 1.75),
            segment("before", "mono", -0.4, 1.0),
            segment("rounded-start", "mono", -0.004, 0.5),
            segment("behind", "mono", 3.0, 1.0),
            segment("both", "talk", 0.0, 1.0, channel=[0, 1]),
            segment("other", "talk", 0.0, 1.0, channel=5),
        ]
    ).to_file(tmp_path / "off.jsonl")
    options = ["--source", tmp_path / "recordings.jsonl.gz", "--output_dir", tmp_path / "data"]
    run(*options, "--supervisions", tmp_path / "off.jsonl")
    train = tmp_path / "data" / "train"
    segments = read_segments(train / "segments")
    assert segments["round"] == ("mono", 0.5, 1.0)
    assert segments["over"] == ("mono", 0.5, 1.0)
    assert segments["rounded-start"][1] == 0.0
    wavs = read_wav_scp(train / "wav.scp")
    np.testing.assert_allclose(
        soundfile.read(wavs["round-stereo"])[0], stereo[24000:, 1], atol=1e-4
    )
    assert segments["both"][0] == "talk"
    assert read_table(tmp_path / "data" / "skipped.txt") == {
        "far": "segment ends after its recording: 1.25 s behind the end at 1.00 s",
        "before": "segment starts before its recording: at -0.40 s",
        "behind": "segment starts after the end of the recording",
        "other": "channel 5 is none of recording talk",
    }
    assert read_table(tmp_path / "data" / "notes.txt") == {
        "over": "segment trimmed: 0.250 s were behind the end of the recording"
    }
    assert "to look at: over (segment trimmed" in capsys.readouterr().out


def test_names_that_a_table_cannot_hold(tone, tmp_path, capsys):
    """Blanks become part of no id; a line break in a path would begin a new line."""
    folder = tmp_path / "in put"
    folder.mkdir()
    for number, name in enumerate(("one two", "一\u3000二", "tab\tbed", " ", "line\nbreak")):
        soundfile.write(folder / f"{name}.wav", tone(1.0 + number / 10), 16000)
    run("--source", folder, "--output_dir", tmp_path / "data")
    train = tmp_path / "data" / "train"
    assert sorted(prepared(train)) == ["_", "one_two", "tab_bed", "一_二"]
    assert "line_break.wav" in read_table(tmp_path / "data" / "skipped.txt")


def test_a_kaldi_directory_of_archives(tone, tmp_path):
    """Fails if entries of an archive are taken for names of files."""
    content, lines = b"", []
    for number, seconds in enumerate((1.0, 0.5, 1.0)):
        soundfile.write(tmp_path / "a.wav", tone(seconds), 16000)
        content += f"u{number} ".encode()
        lines.append(f"u{number} {tmp_path}/data.ark:{len(content)}\n")
        content += (tmp_path / "a.wav").read_bytes()
    (tmp_path / "data.ark").write_bytes(content)
    (tmp_path / "wav.scp").write_text("".join(lines))
    run("--source", tmp_path, "--output_dir", tmp_path / "data")
    assert prepared(tmp_path / "data" / "train") == {"u0": 16000, "u1": 8000}
    assert read_table(tmp_path / "data" / "skipped.txt") == {"u2": "same audio as u0"}


def test_commands_of_a_manifest_are_run_only_if_asked(manifests, tmp_path, capsys):
    lhotse, recordings, _, _ = manifests
    mono = recordings["mono"]
    mono.sources[0].type, mono.sources[0].source = "command", f"cat {tmp_path}/mono.wav"
    lhotse.RecordingSet.from_recordings([mono]).to_file(tmp_path / "commands.jsonl")
    options = ["--source", tmp_path / "commands.jsonl", "--output_dir", tmp_path / "data"]
    with pytest.raises(SystemExit):
        run(*options)
    assert "mono is read by a command" in capsys.readouterr().err
    run(*options, "--run_pipes", "true")
    assert prepared(tmp_path / "data" / "train") == {"mono": 16000}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "r", "--supervisions", "absent"], "absent: no such file"),
        (["--source", "s"], "is a SupervisionSet; give the recordings"),
        (["--source", "r", "--supervisions", "r"], "is a RecordingSet, not supervisions"),
        (["--source", "mono.wav"], "no manifest of lhotse"),
        (["--source", "absent"], "absent: no such file or directory"),
        (["--source", "void"], "void: no audio file in it"),
        (["--source", ".", "--speakers", "top"], "lies in no folder of a speaker"),
        (["--source", ".", "--format", "kaldi"], "wav.scp: cannot be opened"),
        (["--source", "r", "--speakers", "top"], "--speakers is for a folder of audio"),
        (["--source", ".", "--supervisions", "x"], "--supervisions is for recordings of lhotse"),
        (["--source", ".", "--valid_hours", "-1"], "--valid_hours must be positive"),
        (["--source", ".", "--valid_hours", "1"], "more than half of the corpus"),
        (["--source", ".", "--valid_set", "train"], "are both train"),
        (["--source", ".", "--valid_hours", "1", "--valid_utterances", "1"], "give one of"),
    ],
)
def test_a_mistake_is_one_line(manifests, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "void").mkdir()
    names = {"r": "recordings.jsonl.gz", "s": "supervisions.jsonl.gz"}
    with pytest.raises(SystemExit) as stop:
        run(*(names.get(option, option) for option in options))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def corpus(speakers, each=20, seconds=6.0):
    return [
        Utterance(f"{speaker}-{n}", f"{speaker}-{n}", speaker=speaker, seconds=seconds)
        for speaker in speakers
        for n in range(each)
    ]


def test_a_valid_set_of_other_speakers():
    """Fails if the valid set is not of the size, shares speakers, or changes with the corpus."""
    notes = []
    speakers = [f"s{n}" for n in range(50)]
    options = ImportOptions(valid_hours=1 / 6)
    train, valid = hold_out(corpus(speakers), options, notes)
    assert not notes and len(train) + len(valid) == 1000
    assert 480 <= sum(u.seconds for u in valid) <= 720
    assert not {u.speaker for u in train} & {u.speaker for u in valid}
    again = hold_out(list(reversed(corpus(speakers))), options, notes)[1]
    assert {u.key for u in again} == {u.key for u in valid}


def test_a_valid_set_of_few_speakers_or_none():
    notes = []
    train, valid = hold_out(corpus(["a", "b"]), ImportOptions(valid_utterances=10), notes)
    assert (len(train), len(valid)) == (30, 10)
    assert notes == ["the valid set is made of recordings: speakers are too few or too unequal"]
    parts = [Utterance(f"{r}-{n}", r, 0, 1, seconds=1) for r in "abcdefgh" for n in range(5)]
    train, valid = hold_out(parts, ImportOptions(valid_utterances=10), notes)
    assert len(valid) == 10 and len({u.recording for u in valid}) == 2 and len(notes) == 1
    one = [Utterance(f"u{n}", "r", n, n + 1, seconds=1) for n in range(10)]
    assert len(hold_out(one, ImportOptions(valid_utterances=1), notes)[1]) == 1
    assert hold_out(one, ImportOptions(), notes) == (one, [])
    with pytest.raises(DataError, match=r"of 6 utterances is more than half .*\(10 utterances"):
        hold_out(one, ImportOptions(valid_utterances=6), notes)
