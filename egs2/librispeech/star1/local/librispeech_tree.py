"""LibriSpeech as it lies on disk: its parts, the sets made of them, and what may be missing.

``LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` holds a line for each
``SPEAKER-CHAPTER-NNNN.flac`` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_star.data.errors import DataError, some
from espnet_star.errors import unknown_name

# Utterances of each part, as the dataset card of openslr/librispeech_asr has them.
UTTERANCES = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}
# data/NAME and its parts. Every part is also a set of its own, "-" written as "_".
SETS = {
    "train_960": ("train-clean-100", "train-clean-360", "train-other-500"),
    "train_100": ("train-clean-100",),
    "dev": ("dev-clean", "dev-other"),
    **{part.replace("-", "_"): (part,) for part in UTTERANCES},
}


def parts_of(name: str) -> tuple[str, ...]:
    """Parts that a set is made of.

    Args:
        name: A key of `SETS`; ``dev-clean`` is taken for ``dev_clean``.

    Raises:
        StarError: If there is no such set.
    """
    key = name.replace("-", "_")
    if key not in SETS:
        raise unknown_name("set of LibriSpeech", name, SETS)
    return SETS[key]


def corpus_folder(directory: Path) -> Path:
    """The folder that holds the parts: ``directory`` itself or ``directory/LibriSpeech``.

    Raises:
        DataError: If it is neither.
    """
    for folder in (directory / "LibriSpeech", directory):
        if any((folder / part).is_dir() for part in UTTERANCES):
            return folder
    found = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else None
    holds = "there is no such folder" if found is None else f"it holds {some(found) or 'nothing'}"
    raise DataError(
        f"--librispeech {directory}: expected LibriSpeech/ or a folder with some of "
        f"{', '.join(UTTERANCES)}; {holds}"
    )


def check_part(corpus: Path, part: str, allow_fewer: bool = False) -> int:
    """Hold transcripts and audio of a part against each other and against LibriSpeech's count.

    Args:
        corpus: Folder of the parts.
        part: A key of `UTTERANCES`.
        allow_fewer: Accept another number of utterances, as a miniature has.

    Returns:
        Utterances found.

    Raises:
        DataError: Naming the first chapter, utterance or number that is wrong.
    """
    folder = corpus / part
    if not folder.is_dir():
        there = [name for name in UTTERANCES if (corpus / name).is_dir()]
        raise DataError(
            f"{folder}: no such folder (there are {some(there, 10) or 'none of the parts'}); "
            f"fetch {part}, or ask for sets that do not need it"
        )
    count = sum(_check_chapter(chapter) for chapter in chapters(folder))
    expected = UTTERANCES[part]
    if count == 0:
        raise DataError(f"{folder}: no transcript at all; expected {expected} utterances")
    if count != expected and not allow_fewer:
        raise DataError(
            f"{folder}: {count} utterances, expected {expected}; half a download or half an "
            "unpacked archive? Fetch it again, or give --allow_fewer true if it is meant so"
        )
    return count


def chapters(folder: Path) -> Iterator[Path]:
    """Folders of a part two levels down, sorted."""
    for speaker in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from sorted(path for path in speaker.iterdir() if path.is_dir())


def _check_chapter(chapter: Path) -> int:
    transcript = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
    audio = {p.stem: p for p in chapter.iterdir() if p.suffix == ".flac"}
    if not transcript.is_file():
        raise DataError(
            f"{transcript}: missing, though {chapter} has {len(audio)} audio files; without it "
            "they would be left out in silence. Unpack the archive again"
        )
    spoken = set(_utterances(transcript))
    _complain(transcript, "have no audio file", spoken - audio.keys())
    _complain(transcript, "have audio, but no transcript", audio.keys() - spoken)
    empty = [name for name, path in audio.items() if path.stat().st_size == 0]
    _complain(transcript, "have an empty audio file", empty)
    return len(spoken)


def _utterances(transcript: Path) -> Iterator[str]:
    with transcript.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split(maxsplit=1)
            if len(words) != 2:
                raise DataError(
                    f"{transcript}:{number}: expected 'utterance words', found {line.strip()!r}; "
                    "was the file cut short?"
                )
            yield words[0]


def _complain(transcript: Path, what: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        raise DataError(
            f"{transcript}: {len(listed)} utterances {what}: {some(listed)}; unpack the archive "
            "again"
        )
