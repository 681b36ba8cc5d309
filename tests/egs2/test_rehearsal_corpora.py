"""Miniature corpora have the layout of the real ones: lhotse's own recipes read them."""

import gzip
import math
import re
import shutil
from types import SimpleNamespace

import make_librispeech
import make_voxceleb
import numpy as np
import pytest
import soundfile
from clips import draw, read_clips
from lhotse.recipes import librispeech as lhotse_librispeech
from lhotse.recipes import voxceleb as lhotse_voxceleb
from make_lm import BOS, EOS, WittenBell, make, read_sentences

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_table

RATE, SPEAKERS, CLIPS, SECONDS = 8000, 23, 7, 4.2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A Kaldi-style directory whose paths are relative to another folder, as the demo's are."""
    root = tmp_path_factory.mktemp("source")
    tables = {"wav.scp": {}, "utt2spk": {}, "text": {}}
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, int(SECONDS * RATE))
    for speaker in range(SPEAKERS):
        for number in range(CLIPS):
            key = f"S{speaker:02d}-{number}"
            soundfile.write(root / f"{key}.flac", noise * (1 + number) / CLIPS, RATE)
            tables["wav.scp"][key] = f"{key}.flac"
            tables["utt2spk"][key] = f"S{speaker:02d}"
            tables["text"][key] = f"don't say number {'abcdefg'[number]} twice"
    (root / "data").mkdir()
    for name, table in tables.items():
        write_table(root / "data" / name, table)
    return root


@pytest.fixture(scope="module")
def speakers(source):
    return read_clips([source / "data"], source, 1.5, 5.0)


@pytest.fixture(scope="module")
def libri(speakers, tmp_path_factory):
    outdir = tmp_path_factory.mktemp("libri")
    return SimpleNamespace(
        root=outdir / "LibriSpeech", counts=make_librispeech.make(speakers, outdir)
    )


def test_lhotse_reads_every_part_of_librispeech(libri):
    """Fails if a folder, a file name or a transcript is not where LibriSpeech has it."""
    manifests = lhotse_librispeech.prepare_librispeech(libri.root)
    assert set(manifests) == set(lhotse_librispeech.LIBRISPEECH)
    assert sum(libri.counts.values()) == 104
    readers = []
    for part, found in manifests.items():
        assert len(found["recordings"]) == len(found["supervisions"]) == libri.counts[part]
        assert {r.sampling_rate for r in found["recordings"]} == {16000}
        readers.append({s.speaker for s in found["supervisions"]})
        assert all(s.text == s.text.upper() for s in found["supervisions"])
    assert len(set().union(*readers)) == sum(map(len, readers)), "a reader in two parts"


def test_librispeech_is_16_bit_flac_with_its_tables(libri):
    files = sorted(libri.root.rglob("*.flac"))
    assert len(files) == 104
    shape = re.compile(r"[a-z]+-[a-z]+(-\d+)?/(\d+)/(\d+)/\2-\3-\d{4}\.flac")
    assert all(shape.fullmatch(file.relative_to(libri.root).as_posix()) for file in files)
    info = soundfile.info(files[0])
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    rows = (libri.root / "SPEAKERS.TXT").read_text().splitlines()[1:]
    listed = {tuple(field.strip() for field in row.split("|"))[:3:2] for row in rows}
    assert listed == {(f.parts[-3], f.parts[-4]) for f in files}
    chapters = (libri.root / "CHAPTERS.TXT").read_text().splitlines()[1:]
    assert {row.split("|")[0].strip() for row in chapters} == {f.parts[-2] for f in files}


def test_spelling():
    assert make_librispeech.spoken('don\'t - say, "it"') == "DON'T SAY IT"


@pytest.fixture(scope="module")
def vox(speakers, tmp_path_factory):
    root = tmp_path_factory.mktemp("vox")
    return SimpleNamespace(root=root, counts=make_voxceleb.make(speakers, root, merged=True))


