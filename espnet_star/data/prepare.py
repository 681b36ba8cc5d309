"""Prepare a Kaldi-style directory: 16 kHz mono audio and tables that agree."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from espnet_star.data.audio import AudioOptions, Job, Result, convert, file_name
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import invert, read_table, write_lines, write_table
from espnet_star.data.parallel import parallel
from espnet_star.data.source import LABELS, read_source

MARKER = ".prepared.json"
DETAILS = "notes.txt"
AUDIO_FOLDER = "data"
NOT_SELECTED = "not needed for max_hours"
CHUNK = 16


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` does.

    Attributes:
        srcdir: Directory with ``wav.scp`` and, if there, ``segments``, ``text``,
            ``utt2spk``, ``label``.
        dstdir: Directory to write.
        audio: Format and limits of the audio.
        max_hours: Keep a random subset of at most this length, in hours.
        allow_mismatch: Drop utterances that one of the tables lacks, where the default
            is an error.
        run_pipes: Run commands in ``wav.scp`` (entries that end in a pipe).
    """

    srcdir: str
    dstdir: str
    audio: AudioOptions = field(default_factory=AudioOptions)
    max_hours: float | None = None
    allow_mismatch: bool = False
    run_pipes: bool = False


@dataclass
class Summary:
    """What became of the utterances.

    Attributes:
        kept: Utterances in the prepared directory.
        hours: Their length.
        skipped: Reason of each utterance that was dropped.
        notes: How many utterances were written, mixed down, resampled, clipped.
        details: What a user should look at, of each utterance: the share that was clipped,
            segments that were trimmed, files that end before or after their headers say.
        up_to_date: True where an earlier run had done the same work already.
    """

    kept: int = 0
    hours: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    up_to_date: bool = False


def left_out(skipped: Mapping[str, str]) -> str:
    """Utterances that were dropped, by reason: ``2 empty file (a, b), 1 unreadable (c)``.

    Args:
        skipped: Reason of each; what follows a colon in it are details.
    """
    reasons: dict[str, list[str]] = {}
    for key in sorted(skipped):
        reasons.setdefault(skipped[key].split(":")[0], []).append(key)
    parts = []
    for reason, keys in sorted(reasons.items(), key=lambda found: -len(found[1])):
        # These are dropped at random: their names tell nothing.
        names = "" if reason == NOT_SELECTED else f" ({some(keys, limit=3)})"
        parts.append(f"{len(keys)} {reason}{names}")
    return ", ".join(parts)


def prepare(options: PrepareOptions, nj: int = 1, force: bool = False) -> Summary:
    """Convert the audio of a directory and write tables of the utterances that are left.

    ``wav.scp`` and a marker with the options and a digest of the inputs come last, so an
    interrupted run never looks complete and a finished one is not repeated.

    Args:
        options: What to do.
        nj: Processes.
        force: Do it again although it was finished, and take over a ``wav.scp`` that
            this function has not written.

    Raises:
        DataError: If tables disagree, no utterance is left, or the disk is full.
    """
    source, target = Path(options.srcdir), Path(options.dstdir)
    if source.resolve() == target.resolve():
        raise DataError(f"srcdir and dstdir are both {source}; choose another dstdir")
    # Checked before anything is written, and before hours are spent on audio.
    tables, jobs, skipped = read_source(
        source, allow_mismatch=options.allow_mismatch, run_pipes=options.run_pipes
    )
    fingerprint = _fingerprint(source, options)
    try:
        finished = _finished(target, fingerprint, force)
        if finished is not None:
            return finished
        former = _clear(target)
        summary, results = _convert_all(jobs, options, nj, skipped)
        _write_tables(target, tables, results, summary)
        _remove_stale(target, former, results)
        marker = {**fingerprint, "kept": summary.kept, "hours": summary.hours}
        write_lines(target / MARKER, [json.dumps(marker, indent=2, sort_keys=True)])
    except OSError as error:
        raise DataError(_disk_message(target, error)) from error
    return summary


