"""Shards are read; a bug here trains on other batches than planned, or hides a broken shard."""

import functools
import http.server
import json
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
import soundfile

from espnet_star.bin import star_data
from espnet_star.data import shard_stream as module
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.data.shard_index import locate, read_index
from espnet_star.data.shard_plan import Segment, batch_rule
from espnet_star.data.shard_stream import (
    Failure,
    ShardStream,
    StreamOptions,
    cut_evenly,
    mixed,
)


def keep(batch):
    return batch


def stream(place, batch_seconds=1.5, **options):
    index = read_index([str(place)])
    rule = batch_rule(index, round(batch_seconds * 16000), None, 30.0, 4)
    return ShardStream(index, rule, StreamOptions(**options), keep)


def one_pass(reader, number=0, skip=0):
    """Batches of a pass, from one on."""
    reader.start_at(number, skip)
    batches = iter(reader)
    found = []
    for _ in range(reader.steps(number) - skip):
        found.append(next(batches))
        if isinstance(found[-1], Failure):
            raise DataError(found[-1].message)
    return found


def keys(batches):
    return [[key for key, _ in batch] for batch in batches]


def test_a_pass_holds_every_utterance_once_bit_for_bit(shards, many_directory):
    """Fails if audio from shards differs from the files', or an utterance is lost."""
    batches = one_pass(stream(shards, buffer=5))
    wavs = read_wav_scp(many_directory / "wav.scp")
    found = dict(pair for batch in batches for pair in batch)
    assert found.keys() == wavs.keys()
    assert sum(map(len, batches)) == len(wavs)
    for key, data in found.items():
        expected = soundfile.read(wavs[key], dtype="float32")[0]
        np.testing.assert_array_equal(data["speech"], expected)
    for batch in batches:
        lengths = [len(data["speech"]) for _, data in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert len(lengths) * lengths[0] <= 1.5 * 16000


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("segment", [2, 500])
def test_ranks_share_a_pass_in_equal_steps(shards, many_directory, world, segment):
    """Fails if ranks go apart: with DDP, they would wait for each other for ever."""
    ranks = [
        one_pass(stream(shards, slots=world, first_slot=rank, segment=segment, buffer=4), 3)
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    together = Counter(key for batches in ranks for batch in keys(batches) for key in batch)
    assert together == dict.fromkeys(read_wav_scp(many_directory / "wav.scp"), 1)


@pytest.mark.parametrize("segment", [2, 500])
def test_from_any_batch_on_it_is_the_same_pass(shards, segment):
    """Fails if a resumed run sees other batches than the one that was stopped."""
    reader = stream(shards, segment=segment, buffer=4, seed=2)
    whole = keys(one_pass(reader, 1))
    for skip in range(len(whole)):
        assert keys(one_pass(reader, 1, skip)) == whole[skip:]
    assert keys(one_pass(reader, 0)) != whole
    assert keys(one_pass(stream(shards, segment=segment, buffer=4, seed=1), 1)) != whole


def test_without_shuffle_every_pass_is_the_same(shards):
    reader = stream(shards, shuffle=False)
    assert keys(one_pass(reader, 0)) == keys(one_pass(reader, 1))


def test_a_buffer_mixes_and_loses_nothing():
    random = np.random.default_rng(0)
    for size in (0, 1, 10, 1000):
        drawn = list(mixed(iter(range(100)), size, random))
        assert sorted(drawn) == list(range(100))
        assert (drawn == list(range(100))) is (size < 2)


@pytest.mark.parametrize(
    ("sizes", "more", "repeats"),
    [([4, 4, 4], 0, 0), ([4, 4, 4], 2, 0), ([4, 1, 1], 3, 0), ([1, 2, 6], 6, 0), ([1, 1], 0, 2)],
)
def test_batches_are_cut_to_the_number_that_is_wanted(sizes, more, repeats):
    clips = iter(range(sum(sizes)))
    batches = [[next(clips) for _ in range(size)] for size in sizes]
    segment = Segment((), sum(sizes), len(sizes), len(sizes) + more + repeats, repeats)
    made = list(cut_evenly(iter(batches), segment))
    assert len(made) == segment.batches
    expected = Counter(range(sum(sizes)))
    expected.update(range(repeats))
    assert Counter(clip for batch in made for clip in batch) == expected


def test_shards_through_commands_and_http(shards):
    """Fails if shards of an object store are read differently, or not at all."""
    pytest.importorskip("smart_open", reason="pip install espnet_star[shards]")
    expected = keys(one_pass(stream(shards)))
    # The name at the end, in the middle, and followed by another path.
    for command in ("cat {}", "dd if={} bs=1k status=none", "cat {} | tee /dev/null"):
        place = f"pipe:{command.replace('{}', f'{shards}/{{}}')}"
        assert keys(one_pass(stream(place))) == expected

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = keys(one_pass(stream(f"http://127.0.0.1:{server.server_port}/")))
        server.shutdown()
    assert found == expected


@pytest.mark.parametrize("first", ["head -c 6000", "false"])
def test_a_store_that_fails_once_is_asked_again(shards, tmp_path, monkeypatch, first):
    """Fails if one dropped connection ends a training, or doubles utterances."""
    monkeypatch.setattr(module, "PAUSE", 0.0)
    script = tmp_path / "flaky"
    # The first request of each file is cut short, or refused.
    script.write_text(
        f"#!/bin/sh\nmark={tmp_path}/$(basename $1)\n"
        f'if [ -e "$mark" ] || [ $(basename $1) = shards.json ]; then cat {shards}/$1\n'
        f'else touch "$mark"; {first} {shards}/$1; fi\n'
    )
    script.chmod(0o755)
    found = one_pass(stream(f"pipe:{script} {{}}"))
    assert keys(found) == keys(one_pass(stream(shards)))


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def test_a_missing_or_truncated_shard_is_named_before_training(copy):
    path = copy / "shar" / "recording.000004.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"recording.000004.tar: the index says \d+ bytes, the"):
        read_index([str(copy)]).check_files()
    path.unlink()
    with pytest.raises(DataError, match=r"recording.000004.tar: missing; copy"):
        read_index([str(copy)]).check_files()


@pytest.mark.parametrize("name", ["recording.000004.tar", "cuts.000004.jsonl.gz"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.7, None])
def test_a_broken_shard_is_named_while_it_is_read(copy, name, part):
    """Fails if a shard that breaks during training is skipped in silence."""
    path = copy / "shar" / name
    content = path.read_bytes()
    path.unlink() if part is None else path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match=r"recording.000004.tar"):
        one_pass(stream(copy))


def test_audio_that_is_not_what_the_shard_says_is_named(copy):
    """Fails if a broken clip ends training without its name."""
    path = copy / "shar" / "recording.000002.tar"
    content = bytearray(path.read_bytes())
    # The audio of the first utterance, after the header of the tar file.
    content[512:1536] = bytes(1024)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"recording.000002.tar: s\d/u\d\d cannot be decoded"):
        one_pass(stream(copy))


