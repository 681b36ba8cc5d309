"""An index for shards that lhotse wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from espnet_star.data.errors import DataError, some
from espnet_star.data.extras import require_lhotse
from espnet_star.data.kaldi import write_lines
from espnet_star.data.parallel import parallel
from espnet_star.data.shard_index import INDEX, index_content, shard_entry
from espnet_star.errors import first_line


class Listed(NamedTuple):
    """A shard that is there already."""

    cuts: str
    recording: str
    root: str


def index_shar(shar: str | Path, outdir: str | Path, nj: int = 1) -> dict[str, Any]:
    """Write an index for shards that lhotse wrote; only their manifests are read.

    Args:
        shar: Directory with ``cuts.*.jsonl*`` and ``recording.*.tar*``.
        outdir: Gets the index ``shards.json``; another directory than ``shar``, where
            lhotse would take it for a field of the shards.
        nj: Processes.

    Raises:
        DataError: If there are no shards, files are missing, or audio is not mono of one
            sampling rate.
    """
    root, target = Path(shar).resolve(), Path(outdir)
    if target.resolve() == root:
        raise DataError(f"{outdir}: lhotse would take an index there for shards; give another")
    cuts, recordings = ({_number(p): p for p in root.glob(f"{f}.*")} for f in ("cuts", "recording"))
    if not cuts or cuts.keys() != recordings.keys():
        differ = some(sorted(cuts.keys() ^ recordings.keys())) or "none there"
        raise DataError(
            f"{shar}: expected cuts.NUMBER.jsonl.gz and recording.NUMBER.tar for the same numbers "
            f"({differ})"
        )
    listed = [Listed(str(cuts[n]), str(recordings[n]), str(root)) for n in sorted(cuts)]
    entries, rates = [], set()
    for fs, entry in parallel(read_entry, listed, nj):
        rates.add(fs)
        entries.append(entry)
    if len(rates) != 1:
        raise DataError(f"{shar}: sampling rates {some(map(str, sorted(rates)))} Hz; expected one")
    content = index_content(entries, rates.pop(), root=str(root))
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_lines(target / INDEX, [json.dumps(content)])
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
    return {**content, "up_to_date": False}


def _number(path: Path) -> str:
    return path.name.split(".")[1]


def read_entry(listed: Listed) -> tuple[int, dict[str, Any]]:
    """Sampling rate and index entry of a shard, from its manifest."""
    lengths, rate = {}, 0
    for cut in _cuts(listed.cuts):
        if getattr(cut, "channel", None) != 0 or rate not in (0, cut.sampling_rate):
            raise DataError(
                f"{listed.cuts}: {cut.id} is not mono at the rate of the others; write the shards "
                "from a prepared directory (star_data prepare, star_data shards --data_dir)"
            )
        rate = cut.sampling_rate
        lengths[cut.id] = cut.num_samples
    if not lengths:
        raise DataError(f"{listed.cuts}: holds no cuts; remove it and {listed.recording}")
    files = {"cuts": Path(listed.cuts), "recording": Path(listed.recording)}
    return rate, shard_entry(files, Path(listed.root), lengths, rate)


def _cuts(path: str) -> Iterator[Any]:
    reader = require_lhotse("lazy", "shards").LazyManifestIterator
    try:
        yield from reader(path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: no manifest of cuts ({first_line(error)})") from None