def _disk_message(target: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{target}: no space left on the disk; free some and run the same command again"
    name = error.filename or target
    return f"{name}: cannot be read or written ({error.strerror or error})"


def _fingerprint(source: Path, options: PrepareOptions) -> dict[str, object]:
    digests = {}
    for name in ("wav.scp", "segments", *LABELS):
        if (source / name).exists():
            digests[name] = hashlib.sha256((source / name).read_bytes()).hexdigest()
    return {"options": asdict(options), "inputs": digests}


def _finished(target: Path, fingerprint: dict[str, object], force: bool) -> Summary | None:
    if force or not (target / "wav.scp").exists():
        return None
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        raise DataError(
            f"{target} holds a wav.scp that this tool did not write; choose another dstdir, "
            "or replace it with --force true"
        ) from None
    if any(marker.get(key) != value for key, value in fingerprint.items()):
        return None
    return Summary(kept=marker["kept"], hours=marker["hours"], up_to_date=True)


def _clear(target: Path) -> list[str]:
    """Make a former preparation look unfinished; return the audio files it listed."""
    target.mkdir(parents=True, exist_ok=True)
    former: list[str] = []
    if (target / MARKER).exists() and (target / "wav.scp").exists():
        former = list(read_table(target / "wav.scp").values())
    for name in ("wav.scp", MARKER, DETAILS, "spk2utt", *LABELS):
        (target / name).unlink(missing_ok=True)
    return former


def _remove_stale(target: Path, former: list[str], results: list[Result]) -> None:
    folder = (target / AUDIO_FOLDER).resolve()
    current = {Path(result.path).resolve() for result in results}
    for name in former:
        path = Path(name).resolve()
        if path.is_relative_to(folder) and path not in current:
            path.unlink(missing_ok=True)


def _results(jobs: list[Job], folder: str, options: AudioOptions, nj: int) -> Iterator[Result]:
    return parallel(partial(convert, folder=folder, options=options), jobs, nj, CHUNK)


def _convert_all(
    jobs: dict[str, Job], options: PrepareOptions, nj: int, skipped: dict[str, str]
) -> tuple[Summary, list[Result]]:
    summary = Summary(skipped=skipped)
    limit = None if options.max_hours is None else options.max_hours * 3600 * options.audio.fs
    # By hash: a subset that is random, the same everywhere, and part of any larger one.
    order = sorted(jobs, key=subset_rank) if limit is not None else sorted(jobs)
    folder = str(Path(options.dstdir) / AUDIO_FOLDER)
    results: list[Result] = []
    total = 0
    stream = _results([jobs[key] for key in order], folder, options.audio, nj)
    for result in stream:
        if limit is not None and total + result.samples > limit:
            break
        if result.reason:
            skipped[result.utterance] = result.reason
            continue
        total += result.samples
        results.append(result)
        for kind in {note.split(":")[0] for note in result.notes}:
            summary.notes[kind] = summary.notes.get(kind, 0) + 1
        if details := "; ".join(note for note in result.notes if ":" in note):
            summary.details[result.utterance] = details
    stream.close()  # type: ignore[attr-defined]
    done = {result.utterance for result in results} | skipped.keys()
    for key in order:
        if key not in done:
            # Other workers were ahead of the one that filled max_hours.
            (Path(folder) / file_name(key, options.audio.audio_format)).unlink(missing_ok=True)
            skipped[key] = NOT_SELECTED
    summary.kept, summary.hours = len(results), total / options.audio.fs / 3600
    return summary, results


def subset_rank(utterance: str) -> bytes:
    """Where a name stands in an order that is random, and the same everywhere."""
    return hashlib.sha256(utterance.encode()).digest()


def _write_tables(
    target: Path,
    tables: dict[str, dict[str, str]],
    results: list[Result],
    summary: Summary,
) -> None:
    # Written also when nothing is left, so that the reasons can be read.
    write_table(target / "skipped.txt", summary.skipped)
    if summary.details:
        write_table(target / DETAILS, summary.details)
    if not results:
        examples = some(f"{key}: {reason}" for key, reason in sorted(summary.skipped.items()))
        raise DataError(
            f"no utterance is left of {len(summary.skipped)} ({examples or 'wav.scp is empty'}); "
            f"all reasons are in {target / 'skipped.txt'}"
        )
    kept = sorted(result.utterance for result in results)
    for name, table in tables.items():
        write_table(target / name, {key: table[key] for key in kept})
    if "utt2spk" in tables:
        write_table(target / "spk2utt", invert({key: tables["utt2spk"][key] for key in kept}))
    write_table(target / "utt2num_samples", {r.utterance: r.samples for r in results})
    write_table(target / "wav.scp", {r.utterance: r.path for r in results})
