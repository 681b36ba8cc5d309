"""Corpora as people have them: a folder of audio files, or a Kaldi directory."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from espnet_star.data.audio import file_name
from espnet_star.data.errors import DataError, Dropped, some
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.data.recording import open_recording, run_pipe
from espnet_star.data.source import read_source
from espnet_star.data.spans import fit

# Endings of what libsndfile reads; other files of a folder are left alone.
# fmt: off
ENDINGS = frozenset((
    "wav", "wave", "flac", "mp3", "ogg", "oga", "opus", "aiff", "aif", "aifc", "au", "snd", "caf",
    "w64", "rf64", "voc", "sph", "nist",
))
# fmt: on
SPEAKERS = ("none", "parent", "top")
AUDIO_FOLDER = "audio"


@dataclass
class Utterance:
    """An utterance: a recording, or a part of one.

    Attributes:
        key: Its id, without blanks.
        recording: Id of the recording.
        start: Beginning in seconds, None for the whole recording.
        end: End in seconds, None for that of the recording.
        speaker: None where it is unknown.
        text: None where there is none.
        label: None where there is none.
        seconds: Its length.
    """

    key: str
    recording: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    seconds: float = 0.0


@dataclass
class Corpus:
    """What a source holds.

    Attributes:
        recordings: Audio file of each recording.
        utterances: All that are not skipped.
        skipped: Reason of each utterance or file that is.
        ignored: Number of files that are no audio, by ending.
        notes: What a user should look at, of each utterance.
    """

    recordings: dict[str, str] = field(default_factory=dict)
    utterances: list[Utterance] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def clean(name: str) -> str:
    """An id without blanks, which Kaldi's tables cannot hold."""
    return re.sub(r"\s+", "_", name.strip()) or "_"


def read_folder(folder: str | Path, audio: Path, speakers: str = "none") -> Corpus:
    """Every audio file of a folder and of those below it.

    Args:
        folder: Where to look.
        audio: Not needed here: files stay where they are.
        speakers: ``parent`` if the folder that holds a file is its speaker, ``top`` if
            the first folder below ``folder`` is, ``none`` if neither.

    Raises:
        DataError: If there is no such folder, no audio in it, or a file without a folder
            for its speaker.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such directory")
    corpus = Corpus()
    for path in sorted(root.rglob("*")):
        ending = path.suffix.lower().lstrip(".")
        if not path.is_file() or path.name.startswith("."):
            continue
        if ending not in ENDINGS:
            corpus.ignored[ending] = corpus.ignored.get(ending, 0) + 1
            continue
        inner = path.relative_to(root)
        if re.search(r"[\r\n]", str(path)):
            corpus.skipped[clean(str(inner))] = "a line break in its path, which no table can hold"
            continue
        key = clean("-".join(inner.with_suffix("").parts))
        speaker = None
        if speakers != "none":
            if len(inner.parts) < 2:
                raise DataError(
                    f"{path}: lies in no folder of a speaker; move it, or give --speakers none"
                )
            speaker = clean(inner.parts[-2 if speakers == "parent" else 0])
            # Kaldi's sorting wants the speaker first.
            key = key if key.startswith(speaker) else f"{speaker}-{key}"
        # one.wav beside one.flac, or "one two" beside "one_two".
        if key in corpus.recordings:
            key = f"{key}-{ending}"
        while key in corpus.recordings:
            key += "-"
        corpus.recordings[key] = str(path.absolute())
        corpus.utterances.append(Utterance(key, key, speaker=speaker))
    if not corpus.recordings:
        raise DataError(
            f"{folder}: no audio file in it (endings {some(sorted(ENDINGS), limit=30)})"
        )
    return corpus


def read_kaldi(
    directory: str | Path, audio: Path, run_pipes: bool = False, allow_mismatch: bool = False
) -> Corpus:
    """A Kaldi directory: ``wav.scp`` and, if there, ``segments``, ``utt2spk``, ``text``, ``label``.

    Args:
        directory: The directory.
        audio: Folder for the output of pipes.
        run_pipes: Run them.
        allow_mismatch: Skip utterances that one of the tables lacks.

    Raises:
        DataError: If tables are malformed or disagree.
    """
    tables, jobs, skipped = read_source(Path(directory), allow_mismatch, run_pipes)
    corpus = Corpus(skipped=skipped)
    text, speakers, labels = (tables.get(name, {}) for name in ("text", "utt2spk", "label"))
    listed = read_wav_scp(Path(directory) / "wav.scp", allow_pipes=run_pipes)
    # The first of several names for one file.
    names = {source: name for name, source in reversed(list(listed.items()))}
    for key, job in jobs.items():
        name = names[job.source]
        corpus.recordings[name] = job.source
        corpus.utterances.append(
            Utterance(
                key, name, job.start, job.end, speakers.get(key), text.get(key), labels.get(key)
            )
        )
    for name, source in corpus.recordings.items():
        if source.endswith("|"):
            corpus.recordings[name] = _store_pipe(name, source, audio, corpus)
        else:
            corpus.recordings[name] = str(Path(source).absolute())
    return corpus


def _store_pipe(name: str, command: str, audio: Path, corpus: Corpus) -> str:
    path = audio / file_name(name, "wav")
    try:
        content = run_pipe(command)
    except Dropped as reason:
        _skip_recording(corpus, name, str(reason))
        return command
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path.absolute())


def measure(corpus: Corpus, nj: int) -> None:
    """Read every recording's header: fill in lengths, skip what cannot be read or is empty.

    Segments are brought within their recordings, see `fit`.

    Args:
        corpus: Changed in place.
        nj: Files read at a time.
    """
    names = list(corpus.recordings)
    with ThreadPoolExecutor(max(1, nj)) as pool:
        found = dict(zip(names, pool.map(_length, corpus.recordings.values()), strict=True))
    kept = []
    for utterance in corpus.utterances:
        try:
            _place(utterance, found[utterance.recording], corpus)
        except Dropped as reason:
            corpus.skipped[utterance.key] = str(reason)
            continue
        kept.append(utterance)
    corpus.utterances = kept


def _place(utterance: Utterance, length: _Length, corpus: Corpus) -> None:
    if length.reason:
        raise Dropped(length.reason)
    span = fit(utterance.start, utterance.end, length.seconds)
    utterance.seconds = span.end - span.start
    if utterance.start is not None:
        utterance.start = span.start
    if utterance.end is not None:
        utterance.end = span.end
    notes = [*length.notes, *([span.note] if span.note else [])]
    if notes:
        earlier = corpus.notes.get(utterance.key)
        corpus.notes[utterance.key] = "; ".join([earlier, *notes] if earlier else notes)


class _Length(NamedTuple):
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    reason: str = ""


def _length(path: str) -> _Length:
    try:
        with open_recording(path, thorough=False) as sound:
            if sound.frames:
                return _Length(sound.seconds, sound.notes)
            return _Length(reason="no samples")
    except Dropped as reason:
        return _Length(reason=str(reason))


def _skip_recording(corpus: Corpus, name: str, reason: str) -> None:
    gone = [utterance for utterance in corpus.utterances if utterance.recording == name]
    corpus.skipped.update((utterance.key, reason) for utterance in gone)
    corpus.utterances = [u for u in corpus.utterances if u.recording != name]
