import pytest

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import (
    Segment,
    check_spk2utt,
    invert,
    read_counts,
    read_segments,
    read_table,
    read_utt2spk,
    read_wav_scp,
    split_lines,
    write_table,
)


def test_write_then_read_sorts_by_code_point(tmp_path):
    table = {"b": "x y", "a-1": "ü", "A": "z"}
    write_table(tmp_path / "text", table)
    assert read_table(tmp_path / "text") == table
    keys = [line.split()[0] for line in (tmp_path / "text").read_text("utf-8").splitlines()]
    assert keys == ["A", "a-1", "b"]


def test_failed_write_leaves_no_file(tmp_path):
    class Broken(dict):
        def __getitem__(self, key):
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_table(tmp_path / "text", Broken(a="b"))
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a x\na y\n", "text:2: utterance a is duplicated"),
        (b"a x\nb\n", "text:2: b has no value"),
        (b"a x\n\nb y\n", "text:2: blank line"),
        (b"a x\nutt2 caf\xe9\n", "text:2: utterance utt2 is not UTF-8"),
        (b"\xef\xbb\xbfa x\n", "text:1: starts with a byte order mark"),
        (
            "a x\n田中\u3000b x\n".encode(),
            r"text:2: behind 田中 stands U\+3000, a blank that is no",
        ),
        (b"a one\rb two\n", "text:1: a has a carriage return within its line"),
    ],
)
def test_malformed_lines_are_named(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "text")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"utt2spk: cannot be opened \(No such file"):
        read_table(tmp_path / "utt2spk")


def test_empty_transcript_and_windows_line_ends(tmp_path):
    (tmp_path / "text").write_bytes(b"a x  y \r\nb\r\n")
    assert read_table(tmp_path / "text", allow_empty=True) == {"a": "x  y", "b": ""}


def test_pipe_is_refused_with_advice(tmp_path):
    (tmp_path / "wav.scp").write_text("a x.wav\nb sph2pipe -f wav b.sph |\n")
    with pytest.raises(DataError, match=r"wav.scp:2: b is a pipe .*--run_pipes true"):
        read_wav_scp(tmp_path / "wav.scp")
    assert read_wav_scp(tmp_path / "wav.scp", allow_pipes=True)["b"].endswith("|")


def test_segments(tmp_path):
    (tmp_path / "segments").write_text("a rec 0.5 1.5\nb rec 2 -1\n")
    assert read_segments(tmp_path / "segments") == {
        "a": Segment("rec", 0.5, 1.5),
        "b": Segment("rec", 2.0, None),
    }


@pytest.mark.parametrize("value", ["rec 1", "rec one 2", "rec 2 1", "rec -3 1", "rec nan 1"])
def test_bad_segments_are_named(tmp_path, value):
    (tmp_path / "segments").write_text(f"ok rec 0 1\nbad {value}\n")
    with pytest.raises(DataError, match="segments:2: bad "):
        read_segments(tmp_path / "segments")


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "many", "²"])
def test_bad_counts_are_named(tmp_path, value):
    (tmp_path / "utt2num_samples").write_text(f"a {value}\n", encoding="utf-8")
    with pytest.raises(DataError, match="utt2num_samples:1: a needs a number"):
        read_counts(tmp_path / "utt2num_samples")


def test_invert_and_check_spk2utt(tmp_path):
    utt2spk = {"b": "s1", "a": "s1", "c": "s2"}
    assert invert(utt2spk) == {"s1": "a b", "s2": "c"}
    write_table(tmp_path / "utt2spk", utt2spk)
    write_table(tmp_path / "spk2utt", {"s1": "b a", "s2": "c"})
    check_spk2utt(tmp_path)
    write_table(tmp_path / "spk2utt", {"s1": "a", "s2": "b c"})
    with pytest.raises(DataError, match="utterances of speaker s1"):
        check_spk2utt(tmp_path)


@pytest.mark.parametrize("blank", [" ", "\t", "\u3000", "\u00a0"])
def test_names_of_speakers_without_blanks(tmp_path, blank):
    """Was accepted; later "utterance Mr is duplicated" in a file nobody had written."""
    path = tmp_path / "utt2spk"
    path.write_text(f"a spk1\nutt Mr{blank}spk0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"utt2spk:2: speaker .* of utterance utt has a blank"):
        read_utt2spk(path)
    path.write_text("a\tspk1\nutt  spk0 \n", encoding="utf-8")
    assert read_utt2spk(path) == {"a": "spk1", "utt": "spk0"}


ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


def test_lines_end_at_line_feeds(tmp_path):
    """Fails if what only str.splitlines takes for an end cuts a transcript."""
    text = {"a": f"one{ENDS}two", "b": "three"}
    write_table(tmp_path / "text", text)
    assert read_table(tmp_path / "text") == text
    assert split_lines(f"one{ENDS}two\n\nthree\n") == [f"one{ENDS}two", "", "three"]
    assert split_lines("") == [] and split_lines("a") == ["a"]
