"""Read a source directory and hold its tables against each other."""

from __future__ import annotations

from pathlib import Path

from espnet_star.data.audio import Job
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_segments, read_table, read_utt2spk, read_wav_scp

LABELS = ("text", "utt2spk", "label")


def read_source(
    source: Path, allow_mismatch: bool = False, run_pipes: bool = False
) -> tuple[dict[str, dict[str, str]], dict[str, Job], dict[str, str]]:
    """Read the tables of a directory and hold them against each other.

    Args:
        source: Directory with ``wav.scp`` and, if there, ``segments`` and `LABELS`.
        allow_mismatch: Drop utterances that one of the tables lacks.
        run_pipes: Accept entries of ``wav.scp`` that end in a pipe.

    Returns:
        The tables that are there by name, a job for every utterance whose audio is to
        be converted, and the reason of every utterance that is dropped already.

    Raises:
        DataError: If a table is malformed, or tables disagree.
    """
    recordings = read_wav_scp(source / "wav.scp", allow_pipes=run_pipes)
    jobs = {key: Job(key, path) for key, path in recordings.items()}
    utterance_file = source / "wav.scp"
    if (source / "segments").exists():
        utterance_file = source / "segments"
        jobs = {}
        for key, segment in read_segments(utterance_file).items():
            if segment.recording not in recordings:
                raise DataError(
                    f"{utterance_file}: {key} is cut from recording {segment.recording}, which "
                    f"{source / 'wav.scp'} does not have"
                )
            jobs[key] = Job(key, recordings[segment.recording], segment.start, segment.end)
    tables = {name: read_label_table(source / name) for name in LABELS if (source / name).exists()}
    skipped: dict[str, str] = {}
    for name, table in tables.items():
        _compare(source / name, table, utterance_file, jobs, allow_mismatch, skipped)
    empty = [key for key, text in tables.get("text", {}).items() if not text]
    skipped.update((key, "empty transcript") for key in empty if key not in skipped)
    return tables, {key: job for key, job in jobs.items() if key not in skipped}, skipped


def read_label_table(path: Path) -> dict[str, str]:
    """A table by its name: transcripts may be empty, names of speakers hold no blanks."""
    if path.name == "utt2spk":
        return read_utt2spk(path)
    return read_table(path, allow_empty=path.name == "text")


def _compare(
    path: Path,
    table: dict[str, str],
    utterance_file: Path,
    jobs: dict[str, Job],
    allow_mismatch: bool,
    skipped: dict[str, str],
) -> None:
    without_label = sorted(jobs.keys() - table.keys())
    without_audio = sorted(table.keys() - jobs.keys())
    if not without_label and not without_audio:
        return
    if not allow_mismatch:
        parts = []
        if without_label:
            parts.append(f"{len(without_label)} utterances not in {path}: {some(without_label)}")
        if without_audio:
            parts.append(
                f"{len(without_audio)} utterances not in {utterance_file}: {some(without_audio)}"
            )
        raise DataError(
            f"{path} and {utterance_file} disagree: {'; '.join(parts)}; correct them, or drop "
            "such utterances with --allow_mismatch true"
        )
    skipped.update((key, f"not in {path.name}") for key in without_label)
    skipped.update((key, f"not in {utterance_file.name}") for key in without_audio)
