"""Corpora in lhotse's manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from espnet_star.data.audio import file_name
from espnet_star.data.corpus import Corpus, Utterance, clean
from espnet_star.data.errors import DataError, Dropped, some
from espnet_star.data.extras import require_lhotse
from espnet_star.data.spans import fit
from espnet_star.errors import first_line

NOTE = "espnet_star_note"


def read_manifest(
    manifest: str | Path,
    audio: Path,
    supervisions: str | Path | None = None,
    run_pipes: bool = False,
) -> Corpus:
    """A manifest of lhotse: recordings, recordings with supervisions, or cuts.

    Cuts that are part of one mono file become segments of it. Others (one of several
    channels, padded, mixed, changed in speed, from the net) are read by lhotse and stored.

    Args:
        manifest: Recordings or cuts, ``.jsonl.gz`` or what else lhotse reads.
        audio: Folder for audio that has to be stored.
        supervisions: Supervisions of the recordings, one utterance each.
        run_pipes: Accept recordings that are commands.

    Raises:
        DataError: If a file is no such manifest, or commands would be run.
    """
    lhotse = require_lhotse("", "recipes")
    loaded = _load(lhotse, manifest)
    if isinstance(loaded, lhotse.RecordingSet):
        cuts = _cuts_of(lhotse, loaded, supervisions)
    elif isinstance(loaded, lhotse.CutSet) and supervisions is None:
        cuts = ((cut.id, cut) for cut in loaded)
    else:
        hint = "cuts hold their own supervisions" if supervisions else "give the recordings"
        raise DataError(f"{manifest}: is a {type(loaded).__name__}; {hint}")
    corpus = Corpus()
    seen: set[str] = set()
    for name, cut in cuts:
        key = clean(name)
        if key in seen:
            corpus.skipped[f"{key}/{len(corpus.skipped)}"] = f"same name as {key}"
            continue
        seen.add(key)
        if isinstance(cut, str):
            corpus.skipped[key] = cut
            continue
        if note := (getattr(cut, "custom", None) or {}).get(NOTE):
            corpus.notes[key] = note
        _add_cut(corpus, key, cut, audio, run_pipes)
    return corpus


def _load(lhotse: Any, path: str | Path) -> Any:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        return lhotse.load_manifest(path)
    # Whatever the file holds instead.
    except Exception as error:
        raise DataError(f"{path}: no manifest of lhotse ({first_line(error)})") from None


def _cuts_of(lhotse: Any, recordings: Any, path: str | Path | None) -> Iterator[tuple[str, Any]]:
    if path is None:
        for recording in recordings:
            yield recording.id, recording.to_cut()
        return
    supervisions = _load(lhotse, path)
    if not isinstance(supervisions, lhotse.SupervisionSet):
        raise DataError(f"{path}: is a {type(supervisions).__name__}, not supervisions")
    known = {recording.id: recording for recording in recordings}
    lost = sorted({s.recording_id for s in supervisions} - known.keys())
    if lost:
        raise DataError(f"{path}: is about recordings that the manifest lacks: {some(lost)}")
    for supervision in supervisions:
        yield supervision.id, _cut_of(lhotse, supervision, known[supervision.recording_id])


def _cut_of(lhotse: Any, supervision: Any, recording: Any) -> Any:
    """Cut of a supervision; the reason why there is none.

    Not by lhotse's ``trim_to_supervisions``, which fails on times that are off by rounding.
    """
    try:
        span = fit(supervision.start, supervision.end, recording.duration)
    except Dropped as reason:
        return str(reason)
    channels = supervision.channel
    channels = channels if isinstance(channels, list) else [channels]
    if recording.num_channels == 1:
        channels = recording.channel_ids
    elif unknown := set(channels) - set(recording.channel_ids):
        return f"channel {some(map(str, sorted(unknown)))} is none of recording {recording.id}"
    kind = lhotse.MonoCut if len(channels) == 1 else lhotse.MultiCut
    return kind(
        id=supervision.id,
        start=span.start,
        duration=round(span.end - span.start, ndigits=8),
        channel=channels[0] if len(channels) == 1 else channels,
        recording=recording,
        supervisions=[supervision],
        custom={NOTE: span.note} if span.note else None,
    )


def _add_cut(corpus: Corpus, key: str, cut: Any, audio: Path, run_pipes: bool) -> None:
    speakers = {s.speaker for s in cut.supervisions if s.speaker}
    texts = [s.text for s in cut.supervisions if s.text]
    utterance = Utterance(
        key,
        key,
        speaker=clean(speakers.pop()) if len(speakers) == 1 else None,
        text=" ".join(" ".join(texts).split()) or None,
    )
    if _is_part_of_file(cut):
        recording = cut.recording
        utterance.recording = clean(recording.id)
        file = str(Path(recording.sources[0].source).absolute())
        if corpus.recordings.setdefault(utterance.recording, file) != file:
            corpus.skipped[key] = f"recording {recording.id} has two files"
            return
        if cut.start > 0 or cut.duration < recording.duration - 0.5 / recording.sampling_rate:
            utterance.start, utterance.end = cut.start, cut.end
    else:
        _check_commands(key, cut, run_pipes)
        path = audio / file_name(key, "wav")
        if not getattr(cut, "has_recording", False):
            corpus.skipped[key] = "a cut without recording"
            return
        try:
            samples = cut.load_audio().mean(axis=0)
        # lhotse, a codec, the net.
        except Exception as error:
            corpus.skipped[key] = f"unreadable: {first_line(error)}"
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, cut.sampling_rate, subtype="FLOAT")
        corpus.recordings[key] = str(path.absolute())
    corpus.utterances.append(utterance)


def _sources(cut: Any) -> list[Any]:
    tracks = [track.cut for track in getattr(cut, "tracks", [])] or [cut]
    # Padding says that it has a recording, and has none.
    recordings = [getattr(track, "recording", None) for track in tracks]
    return [source for recording in recordings if recording for source in recording.sources]


def _check_commands(key: str, cut: Any, run_pipes: bool) -> None:
    for source in _sources(cut):
        if source.type == "command" and not run_pipes:
            raise DataError(
                f"{key} is read by a command ({source.source}); run it with --run_pipes true, if "
                "you trust the manifest"
            )


def _is_part_of_file(cut: Any) -> bool:
    if hasattr(cut, "tracks") or not getattr(cut, "has_recording", False):
        return False
    recording = cut.recording
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    return (
        len(recording.sources) == 1
        and recording.sources[0].type == "file"
        and not recording.transforms
        and sorted(channels) == sorted(recording.channel_ids)
    )
