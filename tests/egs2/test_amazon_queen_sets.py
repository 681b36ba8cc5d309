import random

import prepare_corpus
import pytest
import soundfile
from amazon_queen_builders import RATE, archive_bytes, dialogue_bytes, mp3_bytes
from corpus_sets import (
    MAX_SPEAKER_CLIPS,
    UNKNOWN,
    Clip,
    build_sets,
    normalize,
    same_content,
    split_clips,
    thin_out,
)
from prepare_corpus import prepare, write_data_dir
from queen_archive import QueenError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't be SILLY!", "don't be silly"),
        ('What\'s-his-name... said:  "Hello, you?"', "what's his name said hello you"),
        ("I found 'em, so 'there'.", "i found em so there"),
        ("D.N.A. of the Amazons'", "d n a of the amazons"),
        ("The Treatment^_ lasts", "the treatment lasts"),
        ("It was 1944.", None),
        ("<gulp>", None),
        ("(sigh) Oh well", None),
        ("d\xe9j\xe0 vu", None),
        ("...", None),
        ("'", None),
        ("", None),
        (None, None),
    ],
)
def test_normalize(text, words):
    assert normalize(text) == words


def clips_of(speaker, count, seconds=2.0, words=True):
    return [
        Clip(
            name=f"{speaker[:3]}{number:05d}",
            speaker=speaker,
            words=f"line {speaker.lower()} {'x' * number}" if words else None,
            seconds=seconds,
            digest=f"{speaker}{number}",
        )
        for number in range(count)
    ]


@pytest.fixture
def corpus():
    return (
        clips_of("JOE", 600)
        + clips_of("BOB", 100)
        + clips_of("AND", 20)
        + clips_of("SEC", 40)
        + clips_of("SHORT", 60, seconds=0.5)
        + clips_of(UNKNOWN, 200, words=False)
    )


def names(clips):
    return {clip.name for clip in clips}


def test_shares_hold_within_every_speaker(corpus):
    splits = split_clips(corpus)
    for speaker, total in (("JOE", 600), ("BOB", 100), ("SEC", 40), ("AND", 20)):
        mine = [splits[clip.name] for clip in corpus if clip.speaker == speaker]
        assert mine.count("test") == round(0.12 * total)
        assert mine.count("valid") == round(0.08 * total)
    unknown = [splits[clip.name] for clip in corpus if clip.speaker == UNKNOWN]
    assert (unknown.count("test"), unknown.count("valid")) == (0, 4)
    assert {splits[clip.name] for clip in corpus if clip.speaker == "SHORT"} == {"train"}


def test_sets_do_not_depend_on_the_order_but_on_the_seed(corpus):
    mixed = list(corpus)
    random.Random(1).shuffle(mixed)
    assert build_sets(mixed) == build_sets(corpus)
    assert names(build_sets(corpus, seed=1)["asr_test"]) != names(build_sets(corpus)["asr_test"])


def test_held_out_clips_are_held_out_of_all_tasks(corpus):
    sets = build_sets(corpus)
    trained = names(sets["train"]) | names(sets["asr_train"]) | names(sets["sid_train"])
    for held_out in ("valid", "asr_valid", "asr_test", "sid_valid", "sid_test"):
        assert sets[held_out]
        assert not trained & names(sets[held_out])
    assert not names(sets["valid"]) & names(sets["asr_test"])


def test_speaker_sets_leave_out_the_rare_and_cap_the_frequent(corpus):
    sets = build_sets(corpus)
    chosen = [clip for part in ("train", "valid", "test") for clip in sets[f"sid_{part}"]]
    counts = {s: sum(c.speaker == s for c in chosen) for s in {clip.speaker for clip in chosen}}
    assert counts == {"JOE": MAX_SPEAKER_CLIPS, "BOB": 100, "SEC": 40}
    assert sum(clip.speaker == "JOE" for clip in sets["sid_test"]) == 30


def test_sets_are_sorted_as_in_the_c_locale(corpus):
    for members in build_sets(corpus).values():
        ids = [clip.utt_id for clip in members]
        assert ids == sorted(ids, key=str.encode)
        assert [clip.speaker for clip in members] == sorted(clip.speaker for clip in members)


def test_copies_and_repeated_sentences_stay_together():
    base = clips_of("JOE", 5)
    copy = Clip("COPY", UNKNOWN, None, 2.0, base[0].digest)
    again = Clip("AGAIN", "JOE", base[0].words, 2.0, "other")
    bridge = Clip("BRIDGE", UNKNOWN, None, 2.0, "other")
    other = Clip("OTHER", "BOB", base[0].words, 2.0, "another")
    groups = same_content([*base, bridge, copy, again, other])
    assert sorted(len(group) for group in groups) == [1, 1, 1, 1, 1, 4]
    many = clips_of("JOE", 100) + [
        Clip(f"T{c.name}", "JOE", c.words, 1.5, f"t{c.digest}") for c in clips_of("JOE", 100)
    ]
    splits = split_clips(many)
    assert all(splits[c.name] == splits[c.name[1:]] for c in many if c.name.startswith("T"))


