"""Index of shards: what each of them holds, so that ranks are balanced without reading any."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_star.data.checks import BINS
from espnet_star.data.errors import DataError
from espnet_star.data.extras import require_lhotse, store_reason
from espnet_star.errors import first_line

INDEX = "shards.json"
FORMAT = 1
FIELDS = ("cuts", "recording")
# Lengths that the index tells apart, upper ends in seconds, the last one open. Fine where
# speech is, so that batches can be counted from it. The first holds less than a few frames.
GRID = (
    0.05,
    *(half / 2 for half in range(1, 41)),
    *(float(second) for second in range(21, 41)),
    *(45.0, 50.0, 60.0, 80.0, 100.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0),
)
# Names end up in URLs and commands.
_NAME = re.compile(r"(?!.*\.\.)\w[\w.=+@/-]*", re.ASCII)


def grid_bins(samples: Any, fs: int) -> Any:
    """Place of each length in `GRID`: 0 for at most ``GRID[0]`` seconds, and so on.

    Args:
        samples: Lengths in samples.
        fs: Sampling rate in Hz.
    """
    return np.searchsorted(_edges(fs), samples, side="left")


@functools.lru_cache
def _edges(fs: int) -> np.ndarray:
    return np.round(np.asarray(GRID) * fs).astype(np.int64)


@dataclass(frozen=True)
class ShardIndex:
    """Shards of one or several places.

    Attributes:
        place: Where they are, for messages.
        fs: Sampling rate of all audio in Hz.
        sources: For each shard where its ``cuts`` and its ``recording`` are read from.
        sizes: Bytes of these files, for each shard in the order of `FIELDS`.
        counts: ``(shards, len(GRID) + 1)`` utterances of each length.
        samples: ``(shards,)`` samples of each shard.
        longest: Samples of the longest utterance.
    """

    place: str
    fs: int
    sources: list[dict[str, str]]
    sizes: list[tuple[int, ...]]
    counts: np.ndarray
    samples: np.ndarray
    longest: int

    @property
    def utterances(self) -> int:
        """Number of utterances."""
        return int(self.counts.sum())

    @property
    def hours(self) -> float:
        """Their length."""
        return float(self.samples.sum()) / self.fs / 3600

    def check_files(self) -> None:
        """Check that files on this machine are there, with the size that the index tells.

        Raises:
            DataError: Naming the first that is missing or of another size.
        """
        for source, sizes in zip(self.sources, self.sizes, strict=True):
            for name, size in zip(FIELDS, sizes, strict=True):
                if is_remote(source[name]):
                    continue
                path = Path(source[name])
                if not path.is_file():
                    raise DataError(f"{path}: missing; copy it again, or run star_data shards")
                if path.stat().st_size != size:
                    raise DataError(
                        f"{path}: the index says {size} bytes, the file has "
                        f"{path.stat().st_size}; copy it again, or run star_data shards"
                    )


def is_remote(location: str) -> bool:
    """Whether something is a URL or a command and no path."""
    return location.startswith("pipe:") or "://" in location


def has_shards(location: str) -> bool:
    """Whether a place is one of shards: a URL or command, or a directory with their index."""
    return is_remote(location) or (Path(location) / INDEX).is_file()


def locate(location: str, name: str) -> str:
    """Where a file of a place is read from, in the form that lhotse takes.

    Args:
        location: Directory, URL, or ``pipe:COMMAND`` with ``{}`` for the file's name.
        name: File below it.
    """
    if location.startswith("pipe:"):
        # lhotse goes by the ending of a path, which a command need not have.
        command = location.replace("{}", name)
        if name.endswith(".gz"):
            command, name = f"{command} | gunzip -c", name.removesuffix(".gz")
        return f"{command} # {Path(name).suffix}"
    if is_remote(location):
        return f"{location.rstrip('/')}/{name}"
    return str(Path(location) / name)


def read_index(locations: Sequence[str]) -> ShardIndex:
    """Read ``shards.json`` of each place and put them together.

    Args:
        locations: Directories, URLs or commands, see `locate`.

    Raises:
        DataError: If one is missing, empty or malformed, or sampling rates differ.
    """
    if not locations:
        raise DataError("no shards given; name at least one directory or URL")
    parts = [_read_one(location) for location in locations]
    for part in parts[1:]:
        if part.fs != parts[0].fs:
            raise DataError(
                f"{part.place} holds audio of {part.fs} Hz, {parts[0].place} of {parts[0].fs} Hz; "
                "prepare both at one rate"
            )
    return ShardIndex(
        place=" ".join(locations),
        fs=parts[0].fs,
        sources=[source for part in parts for source in part.sources],
        sizes=[size for part in parts for size in part.sizes],
        counts=np.concatenate([part.counts for part in parts]),
        samples=np.concatenate([part.samples for part in parts]),
        longest=max(part.longest for part in parts),
    )


def _read_one(location: str) -> ShardIndex:
    if location.startswith("pipe:") and "{}" not in location:
        raise DataError(f"{location}: a command needs {{}} in the place of the file's name")
    content = _fetch(location)
    try:
        index = _parse(location, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{locate(location, INDEX)}: not an index of shards ({type(error).__name__}: "
            f"{first_line(error)}); write it again with star_data shards"
        ) from None
    if not index.sources or not index.utterances:
        raise DataError(
            f"{location}: holds no utterances; run star_data shards on a directory with some"
        )
    told = content["utterances"], content["samples"]
    if told != (index.utterances, int(index.samples.sum())):
        raise DataError(
            f"{locate(location, INDEX)}: says {told[0]} utterances, its shards sum up to "
            f"{index.utterances}; write it again with star_data shards"
        )
    return index


def _fetch(location: str) -> Any:
    source = locate(location, INDEX)
    try:
        if is_remote(location):
            open_best = require_lhotse("serialization", "shards").open_best
            with open_best(source, "rb") as file:
                return json.loads(file.read())
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{location}: has no {INDEX}; star_data shards writes shards with it, and gives one to "
            "shards that lhotse wrote (--shar)"
        ) from None
    except DataError:
        raise
    # A library of object storage raises what it likes.
    except Exception as error:
        raise DataError(f"{source}: cannot be read ({store_reason(error)})") from error


def _parse(location: str, content: Mapping[str, Any]) -> ShardIndex:
    if content["format"] != FORMAT:
        raise DataError(
            f"{locate(location, INDEX)}: has format {content['format']}, this version reads "
            f"{FORMAT}; update espnet_star"
        )
    root = content.get("root") or location
    if not isinstance(root, str) or (root != location and root.startswith("pipe:")):
        raise DataError(f"{locate(location, INDEX)}: root must be a directory or URL, got {root!r}")
    if not is_remote(location) and not is_remote(root):
        root = str(Path(location) / root) if root != location else root
    shards = content["shards"]
    for shard in shards:
        for name in FIELDS:
            if not _NAME.fullmatch(shard[name]["name"]):
                raise DataError(
                    f"{locate(location, INDEX)}: {shard[name]['name']!r} is no name of a shard"
                )
    counts = np.zeros((len(shards), len(GRID) + 1), dtype=np.int64)
    for row, shard in zip(counts, shards, strict=True):
        lengths = {int(place): int(number) for place, number in shard["lengths"].items()}
        row[list(lengths)] = list(lengths.values())
        if int(row.sum()) != shard["utterances"]:
            raise ValueError(f"{shard['cuts']['name']}: lengths of {row.sum()} utterances")
    return ShardIndex(
        place=location,
        fs=int(content["fs"]),
        sources=[{n: locate(root, shard[n]["name"]) for n in FIELDS} for shard in shards],
        sizes=[tuple(int(shard[name]["bytes"]) for name in FIELDS) for shard in shards],
        counts=counts,
        samples=np.array([shard["samples"] for shard in shards], dtype=np.int64),
        longest=int(content["longest"]["samples"]),
    )


def shard_entry(
    files: Mapping[str, Path], root: Path, lengths: Mapping[str, int], fs: int
) -> dict[str, Any]:
    """Entry of one shard.

    Args:
        files: Its files by field.
        root: Directory that their names are relative to.
        lengths: Samples of each utterance.
        fs: Sampling rate in Hz.
    """
    samples = np.fromiter(lengths.values(), dtype=np.int64, count=len(lengths))
    places, numbers = np.unique(grid_bins(samples, fs), return_counts=True)
    seconds_bin = np.searchsorted(np.asarray(BINS) * fs, samples, side="right")
    longest = max(lengths, key=lambda key: (lengths[key], key), default="")
    return {
        **{
            name: {"name": path.relative_to(root).as_posix(), "bytes": path.stat().st_size}
            for name, path in files.items()
        },
        "utterances": len(lengths),
        "samples": int(samples.sum()),
        "lengths": {str(p): int(n) for p, n in zip(places, numbers, strict=True)},
        "histogram": np.bincount(seconds_bin, minlength=len(BINS) + 1).tolist(),
        "longest": {"utterance": longest, "samples": lengths.get(longest, 0)},
    }


def index_content(entries: Iterable[Mapping[str, Any]], fs: int, **more: Any) -> dict[str, Any]:
    """What ``shards.json`` holds.

    Args:
        entries: Those of `shard_entry`, in order.
        fs: Sampling rate in Hz.
        more: Further keys, e.g. ``audio_format`` and ``root``.
    """
    shards = [dict(entry) for entry in entries]
    samples = sum(shard["samples"] for shard in shards)
    histogram = np.sum([shard.pop("histogram") for shard in shards], axis=0).tolist()
    longest = max((shard.pop("longest") for shard in shards), key=lambda found: found["samples"])
    return {
        "format": FORMAT,
        "fs": fs,
        **more,
        "utterances": sum(shard["utterances"] for shard in shards),
        "samples": samples,
        "hours": samples / fs / 3600,
        "longest": longest,
        "histogram": {"seconds": list(BINS), "utterances": histogram},
        "shards": shards,
    }