def test_lhotse_reads_voxceleb1(vox, tmp_path, monkeypatch):
    """Fails if the layout, vox1_meta.csv or the trials are not as lhotse knows them."""
    monkeypatch.chdir(tmp_path)
    fetch = lambda url, filename: shutil.copy(vox.root / "veri_test.txt", filename)  # noqa: E731
    monkeypatch.setattr(lhotse_voxceleb, "resumable_download", fetch)
    manifests = lhotse_voxceleb.prepare_voxceleb(voxceleb1_root=vox.root)
    for split, part in (("train", "dev"), ("test", "test")):
        assert len(manifests[split]["recordings"]) == vox.counts[part]
    assert len({s.speaker for s in manifests["train"]["supervisions"]}) == 10
    pairs = [manifests[f"{kind}_trials"][0] for kind in ("pos", "neg")]
    assert [len(side) for side in pairs] == [vox.counts["trials"] // 2] * 2


def test_voxceleb_archives_side_by_side(speakers, vox, tmp_path):
    """Fails if dev and test are mixed up where they are unpacked apart."""
    make_voxceleb.make(speakers, tmp_path)
    apart = {f"{f.parent.parent.parent.parent.name}/{f.parts[-3]}" for f in tmp_path.rglob("*.wav")}
    assert apart == {f"dev/{s}" for s in make_voxceleb.DEV} | {
        f"test/{s}" for s in make_voxceleb.TEST
    }
    for name in ("vox1_meta.csv", "iden_split.txt", "veri_test.txt", "veri_test2.txt"):
        assert (tmp_path / name).read_text() == (vox.root / name).read_text()


def test_lists_of_voxceleb1(vox):
    files = {f.relative_to(vox.root / "wav").as_posix() for f in vox.root.rglob("*.wav")}
    split = [line.split() for line in (vox.root / "iden_split.txt").read_text().splitlines()]
    assert {name for _, name in split} == files
    by_speaker = {name[:7]: set() for name in files}
    for label, name in split:
        by_speaker[name[:7]].add(label)
        assert re.fullmatch(r"id1\d{4}/[\w-]{11}/\d{5}\.wav", name)
    assert set(map(frozenset, by_speaker.values())) == {frozenset("123")}
    assert any("/-" in name for name in files), "no video begins with a dash, as some do"
    lists = [(vox.root / f"veri_test{n}.txt").read_text().splitlines() for n in ("", "2")]
    assert set(lists[1]) < set(lists[0])
    for line in lists[0]:
        label, first, second = line.split(" ")
        assert (label == "1") == (first[:7] == second[:7])
        assert first != second and {first, second} <= files
        assert {first[:7], second[:7]} <= set(make_voxceleb.TEST)


def test_a_source_too_small_is_refused(source, speakers, tmp_path):
    few = dict(list(speakers.items())[:5])
    with pytest.raises(DataError, match="needs 14 speakers, the source has 5"):
        make_voxceleb.make(few, tmp_path)
    short = read_clips([source / "data"], source, 5.0, 9.0)
    assert short == {}
    with pytest.raises(DataError, match="needs 9 clips of speaker S00, the source has 7"):
        draw(speakers, [9], "it")


def test_four_gram_sums_to_one(libri, tmp_path):
    """Fails if the ARPA file is no probability distribution, in whatever history."""
    sentences = read_sentences(libri.root)
    size = make(sentences, tmp_path)
    assert len((tmp_path / "librispeech-vocab.txt").read_text().split()) == size
    assert all("\t" in line for line in (tmp_path / "librispeech-lexicon.txt").open())
    table, order, counts = {}, 0, {}
    for line in gzip.decompress((tmp_path / "4-gram.arpa.gz").read_bytes()).decode().splitlines():
        if head := re.fullmatch(r"\\(\d)-grams:", line):
            order = int(head[1])
        elif count := re.fullmatch(r"ngram (\d)=(\d+)", line):
            counts[int(count[1])] = int(count[2])
        elif order and "\t" in line:
            log, ngram, *backoff = line.split("\t")
            table[tuple(ngram.split(" "))] = float(log), float(backoff[0]) if backoff else 0.0
    assert {n: sum(len(ngram) == n for ngram in table) for n in range(1, 5)} == counts

    def log_probability(word, history):  # as the format defines it
        if (*history, word) in table:
            return table[(*history, word)][0]
        return table.get(history, (0, 0.0))[1] + log_probability(word, history[1:])

    words = [ngram[0] for ngram in table if len(ngram) == 1 and ngram != (BOS,)]
    histories = [(), *(ngram for ngram in table if len(ngram) < 4 and ngram[-1] != EOS)]
    for history in histories:
        total = sum(10 ** log_probability(word, history) for word in words)
        assert total == pytest.approx(1, abs=1e-3), history
    model = WittenBell(sentences)
    seen = (BOS, "DON'T", "SAY")
    assert math.log10(model.probability("NUMBER", seen)) == pytest.approx(
        log_probability("NUMBER", seen), abs=1e-5
    )
    assert model.probability("NUMBER", seen) > 0.9