def test_asr_needs_words_and_a_second(corpus):
    extra = [
        Clip("ONE", "JOE", "hello", 2.0, "a"),
        Clip("NONE", "JOE", None, 2.0, "b"),
        Clip("BRIEF", "JOE", "hello there", 0.9, "c"),
    ]
    sets = build_sets(corpus + extra)
    asr = names(sets["asr_train"]) | names(sets["asr_valid"]) | names(sets["asr_test"])
    assert not asr & names(extra)
    assert "BRIEF" in names(sets["train"])


def test_subset_thins_training_sets_alone(corpus):
    full, part = build_sets(corpus), build_sets(corpus, subset_hours=0.05)
    for name, members in part.items():
        if name.endswith("train"):
            assert 180 <= sum(clip.seconds for clip in members) < 200
            assert {c.speaker for c in members} == {c.speaker for c in full[name]}
        else:
            assert members == full[name]
    assert sorted(thin_out(corpus, 1e6, 0), key=str) == sorted(corpus, key=str)


def test_data_dir_holds_the_tables_of_kaldi(tmp_path):
    clips = [
        Clip("2A", "BOB", "well well", 1.0, "x"),
        Clip("1A", "JOE", "hello there", 1.0, "y"),
        Clip("3A", "JOE", "good bye", 1.0, "z"),
    ]
    write_data_dir(clips, tmp_path / "asr", tmp_path / "wav", text=True)
    tables = {path.name: path.read_text() for path in (tmp_path / "asr").iterdir()}
    assert tables == {
        "wav.scp": "".join(
            f"{clip.utt_id} {tmp_path / 'wav' / clip.name}.flac\n" for clip in clips
        ),
        "utt2spk": "BOB-2A BOB\nJOE-1A JOE\nJOE-3A JOE\n",
        "spk2utt": "BOB BOB-2A\nJOE JOE-1A JOE-3A\n",
        "text": "BOB-2A well well\nJOE-1A hello there\nJOE-3A good bye\n",
    }
    write_data_dir(clips, tmp_path / "plain", tmp_path / "wav", text=False)
    assert not (tmp_path / "plain" / "text").exists()


@pytest.fixture
def queen(tmp_path, monkeypatch):
    monkeypatch.setattr("corpus_sets.MIN_SPEAKER_CLIPS", 20)
    ids = range(16, 41)
    dialogue = dialogue_bytes(
        2,
        hero=[(number, f"Line {'x' * number}.*01") for number in ids],
        person=[(number, f"Word {'y' * number}!*02") for number in ids],
    )
    voices = {
        f"02{number:04X}{letter}1.SB": mp3_bytes(1.2, seed=number + ord(letter))
        for number in ids
        for letter in "JP"
    }
    cut = {f"C1A_{number:03d}.SB": mp3_bytes(1.1, seed=1000 + number) for number in range(30)}
    blank = {"BLANK000.SB": mp3_bytes(0.1), "QUIET.SB": mp3_bytes(1.0, level=1e-5)}
    path = tmp_path / "queen.1c"
    path.write_bytes(archive_bytes(voices | cut | blank | {"BOB1.DOG": dialogue}))
    return path


def run(queen, tmp_path, *more):
    folders = ["--wavdir", str(tmp_path / "wav"), "--data_dir", str(tmp_path / "data")]
    return prepare_corpus.main(["--queen", str(queen), *folders, *more])


def test_archive_becomes_data_directories(queen, tmp_path, capsys):
    assert run(queen, tmp_path) == 0
    assert len(list((tmp_path / "wav").iterdir())) == 80
    ids = set()
    for name in ("train", "valid", "asr_test", "sid_test"):
        rows = (tmp_path / "data" / name / "wav.scp").read_text().splitlines()
        assert rows
        for row in rows:
            utt_id, path = row.split()
            ids.add(utt_id)
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.format) == (RATE, 1, "FLAC")
            assert 1.0 < info.duration < 1.5
    assert len(ids) == 80
    assert (tmp_path / "data" / "asr_train" / "text").read_text().startswith("BOB-02")
    assert "asr_train" in capsys.readouterr().out


def test_any_number_of_threads_gives_the_same_sets(queen, tmp_path):
    sets = [prepare(queen, tmp_path / "wav", tmp_path / "data", None, jobs=jobs) for jobs in (1, 3)]
    assert sets[0] == sets[1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"020006J1.SB": b"not audio at all"}, "clip 020006J1: 16 bytes that libsndfile cannot"),
        ({"020006J1.SB": mp3_bytes(1.0)}, "no clips for"),
        ({}, "no clips for"),
    ],
)
def test_unusable_archive_is_an_error_on_one_line(tmp_path, capsys, files, message):
    path = tmp_path / "queen.1c"
    path.write_bytes(archive_bytes(files))
    assert run(path, tmp_path) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_missing_archive_is_named(tmp_path, capsys):
    assert run(tmp_path / "absent.1c", tmp_path) == 1
    assert "absent.1c" in capsys.readouterr().err


def test_stereo_clip_is_refused(tmp_path):
    soundfile.write(tmp_path / "two.flac", [[0.1, 0.2]] * 100, RATE)
    with pytest.raises(QueenError, match=r"clip TWO: expected mono, found 2 channels"):
        prepare_corpus.decode((tmp_path / "two.flac").read_bytes(), "TWO")