def edit(copy, change):
    content = json.loads((copy / "shards.json").read_text())
    change(content)
    (copy / "shards.json").write_text(json.dumps(content))


def swap(content):
    first, second = content["shards"][:2]
    first["cuts"], second["cuts"] = second["cuts"], first["cuts"]
    first["recording"], second["recording"] = second["recording"], first["recording"]


def test_an_index_that_disagrees_with_the_shards_is_found(copy):
    edit(copy, swap)
    with pytest.raises(DataError, match=r"recording.00000[01].tar: holds other utterances than"):
        one_pass(stream(copy))


def test_a_shard_of_another_rate_is_named(copy):
    edit(copy, lambda content: content.update(fs=8000))
    with pytest.raises(DataError, match=r"has 16000 Hz, expected 8000 Hz"):
        one_pass(stream(copy))


def test_a_shard_cannot_make_lhotse_run_a_command(copy, tmp_path):
    """Fails if shards of a stranger run code."""
    lhotse = pytest.importorskip("lhotse", reason="pip install espnet_star[shards]")
    path = copy / "shar" / "cuts.000000.jsonl.gz"
    first, *others = lhotse.load_manifest(path)
    source = {"type": "command", "channels": [0], "source": f"touch {tmp_path}/run"}
    recording = lhotse.Recording.from_dict(first.recording.to_dict() | {"sources": [source]})
    mixed_cut = first.mix(lhotse.fastcopy(first, recording=recording))
    assert type(mixed_cut).__name__ == "MixedCut"
    lhotse.CutSet.from_cuts([mixed_cut.with_id(first.id), *others]).to_file(path)
    with pytest.raises(DataError, match=r"is more than one piece of mono audio in the shard"):
        one_pass(stream(copy))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), r"has format 2, this version reads 1; update"),
        (lambda c: c.pop("shards"), r"not an index of shards \(KeyError"),
        (lambda c: c.update(shards=[]), r"holds no utterances"),
        (lambda c: c["shards"].pop(), r"says 24 utterances, its shards sum up to 21"),
        (lambda c: c["shards"][0].update(utterances=1), r"not an index of shards .*lengths of 3"),
        (lambda c: c["shards"][0]["cuts"].update(name="../x"), r"'\.\./x' is no name of a shard"),
        (lambda c: c["shards"][0]["cuts"].update(name="x;rm"), r"'x;rm' is no name of a shard"),
        (lambda c: c.update(root="pipe:rm {}"), r"root must be a directory or URL"),
    ],
)
def test_a_bad_index_is_named(copy, change, message):
    """Fails if an index leads out of its folder, into a command, or to wrong counts."""
    edit(copy, change)
    with pytest.raises(DataError, match=message):
        read_index([str(copy)])


