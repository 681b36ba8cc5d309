"""LibriSpeech's local/data.sh on a miniature tree, with lhotse; the network is a local server."""

import functools
import http.server
import re
import threading
from pathlib import Path

import fetch_librispeech
import prepare_librispeech
import pytest
from librispeech_builders import copy_corpus, write_archive, write_corpus
from librispeech_tree import SETS, UTTERANCES, corpus_folder, parts_of

from espnet_star.bin import star_data
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_table
from espnet_star.errors import StarError

pytest.importorskip("lhotse", reason="pip install espnet_star[recipes]")
TEST = "test-clean"


@pytest.fixture(scope="module")
def corpus(make_speech, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), make_speech)


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus to spoil."""
    return copy_corpus(corpus, tmp_path)


def prepare(folder, corpus, *sets, extra=("--allow_fewer", "true")):
    options = ["--data_dir", f"{folder}/data", "--download_dir", f"{folder}/downloads", "--nj", "2"]
    source = ["--librispeech", f"{corpus}"] if corpus else []
    prepare_librispeech.main([*options, *source, "--sets", *sets, *extra])


def refused(capsys, *args, **kwargs):
    with pytest.raises(SystemExit) as stop:
        prepare(*args, **kwargs)
    assert stop.value.code == 2
    # Progress bars of lhotse's may come before.
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if "error: " in line] == lines[-1:]
    return lines[-1]


def test_sets_are_what_the_template_reads(corpus, tmp_path, capsys):
    """Fails if a part is left out of a set, audio is a pipe, or the template refuses it."""
    prepare(tmp_path, corpus.parent, "train_960", "dev", "test-clean")
    paths = read_table(tmp_path / "data" / "train_960" / "wav.scp")
    found = {Path(path).relative_to(corpus).parts[0] for path in paths.values()}
    assert found == set(SETS["train_960"]) and len(paths) == 12
    assert list(paths) == sorted(paths)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "train_960",
        "dev",
        "test_clean",
    }
    assert len(read_table(tmp_path / "data" / "dev" / "text")) == 8
    text = read_table(tmp_path / "data" / "test_clean" / "text")
    speakers = read_table(tmp_path / "data" / "test_clean" / "utt2spk")
    assert text["600-5600-0001"] == "HELLO WORLD IT'S B" and speakers["600-5600-0001"] == "600"
    raw = tmp_path / "raw"
    star_data.main(
        [
            "prepare",
            "--source",
            f"{tmp_path}/data/test_clean",
            "--output_dir",
            f"{raw}",
            "--nj",
            "1",
        ]
    )
    star_data.main(["check", "--data_dir", f"{raw}", "--need", "text"])
    lengths = read_table(raw / "utt2num_samples")
    assert lengths["600-5600-0000"] == "8000" and lengths["600-5600-0001"] == "8320"


def test_a_second_run_writes_what_is_new_only(corpus, tmp_path, capsys):
    prepare(tmp_path, corpus, "dev_clean")
    before = (tmp_path / "data" / "dev_clean" / "wav.scp").stat().st_mtime_ns
    prepare(tmp_path, corpus, "dev_clean", "dev_other")
    assert "dev_clean is up to date: 4 utterances" in capsys.readouterr().out
    assert (tmp_path / "data" / "dev_clean" / "wav.scp").stat().st_mtime_ns == before
    assert (tmp_path / "data" / "dev_other" / "wav.scp").is_file()


def test_another_corpus_is_written_again(corpus, copy, tmp_path):
    """Fails if data of a corpus that has moved keeps its old paths."""
    prepare(tmp_path, corpus, TEST)
    prepare(tmp_path, copy, TEST)
    paths = read_table(tmp_path / "data" / "test_clean" / "wav.scp").values()
    assert all(Path(path).is_relative_to(copy) for path in paths)


def test_real_counts_are_expected_unless_less_is_allowed(corpus, tmp_path, capsys):
    message = refused(capsys, tmp_path, corpus, TEST, extra=())
    assert "test-clean: 4 utterances, expected 2620" in message and "--allow_fewer" in message
    assert not (tmp_path / "data").exists()


def lose_transcript(part):
    next(part.rglob("*.trans.txt")).unlink()


def lose_audio(part):
    next(part.rglob("600-5600-0001.flac")).unlink()


def lose_line(part):
    path = next(part.rglob("600-5600.trans.txt"))
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def cut_line(part):
    next(part.rglob("600-5600.trans.txt")).write_text("600-5600-0000 HELLO\n600-56")


def empty_audio(part):
    next(part.rglob("600-5600-0000.flac")).write_bytes(b"")


def spoil_audio(part):
    next(part.rglob("600-5600-0000.flac")).write_bytes(b"fLaC, but no more")


def lose_all_audio(part):
    for path in part.rglob("*.flac"):
        path.unlink()


def lose_everything(part):
    for path in part.rglob("*.*"):
        path.unlink()


def lose_part(part):
    part.rename(part.with_name("test-klean"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_transcript, r"\d+-\d+\.trans\.txt: missing, though .* has 2 audio files"),
        (lose_audio, r"1 utterances have no audio file: 600-5600-0001"),
        (lose_line, r"1 utterances have audio, but no transcript: 600-5600-0001"),
        (cut_line, r"600-5600\.trans\.txt:2: expected 'utterance words', found '600-56'"),
        (empty_audio, r"1 utterances have an empty audio file: 600-5600-0000"),
        (spoil_audio, r"test-clean: an audio file cannot be read"),
        (lose_all_audio, r"2 utterances have no audio file: 600-5600-0000, 600-5600-0001"),
        (lose_everything, r"missing, though .* has 0 audio files"),
        (
            lose_part,
            r"test-clean: no such folder \(there are train-clean-100, .*\); fetch test-clean",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_missing_is_named_before_anything_is_written(
    copy, tmp_path, capsys, spoil, message
):
    """lhotse leaves such utterances out in silence."""
    spoil(copy / TEST)
    assert re.search(message, refused(capsys, tmp_path, copy, TEST, "dev_clean"))
    assert not (tmp_path / "data" / "test_clean").exists()


def test_wrong_names_get_a_suggestion(corpus, tmp_path, capsys):
    message = refused(capsys, tmp_path, corpus, "test_claen")
    assert "unknown set of LibriSpeech 'test_claen'. Did you mean 'test_clean'?" in message
    assert parts_of("dev-other") == ("dev-other",)
    with pytest.raises(StarError, match="Did you mean 'train_960'"):
        parts_of("train_96")


def test_a_folder_that_is_no_corpus_is_refused(corpus, tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(DataError, match=r"expected LibriSpeech/ or a folder with .*it holds notes"):
        corpus_folder(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        corpus_folder(tmp_path / "nothing")
    assert corpus_folder(corpus) == corpus_folder(corpus.parent) == corpus


def test_tables_of_parts_agree():
    parts = UTTERANCES.keys()
    assert fetch_librispeech.PART_MD5.keys() == fetch_librispeech.PART_GB.keys() == parts
    assert sum(UTTERANCES[part] for part in SETS["train_960"]) == 281241
    assert {part for group in SETS.values() for part in group} == parts


class RangeServer(http.server.SimpleHTTPRequestHandler):
    """OpenSLR's way: honors Range, and 416 with the size past the end."""

    asked: list = []  # noqa: RUF012
    cut: dict = {}  # noqa: RUF012

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.asked.append((self.path, start))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        end = self.cut.pop(self.path, len(content))
        self.send_response(206)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def openslr(corpus, tmp_path, monkeypatch):
    """Options of a mirror that holds two parts, with their sums."""
    site = tmp_path / "site"
    for part in (TEST, "dev-clean"):
        archive = write_archive(corpus, part, site)
        monkeypatch.setitem(fetch_librispeech.PART_MD5, part, fetch_librispeech.file_md5(archive))
    RangeServer.asked.clear()
    RangeServer.cut.clear()
    handler = functools.partial(RangeServer, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield ["--allow_fewer", "true", "--base_url", url]
    server.shutdown()
    server.server_close()
    thread.join()


def test_only_what_is_asked_for_is_fetched(openslr, tmp_path):
    """Fails if a part is fetched twice, or one that no set needs."""
    prepare(tmp_path, None, TEST, extra=openslr)
    assert RangeServer.asked == [("/12/test-clean.tar.gz", 0)]
    downloads = tmp_path / "downloads"
    assert {path.name for path in downloads.iterdir()} == {"LibriSpeech"}
    prepare(tmp_path, None, TEST, "dev_clean", extra=[*openslr, "--keep_archives", "true"])
    assert [path for path, _ in RangeServer.asked] == [
        "/12/test-clean.tar.gz",
        "/12/dev-clean.tar.gz",
    ]
    assert (downloads / "dev-clean.tar.gz").is_file()
    assert len(read_table(tmp_path / "data" / "dev_clean" / "text")) == 4


def test_a_download_goes_on_where_it_stopped(openslr, tmp_path):
    """Fails if bytes are fetched again, or half an archive is unpacked."""
    RangeServer.cut["/12/test-clean.tar.gz"] = 1000
    prepare(tmp_path, None, TEST, extra=openslr)
    assert RangeServer.asked == [("/12/test-clean.tar.gz", 0), ("/12/test-clean.tar.gz", 1000)]
    assert len(read_table(tmp_path / "data" / "test_clean" / "text")) == 4


def test_a_damaged_archive_is_not_unpacked(openslr, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(fetch_librispeech.PART_MD5, TEST, "0" * 32)
    message = refused(capsys, tmp_path, None, TEST, extra=openslr)
    assert re.search(r"test-clean\.tar\.gz: md5 \w{32}, expected 0{32}: damaged", message)
    assert not (tmp_path / "downloads" / "LibriSpeech").exists()


def test_an_interrupted_unpacking_is_done_again(openslr, tmp_path):
    """Fails if a part that was unpacked in half is taken for whole."""
    half = tmp_path / "downloads" / "LibriSpeech" / TEST / "600" / "5600"
    half.mkdir(parents=True)
    (half / "left-over.flac").touch()
    prepare(tmp_path, None, TEST, extra=openslr)
    assert not (half / "left-over.flac").exists()


def test_no_network_and_no_room_are_one_line(tmp_path, capsys, monkeypatch):
    offline = ["--base_url", "http://127.0.0.1:9"]
    message = refused(capsys, tmp_path, None, TEST, extra=offline)
    assert "test-clean.tar.gz: cannot be fetched" in message
    assert list((tmp_path / "downloads").iterdir()) == []
    usage = type("Usage", (), {"free": 5e9})
    monkeypatch.setattr(fetch_librispeech.shutil, "disk_usage", lambda path: usage)
    message = refused(capsys, tmp_path, None, "train_100", extra=offline)
    assert "train-clean-100 need about 13 GB of disk, 5 GB are free" in message


def test_the_language_model_is_fetched_once(openslr, corpus, tmp_path, monkeypatch):
    site = tmp_path / "site" / "11"
    site.mkdir(parents=True)
    for name in fetch_librispeech.LM_MD5:
        (site / name).write_text(name)
        monkeypatch.setitem(fetch_librispeech.LM_MD5, name, fetch_librispeech.file_md5(site / name))
    for _ in range(2):
        prepare(tmp_path, corpus, TEST, extra=[*openslr, "--lm", "true"])
    assert [path for path, _ in RangeServer.asked] == [
        "/11/4-gram.arpa.gz",
        "/11/librispeech-vocab.txt",
    ]
    assert (tmp_path / "downloads" / "lm" / "4-gram.arpa.gz").read_text() == "4-gram.arpa.gz"
