"""Shards in lhotse's Shar format from a prepared directory."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from espnet_star.data.errors import DataError, Dropped, some
from espnet_star.data.extras import require_lhotse
from espnet_star.data.kaldi import read_counts, read_table, read_wav_scp, write_lines
from espnet_star.data.levels import check_peak, peak_of
from espnet_star.data.parallel import parallel
from espnet_star.data.recording import read_bytes
from espnet_star.data.shard_index import FIELDS, FORMAT, INDEX, index_content, shard_entry

# Apart from the index, which lhotse would take for one more field of the shards.
FOLDER = "shar"
WORK = ".shards"
_SHARD_FILE = re.compile(r"\.?(cuts\.\d{6,}\.jsonl\.gz|recording\.\d{6,}\.tar)")


@dataclass(frozen=True)
class ShardOptions:
    """How shards are written.

    Attributes:
        size: Utterances of a shard, about.
        seconds: Seconds of a shard, about, in place of ``size``.
        min_shards: At least so many, where there are as many utterances: every rank and
            data loading process needs one of its own.
        audio_format: ``flac`` or ``wav`` (16 bit); FLAC files are copied as they are.
        fs: Sampling rate that all audio has, in Hz.
        seed: Of the order of utterances.
    """

    size: int = 1000
    seconds: float | None = None
    min_shards: int = 32
    audio_format: str = "flac"
    fs: int = 16000
    seed: int = 0


class Item(NamedTuple):
    """An utterance to write."""

    key: str
    path: str
    samples: int
    text: str | None
    speaker: str | None


class Work(NamedTuple):
    """A shard to write."""

    number: int
    items: list[Item]
    outdir: str
    options: ShardOptions


def write_shards(
    datadir: str | Path, outdir: str | Path, options: ShardOptions, nj: int = 1
) -> dict[str, Any]:
    """Write shards and, last, their index.

    Utterances are shuffled first, so that each shard is a sample of all. A run that was
    stopped goes on with the shards that are missing; a finished one is not repeated.

    Args:
        datadir: Directory with ``wav.scp`` and ``utt2num_samples``; ``text`` and
            ``utt2spk`` go into the cuts.
        outdir: Gets the index ``shards.json`` and a folder ``shar``, which lhotse reads.
        options: See `ShardOptions`.
        nj: Processes.

    Returns:
        Content of the index, with ``up_to_date`` where an earlier run had written it.

    Raises:
        DataError: If tables disagree, an utterance is not as the tables say, ``outdir``
            holds files of someone else, or the disk is full.
    """
    require_lhotse("shar.writers.tar", "shards")
    source, target = Path(datadir), Path(outdir)
    items = read_items(source)
    fingerprint = _fingerprint(source, options)
    try:
        finished = _finished(target, fingerprint)
        if finished is not None:
            return {**finished, "up_to_date": True}
        _make_room(target, fingerprint)
        dealt = deal(items, options)
        work = [Work(n, part, str(target), options) for n, part in enumerate(dealt)]
        left = [job for job in work if not _entry_file(target, job.number).exists()]
        for _ in parallel(write_shard, left, nj):
            pass
        entries = (json.loads(_entry_file(target, job.number).read_text()) for job in work)
        about = {"audio_format": options.audio_format, "fingerprint": fingerprint}
        content = index_content(entries, options.fs, **about)
        write_lines(target / INDEX, [json.dumps(content)])
        _remove_work(target)
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: cannot be read or written ({error.strerror or error}); "
            "the same command goes on where it stopped"
        ) from error
    return {**content, "up_to_date": False}


def read_items(source: Path) -> list[Item]:
    """Utterances of a prepared directory, which must have some and tables that agree."""
    wavs, counts = read_wav_scp(source / "wav.scp"), read_counts(source / "utt2num_samples")
    if not wavs:
        raise DataError(f"{source / 'wav.scp'} is empty; prepare the directory first")
    if wavs.keys() != counts.keys():
        raise DataError(
            f"{source}: wav.scp and utt2num_samples disagree about "
            f"{some(sorted(wavs.keys() ^ counts.keys()))}; prepare the directory again"
        )
    labels = {
        name: read_table(source / name, allow_empty=name == "text")
        for name in ("text", "utt2spk")
        if (source / name).exists()
    }
    for key in wavs:
        if not _is_member_name(key):
            raise DataError(f"{source / 'wav.scp'}: {key} cannot be a file's name in a shard")
    text, speakers = labels.get("text", {}), labels.get("utt2spk", {})
    return [Item(k, wavs[k], counts[k], text.get(k), speakers.get(k)) for k in sorted(wavs)]


def _is_member_name(key: str) -> bool:
    # lhotse finds an utterance by the name of its file without ending.
    path = Path(f"{key}.flac")
    return str(path.parent / path.stem) == key and not path.is_absolute() and ".." not in path.parts


def deal(items: Sequence[Item], options: ShardOptions) -> list[list[Item]]:
    """Shuffle utterances and cut them into shards of equal size."""
    order = np.random.default_rng(options.seed).permutation(len(items))
    shuffled = [items[place] for place in order]
    if options.seconds is not None:
        cost, size = np.array([item.samples / options.fs for item in shuffled]), options.seconds
    else:
        cost, size = np.ones(len(items)), float(options.size)
    number = min(max(int(np.ceil(cost.sum() / size - 1e-9)), options.min_shards), len(items))
    # The middle of an utterance says where it belongs.
    place = ((np.cumsum(cost) - cost / 2) / cost.sum() * number).astype(int)
    shards: list[list[Item]] = [[] for _ in range(number)]
    for item, shard in zip(shuffled, place.clip(0, number - 1), strict=True):
        shards[shard].append(item)
    return [shard for shard in shards if shard]


def _fingerprint(source: Path, options: ShardOptions) -> dict[str, Any]:
    names = ("wav.scp", "utt2num_samples", "text", "utt2spk")
    content = {name: (source / name).read_bytes() for name in names if (source / name).exists()}
    digests = {name: hashlib.sha256(held).hexdigest() for name, held in content.items()}
    return {"options": asdict(options), "inputs": digests}


def _finished(target: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    if not (target / INDEX).exists():
        return None
    try:
        content = json.loads((target / INDEX).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content.get("fingerprint") != fingerprint:
            return None
        files = [shard[name] for shard in content["shards"] for name in FIELDS]
        whole = all((target / file["name"]).stat().st_size == file["bytes"] for file in files)
    except (json.JSONDecodeError, TypeError, KeyError, FileNotFoundError):
        return None
    return content if whole else None


def _make_room(target: Path, fingerprint: dict[str, Any]) -> None:
    folder, work = target / FOLDER, target / WORK
    plan = work / "plan.json"
    ours = (target / INDEX).exists() or work.exists()
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise DataError(
            f"{folder} holds files that star_data shards did not write; give another --output_dir"
        )
    if not plan.exists() or json.loads(plan.read_text(encoding="utf-8")) != fingerprint:
        _remove_work(target)
        # Without the index nobody takes for whole what is being replaced.
        work.mkdir(parents=True)
        (target / INDEX).unlink(missing_ok=True)
        for path in folder.glob("*") if folder.exists() else ():
            if _SHARD_FILE.fullmatch(path.name):
                path.unlink()
        write_lines(plan, [json.dumps(fingerprint)])
    folder.mkdir(parents=True, exist_ok=True)


def _remove_work(target: Path) -> None:
    work = target / WORK
    if work.exists():
        # The plan last: without it the entries mean nothing.
        for path in sorted(work.iterdir(), key=lambda path: path.name == "plan.json"):
            path.unlink()
        work.rmdir()


def _entry_file(target: Path, number: int) -> Path:
    return target / WORK / f"{number:06d}.json"


def write_shard(work: Work) -> None:
    """Write one shard; its entry, written last, says that it is whole.

    Raises:
        DataError: Naming an utterance that is not as the tables say.
    """
    tar = require_lhotse("shar.writers.tar", "shards").TarWriter
    jsonl = require_lhotse("shar.writers.cut", "shards").JsonlShardWriter
    target, options = Path(work.outdir), work.options
    folder = target / FOLDER
    files = {
        "cuts": folder / f"cuts.{work.number:06d}.jsonl.gz",
        "recording": folder / f"recording.{work.number:06d}.tar",
    }
    partial = {name: path.with_name(f".{path.name}") for name, path in files.items()}
    with (
        tar(str(partial["recording"]), shard_size=None) as audio,
        jsonl(str(partial["cuts"]), shard_size=None) as cuts,
    ):
        for item in work.items:
            cut = make_cut(item, options.fs)
            audio.write(f"{item.key}.{options.audio_format}", io.BytesIO(encoded(item, options)))
            told = json.dumps(cut.recording.to_dict(), ensure_ascii=False).encode()
            audio.write(f"{item.key}.json", io.BytesIO(told), count=False)
            cuts.write(cut)
    for name, path in files.items():
        partial[name].replace(path)
    lengths = {item.key: item.samples for item in work.items}
    entry = shard_entry(files, target, lengths, options.fs)
    write_lines(_entry_file(target, work.number), [json.dumps(entry)])


def make_cut(item: Item, fs: int) -> Any:
    """Cut of an utterance, as lhotse has it, whose audio is in the tar file beside it."""
    lhotse = require_lhotse("", "shards")
    duration = item.samples / fs
    recording = lhotse.Recording(
        id=item.key,
        sources=[lhotse.AudioSource(type="shar", channels=[0], source="")],
        sampling_rate=fs,
        num_samples=item.samples,
        duration=duration,
        channel_ids=[0],
    )
    cut = lhotse.MonoCut(id=item.key, start=0, duration=duration, channel=0, recording=recording)
    if item.text is not None or item.speaker is not None:
        cut.supervisions = [
            lhotse.SupervisionSegment(
                item.key, item.key, 0, duration, text=item.text, speaker=item.speaker
            )
        ]
    return cut


def encoded(item: Item, options: ShardOptions) -> bytes:
    """Bytes of an utterance in the shards' format, decoded once to be sure of it.

    Raises:
        DataError: Naming the utterance, if it is missing, cut short or of another rate or range.
    """
    try:
        content = read_bytes(item.path)
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            found = sound.samplerate, sound.channels
            kind = sound.format
            # Not all of it: a header may promise more than memory holds.
            samples = sound.read(item.samples + 1, dtype="float32", always_2d=True)
        check_peak(peak_of(samples))
    except (Dropped, OSError, soundfile.SoundFileError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error).split(": ")[-1]
        raise DataError(
            f"{item.key}: {item.path} cannot be read ({reason}); prepare the directory again"
        ) from None
    if found != (options.fs, 1) or len(samples) != item.samples:
        raise DataError(
            f"{item.key}: {item.path} has {len(samples)} samples of {found[1]} channels at "
            f"{found[0]} Hz, expected {item.samples} of one at {options.fs} Hz; prepare the "
            "directory with star_data prepare"
        )
    if kind.lower() == options.audio_format == "flac":
        return content
    stream = io.BytesIO()
    soundfile.write(
        stream, samples, options.fs, format=options.audio_format.upper(), subtype="PCM_16"
    )
    return stream.getvalue()