def test_no_index_is_an_error_that_says_what_to_do(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"has no shards.json; star_data shards writes"):
            read_index([str(place)])
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(DataError, match=r"shards.json: cannot be read"):
        read_index([str(tmp_path)])
    with pytest.raises(DataError, match=r"pipe:false \{\}: has no|pipe:.*cannot be read"):
        read_index(["pipe:false {}"])
    with pytest.raises(DataError, match=r"a command needs \{\}"):
        read_index(["pipe:cat x"])
    with pytest.raises(DataError, match=r"no shards given"):
        read_index([])


def test_places_are_put_together_and_located(shards, copy):
    index = read_index([str(shards), str(copy)])
    assert (index.utterances, len(index.sources)) == (48, 16)
    assert locate("s3://b/x/", "a.tar") == "s3://b/x/a.tar"
    assert locate("pipe:get {} -", "a.jsonl.gz") == "pipe:get a.jsonl.gz - | gunzip -c # .jsonl"
    edit(copy, lambda content: content.update(fs=8000))
    with pytest.raises(DataError, match=r"of 8000 Hz, .* of 16000 Hz"):
        read_index([str(shards), str(copy)])


def test_shards_are_checked(copy, capsys):
    """Fails if a check before training passes shards that the training refuses."""
    star_data.main(["check", "--data_dir", str(copy)])
    out = capsys.readouterr().out
    assert "24 utterances, 10 s; 3 audio files decoded" in out
    star_data.main(["check", "--data_dir", str(copy), "--full", "true"])
    out = capsys.readouterr().out
    assert "24 audio files decoded" in out and "  0 to   1 s       24" in out
    path = copy / "shar" / "recording.000007.tar"
    content = bytearray(path.read_bytes())
    content[512:1536] = bytes(1024)
    path.write_bytes(content)
    for options, message in [
        (["--full", "true"], "recording.000007.tar"),
        (["--fs", "8000"], "expected 8000 Hz, the index says 16000 Hz"),
        (["--need", "text"], "are not there for shards"),
    ]:
        with pytest.raises(SystemExit):
            star_data.main(["check", "--data_dir", str(copy), *options])
        assert message in capsys.readouterr().err
