"""Read VoxCeleb1's folder tree and its official lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import split_lines
from espnet_star.data.trials import Trial

# Parts of iden_split.txt by their number.
SPLITS = {"1": "train", "2": "valid", "3": "test"}
# A WAV file is longer than its header; what is not was cut off while unpacking.
HEADER_BYTES = 44
LAYOUT = "dev/wav/id10001/VIDEO/00001.wav and test/wav/..., or wav/id10001/VIDEO/00001.wav"


@dataclass(frozen=True)
class Corpus:
    """Audio that was found.

    Attributes:
        root: Folder of the corpus.
        parts: Names of the folders with audio, relative to ``root``.
        audio: Path of each utterance.
        empty: Utterances whose file holds no audio.
    """

    root: Path
    parts: list[str]
    audio: dict[str, str]
    empty: list[str]


def utterance(path: str) -> str:
    """``id10001/1zcIwhmdeo4/00001.wav`` as ``id10001-1zcIwhmdeo4-00001``.

    lhotse, torchaudio and s3prl make the same names.
    """
    return path.removesuffix(".wav").replace("/", "-")


def speaker(name: str) -> str:
    """Speaker of an utterance."""
    return name.split("-", 1)[0]


def find_parts(root: Path) -> list[str]:
    """Folders of a corpus that hold ``id10001`` and its like, relative to ``root``."""
    return [name for name in ("dev/wav", "test/wav", "wav") if (root / name).is_dir()]


def scan(root: Path) -> Corpus:
    """Find every utterance of a corpus.

    Args:
        root: Folder with ``dev/wav`` and ``test/wav``, or with ``wav``.

    Raises:
        DataError: If there is no such folder or no audio in it.
    """
    parts = find_parts(root)
    if not parts:
        raise DataError(
            f"{root} holds no VoxCeleb1: expected {LAYOUT}; pass the folder above as --voxceleb1"
        )
    audio: dict[str, str] = {}
    empty = []
    for part in parts:
        for name, path, size in _wavs(root.absolute() / part):
            audio.setdefault(name, path)
            if size <= HEADER_BYTES:
                empty.append(name)
    if not audio:
        raise DataError(f"{root}: no audio in {' and '.join(parts)}; expected {LAYOUT}")
    return Corpus(root, parts, audio, sorted(empty))


def _wavs(folder: Path) -> Iterator[tuple[str, str, int]]:
    # scandir, not glob: 150 000 files on a network file system want few calls each.
    for talker in _folders(folder):
        for video in _folders(talker.path):
            for entry in os.scandir(video.path):
                if entry.name.endswith(".wav"):
                    name = utterance(f"{talker.name}/{video.name}/{entry.name}")
                    yield name, entry.path, entry.stat().st_size


def _folders(path: str | Path) -> list[os.DirEntry[str]]:
    return sorted((entry for entry in os.scandir(path) if entry.is_dir()), key=lambda e: e.name)


def read_split(path: Path) -> dict[str, list[str]]:
    """Utterances of ``train``, ``valid`` and ``test`` in an identification split.

    Args:
        path: Lines ``1 id10003/na8-QEFmj44/00003.wav``: 1 train, 2 valid, 3 test.

    Raises:
        DataError: Naming the first line of another form, or an utterance listed twice.
    """
    found: dict[str, list[str]] = {name: [] for name in SPLITS.values()}
    seen: set[str] = set()
    for number, words in _lines(path):
        if len(words) != 2 or words[0] not in SPLITS or words[1].count("/") != 2:
            raise DataError(
                f"{path}:{number}: expected '1 id10003/VIDEO/00003.wav' (1 train, 2 valid, "
                f"3 test), got {' '.join(words)!r}"
            )
        name = utterance(words[1])
        if name in seen:
            raise DataError(f"{path}:{number}: {words[1]} is listed twice; get the list again")
        seen.add(name)
        found[SPLITS[words[0]]].append(name)
    return found


def read_trials(path: Path) -> list[Trial]:
    """Pairs of a verification list.

    Args:
        path: Lines ``1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav``.

    Raises:
        DataError: Naming the first line of another form.
    """
    trials = []
    for number, words in _lines(path):
        paths = len(words) == 3 and all(word.count("/") == 2 for word in words[1:])
        if not paths or words[0] not in {"0", "1"}:
            raise DataError(
                f"{path}:{number}: expected '1 id10270/VIDEO/00001.wav id10270/VIDEO/00008.wav' "
                f"(1 the same speaker, 0 two), got {' '.join(words)!r}"
            )
        trials.append(Trial(int(words[0]), utterance(words[1]), utterance(words[2])))
    return trials


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(split_lines(text), 1):
        if words := line.split():
            yield number, words
