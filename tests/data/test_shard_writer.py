"""Shards are written; a bug here loses, doubles or spoils utterances before training begins."""

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_star.bin import star_data
from espnet_star.data import shard_writer as module
from espnet_star.data.checks import BINS
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_counts, read_wav_scp
from espnet_star.data.shard_index import read_index
from espnet_star.data.shard_writer import Item, ShardOptions, deal, write_shards

lhotse = pytest.importorskip("lhotse", reason="pip install espnet_star[shards]")


@pytest.fixture
def prepared(make_source, tone):
    """A prepared directory of six clips with labels."""
    keys = [f"spk/{n}.x" for n in range(6)]
    audio = {f"u{n}": (tone(0.2 + n / 10), 16000, "flac") for n in range(6)}
    directory = make_source(audio, "prepared")
    text = (directory / "wav.scp").read_text()
    for place, key in enumerate(keys):
        text = text.replace(f"u{place} ", f"{key} ", 1)
    (directory / "wav.scp").write_text(text)
    lengths = {key: int((0.2 + n / 10) * 16000) for n, key in enumerate(keys)}
    for name, table in {
        "utt2num_samples": lengths,
        "text": {key: f"WORDS {key}" for key in keys} | {keys[0]: ""},
        "utt2spk": dict.fromkeys(keys, "anna"),
    }.items():
        (directory / name).write_text("".join(f"{k} {v}\n" for k, v in table.items()))
    return directory


def test_lhotse_reads_what_was_written(prepared, tmp_path):
    """Fails if any other program that reads Shar sees other audio, text or speakers."""
    write_shards(prepared, tmp_path / "out", ShardOptions(size=2, min_shards=1))
    cuts = {cut.id: cut for cut in lhotse.CutSet.from_shar(in_dir=tmp_path / "out" / "shar")}
    wavs, counts = read_wav_scp(prepared / "wav.scp"), read_counts(prepared / "utt2num_samples")
    assert cuts.keys() == wavs.keys()
    for key, cut in cuts.items():
        expected, rate = soundfile.read(wavs[key], dtype="float32")
        assert (cut.num_samples, cut.sampling_rate) == (counts[key], rate)
        np.testing.assert_array_equal(cut.load_audio()[0], expected)
        assert cut.supervisions[0].speaker == "anna"
    assert cuts["spk/3.x"].supervisions[0].text == "WORDS spk/3.x"


def test_the_index_adds_up(prepared, tmp_path):
    write_shards(prepared, tmp_path / "out", ShardOptions(seconds=0.9, min_shards=1))
    content = json.loads((tmp_path / "out" / "shards.json").read_text())
    counts = read_counts(prepared / "utt2num_samples")
    assert content["utterances"] == 6
    assert content["samples"] == sum(counts.values())
    assert content["hours"] == pytest.approx(sum(counts.values()) / 16000 / 3600)
    assert content["longest"] == {"utterance": "spk/5.x", "samples": 11200}
    assert content["histogram"] == {"seconds": list(BINS), "utterances": [6] + [0] * 7}
    assert [shard["samples"] for shard in content["shards"]] != [content["samples"]]
    index = read_index([str(tmp_path / "out")])
    assert (index.utterances, index.fs, len(index.sources)) == (6, 16000, 3)
    index.check_files()


def test_wav_shards_written_in_other_processes(prepared, tmp_path, monkeypatch):
    """Fails if what is sent to a process cannot be sent, or the format is not honored."""
    monkeypatch.setattr(
        module, "parallel", lambda work, jobs, nj: map(work, pickle.loads(pickle.dumps(jobs)))
    )
    write_shards(prepared, tmp_path, ShardOptions(size=3, min_shards=1, audio_format="wav"), 2)
    cuts = list(lhotse.CutSet.from_shar(in_dir=tmp_path / "shar"))
    assert cuts[0].load_audio().shape == (1, cuts[0].num_samples)
    with tarfile.open(tmp_path / "shar" / "recording.000001.tar") as tar:
        names = tar.getnames()
    assert [name.rsplit(".", 1)[1] for name in names] == ["wav", "json"] * 3


