"""Transcribed clips of several speakers, from which miniature corpora are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from espnet_star.data.audio import read_mono
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_table, read_wav_scp

FS = 16000


@dataclass(frozen=True)
class Clip:
    """One utterance of the source.

    Attributes:
        utterance: Its id.
        speaker: Who speaks.
        words: What is said.
        path: Audio of any rate that libsndfile reads.
        seconds: Its length.
    """

    utterance: str
    speaker: str
    words: str
    path: Path
    seconds: float


def read_clips(
    datadirs: Sequence[str | Path], root: str | Path, shortest: float, longest: float
) -> dict[str, list[Clip]]:
    """Clips of Kaldi-style directories with ``wav.scp``, ``utt2spk`` and ``text``.

    Args:
        datadirs: The directories.
        root: Folder that relative paths in ``wav.scp`` start from.
        shortest: Shorter clips are left out, in seconds.
        longest: Longer ones likewise.

    Returns:
        Clips by speaker, those with most clips first; within a speaker by utterance id.

    Raises:
        DataError: If a table is missing or malformed, or a file is no audio.
    """
    speakers: dict[str, list[Clip]] = {}
    for datadir in map(Path, datadirs):
        text, utt2spk = read_table(datadir / "text"), read_table(datadir / "utt2spk")
        for utterance, name in read_wav_scp(datadir / "wav.scp").items():
            path = Path(root) / name
            try:
                seconds = soundfile.info(path).duration
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise DataError(f"{path}: no audio that libsndfile reads ({error})") from error
            if shortest <= seconds <= longest and utterance in text:
                clip = Clip(utterance, utt2spk[utterance], text[utterance], path, seconds)
                speakers.setdefault(clip.speaker, []).append(clip)
    for clips in speakers.values():
        clips.sort(key=lambda clip: clip.utterance)
    return dict(sorted(speakers.items(), key=lambda item: (-len(item[1]), item[0])))


def draw(
    speakers: dict[str, list[Clip]], wanted: Sequence[int], what: str
) -> list[tuple[str, list[Clip]]]:
    """Give each place of a miniature corpus a speaker who has enough clips.

    Args:
        speakers: Clips by speaker, most clips first.
        wanted: Clips that each speaker of the miniature has.
        what: The miniature, for the message.

    Returns:
        Speaker and that many clips for each place, no speaker twice.

    Raises:
        DataError: If there are not enough speakers or clips.
    """
    order = sorted(range(len(wanted)), key=lambda place: -wanted[place])
    if len(speakers) < len(wanted):
        raise DataError(
            f"{what} needs {len(wanted)} speakers, the source has {len(speakers)} with clips of a "
            "fitting length; give more data directories"
        )
    drawn: dict[int, tuple[str, list[Clip]]] = {}
    for place, (speaker, clips) in zip(order, speakers.items(), strict=False):
        if len(clips) < wanted[place]:
            raise DataError(
                f"{what} needs {wanted[place]} clips of speaker {speaker}, the source has "
                f"{len(clips)} of a fitting length; give more data directories"
            )
        # Spread over what the speaker says, since neighbors are one dialogue.
        step = len(clips) / wanted[place]
        drawn[place] = speaker, [clips[int(index * step)] for index in range(wanted[place])]
    return [drawn[place] for place in range(len(wanted))]


def write_audio(clip: Clip, path: Path) -> float:
    """Write a clip as 16 kHz mono of 16 bit, the format by the name's extension.

    Returns:
        Its length in seconds.
    """
    samples = read_mono(clip.path, FS).clip(-1.0, 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, FS, subtype="PCM_16")
    return len(samples) / FS
