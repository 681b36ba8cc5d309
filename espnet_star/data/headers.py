"""How much speech a directory holds, from the headers of its files alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from espnet_star.data.audio import AudioOptions, Job, check_length
from espnet_star.data.errors import Dropped
from espnet_star.data.parallel import parallel
from espnet_star.data.prepare import NOT_SELECTED, subset_rank
from espnet_star.data.recording import open_recording
from espnet_star.data.source import read_source
from espnet_star.data.spans import fit
from espnet_star.errors import first_line

PIPED = "piped: its length is known after the conversion only"
CHUNK = 64


class Header(NamedTuple):
    """Of one recording: samples, rate in Hz, and whether ESPnet could read it as it is."""

    frames: int = 0
    rate: int = 0
    direct: bool = False
    error: str = ""


@dataclass
class Survey:
    """What `star_data prepare` would make of a directory, as far as headers tell.

    Attributes:
        counts: Samples of every utterance that would be kept, at the target rate.
        skipped: Reason of every other one.
        converted: Samples that would be written anew; the rest is used where it lies.
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    converted: int = 0


def survey(
    source: str | Path, audio: AudioOptions, max_hours: float | None = None, nj: int = 1
) -> Survey:
    """Read the headers of a directory's recordings.

    Args:
        source: Directory with ``wav.scp``.
        audio: Limits and target rate.
        max_hours: As in ``PrepareOptions``.
        nj: Processes.

    Only files whose headers say no length are read to their end.

    Raises:
        DataError: If tables are malformed or disagree, or audio files are absent.
    """
    _, jobs, skipped = read_source(Path(source), allow_mismatch=True, run_pipes=True)
    found = Survey(skipped=skipped)
    recordings = sorted({job.source for job in jobs.values() if not job.source.endswith("|")})
    headers = dict(zip(recordings, parallel(_header, recordings, nj, CHUNK), strict=True))
    limit = None if max_hours is None else max_hours * 3600 * audio.fs
    order = sorted(jobs, key=subset_rank if limit is not None else None)
    total = 0
    for index, key in enumerate(order):
        header = headers.get(jobs[key].source, Header(error=PIPED))
        try:
            samples = _samples(jobs[key], header, audio)
        except Dropped as reason:
            found.skipped[key] = str(reason)
            continue
        if limit is not None and total + samples > limit:
            found.skipped.update(dict.fromkeys(order[index:], NOT_SELECTED))
            break
        total += samples
        found.counts[key] = samples
        if not header.direct or jobs[key].start is not None or header.rate != audio.fs:
            found.converted += samples
    return found


def _samples(job: Job, header: Header, audio: AudioOptions) -> int:
    if header.error:
        raise Dropped(header.error)
    span = fit(job.start, job.end, header.frames / header.rate)
    samples = round((span.end - span.start) * audio.fs)
    check_length(samples, audio)
    return samples


def _header(path: str) -> Header:
    try:
        with open_recording(path, thorough=False) as sound:
            return Header(sound.frames, sound.rate, sound.direct and sound.channels == 1)
    except (Dropped, OSError) as error:
        return Header(error=first_line(error))