def test_a_stopped_run_goes_on_and_a_finished_one_is_not_repeated(prepared, tmp_path, monkeypatch):
    """Fails if a kill after many hours costs them, or leaves something that looks whole."""
    out, options = tmp_path / "out", ShardOptions(size=1, min_shards=1)
    write, seen = module.write_shard, []

    def dies(work):
        seen.append(work.number)
        if len(seen) == 4:
            raise KeyboardInterrupt
        write(work)

    monkeypatch.setattr(module, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        write_shards(prepared, out, options)
    assert not (out / "shards.json").exists()
    assert write_shards(prepared, out, options)["up_to_date"] is False
    assert seen == [0, 1, 2, 3, 3, 4, 5]
    assert write_shards(prepared, out, options)["up_to_date"] is True
    assert len(seen) == 7
    assert {p.name for p in out.iterdir()} == {"shar", "shards.json"}
    monkeypatch.undo()
    # A shard that went missing is written again; other options leave nothing of before.
    next(out.glob("shar/*.tar")).unlink()
    assert write_shards(prepared, out, options)["up_to_date"] is False
    write_shards(prepared, out, ShardOptions(size=6, min_shards=1))
    assert len(list((out / "shar").iterdir())) == 2


def test_files_of_others_are_left_alone(prepared, tmp_path):
    (tmp_path / "shar").mkdir()
    (tmp_path / "shar" / "cuts.000000.jsonl.gz").write_text("mine")
    with pytest.raises(DataError, match=r"shar holds files that star_data shards did not write"):
        write_shards(prepared, tmp_path, ShardOptions())
    assert (tmp_path / "shar" / "cuts.000000.jsonl.gz").read_text() == "mine"


def items(lengths):
    return [Item(f"u{n}", "", samples, None, None) for n, samples in enumerate(lengths)]


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (ShardOptions(size=10, min_shards=1), 10),
        (ShardOptions(size=1000, min_shards=32), 32),
        (ShardOptions(seconds=100.0, min_shards=1), 5),
        (ShardOptions(seconds=1e9, min_shards=20), 20),
    ],
)
def test_utterances_are_dealt_evenly(options, number):
    """Fails if a shard is much larger than the others, or an utterance is dealt twice."""
    lengths = [16000 * (1 + n % 9) for n in range(100)]
    dealt = deal(items(lengths), options)
    assert len(dealt) == number
    assert sorted(item.key for shard in dealt for item in shard) == sorted(
        item.key for item in items(lengths)
    )
    assert dealt[0][:3] != items(lengths)[:3]
    if options.seconds == 100.0:
        sizes = [sum(item.samples for item in shard) / 16000 for shard in dealt]
        assert max(sizes) - min(sizes) < 20


def test_bad_input_is_named(prepared, tmp_path, tone):
    def message(match):
        with pytest.raises(DataError, match=match):
            write_shards(prepared, tmp_path / "out", ShardOptions(min_shards=1))

    path = Path(read_wav_scp(prepared / "wav.scp")["spk/2.x"])
    soundfile.write(path, tone(0.4, 8000), 8000)
    message(r"spk/2.x: .* 3200 samples of 1 channels at 8000 Hz, expected 6400 of one at 16000")
    path.write_bytes(path.read_bytes()[:500])
    message(r"spk/2.x: .* samples|spk/2.x: .* cannot be read")
    path.unlink()
    message(r"spk/2.x: .*cannot be read \(.*No such file")
    (prepared / "utt2num_samples").write_text("spk/0.x 3200\n")
    message(r"wav.scp and utt2num_samples disagree about spk/1.x")
    for key in ("../up", "a//b", "/root"):
        (prepared / "utt2num_samples").write_text(f"{key} 3200\n")
        (prepared / "wav.scp").write_text(f"{key} {path}\n")
        message("cannot be a file's name in a shard")
    for name in ("wav.scp", "utt2num_samples"):
        (prepared / name).write_text("")
    message("is empty; prepare")


def test_shards_of_lhotse_get_an_index(prepared, tmp_path, capsys):
    """Fails if shards that other recipes wrote cannot be used, or counts differ from ours."""
    write_shards(prepared, tmp_path / "out", ShardOptions(size=2, min_shards=1))
    wavs = read_wav_scp(prepared / "wav.scp")
    recordings = [lhotse.Recording.from_file(wavs[key], recording_id=key) for key in wavs]
    cuts = lhotse.CutSet.from_cuts(recording.to_cut() for recording in recordings)
    (tmp_path / "theirs").mkdir()
    cuts.to_shar(tmp_path / "theirs", fields={"recording": "wav"}, shard_size=2)
    options = ["--shar", str(tmp_path / "theirs"), "--output_dir", str(tmp_path / "index")]
    star_data.main(["shards", *options, "--nj", "1"])
    assert "6 utterances, 3 s in 3 shards; longest spk/5.x" in capsys.readouterr().out
    index = read_index([str(tmp_path / "index")])
    index.check_files()
    ours = read_index([str(tmp_path / "out")])
    assert (index.counts.sum(axis=0) == ours.counts.sum(axis=0)).all()
    assert index.samples.sum() == ours.samples.sum()
    (tmp_path / "theirs" / "recording.000001.tar").unlink()
    with pytest.raises(SystemExit):
        star_data.main(["shards", *options])
    assert "for the same numbers (000001)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --data_dir and --shar"),
        (["--data_dir", "x", "--shar", "y"], "give one of --data_dir and --shar"),
        (["--data_dir", "x", "--shard_seconds", "0"], "--shard_seconds must be positive"),
        (["--shar", "/nowhere"], "expected cuts.NUMBER.jsonl.gz"),
    ],
)
def test_a_mistake_is_one_line(options, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        star_data.main(["shards", "--output_dir", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
