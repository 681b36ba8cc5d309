"""The corpora of SUPERB: where they come from, what their folders hold, whether all is there."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_star.data.errors import some
from espnet_star.data.kaldi import split_lines


@dataclass(frozen=True)
class Content:
    """Files that a corpus must hold.

    Attributes:
        pattern: As for ``Path.glob``, from the corpus's root.
        count: How many the whole corpus has; 1 where any number is right.
    """

    pattern: str
    count: int = 1


@dataclass(frozen=True)
class Corpus:
    """A corpus as s3prl reads it.

    Attributes:
        title: Its name.
        source: Where to get it.
        contents: What must be there.
        listed: Yields files that the corpus's own lists name.
    """

    title: str
    source: str
    contents: tuple[Content, ...]
    listed: Callable[[Path], Iterator[Path]] | None = None

    def layout(self) -> str:
        """The expected content as text."""
        return ", ".join(
            content.pattern if content.count == 1 else f"{content.pattern} ({content.count})"
            for content in self.contents
        )

    def problem(self, root: Path, counts: bool) -> str | None:
        """What is wrong with a copy of the corpus, None if nothing is.

        Args:
            root: Its folder.
            counts: Whether to compare the numbers of files with those of the whole corpus.
        """
        if not root.is_dir():
            return f"{root} is no directory"
        for content in self.contents:
            # A corpus of one speaker is none; more than one file is seen at a glance.
            found = sum(1 for _ in root.glob(content.pattern)) if counts else _any(root, content)
            wanted = content.count if counts else 1
            if found < wanted:
                expected = f"{wanted}" if wanted > 1 else "at least one"
                return f"{root} has {found} of {content.pattern}, expected {expected}"
        try:
            absent = [p for p in (self.listed(root) if self.listed else ()) if not p.exists()]
        except (OSError, ValueError, KeyError, csv.Error) as error:
            return f"{root}: a list of files cannot be read ({error})"
        if absent:
            return f"{root} lacks {len(absent)} listed files: {some(map(str, absent), 2)}"
        return None


def _any(root: Path, content: Content) -> int:
    return int(next(root.glob(content.pattern), None) is not None)


def _fluent_files(root: Path) -> Iterator[Path]:
    for split in ("train", "valid", "test"):
        with (root / "data" / f"{split}_data.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield root / row["path"]


def _diarization_files(root: Path) -> Iterator[Path]:
    for split in ("train", "dev", "test"):
        for line in split_lines((root / split / "wav.scp").read_text(encoding="utf-8")):
            # What s3prl's kaldi_dir_to_csv accepts: no pipe, no blank in the path.
            yield Path(line.split(" ")[1] if line.count(" ") == 1 else line)


_KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_SETS = ("train", "dev", "test")

# Numbers of files: LibriSpeech's and VoxCeleb1's own pages.
CORPORA = {
    "librispeech": Corpus(
        "LibriSpeech (train-clean-100, dev-clean, test-clean)",
        "https://www.openslr.org/12",
        (
            Content("SPEAKERS.TXT"),
            Content("train-clean-100/*/*/*.flac", 28539),
            Content("dev-clean/*/*/*.flac", 2703),
            Content("test-clean/*/*/*.flac", 2620),
            Content("train-clean-100/*/*/*.trans.txt"),
        ),
    ),
    "voxceleb1": Corpus(
        "VoxCeleb1",
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
        (
            Content("dev/wav/id*", 1211),
            Content("test/wav/id*", 40),
            Content("dev/wav/id*/*/*.wav", 148642),
            Content("test/wav/id*/*/*.wav", 4874),
        ),
    ),
    "speech_commands": Corpus(
        "Speech Commands 0.01",
        "http://download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
        tuple(Content(f"{word}/*.wav") for word in (*_KEYWORDS, "_background_noise_")),
    ),
    "speech_commands_test": Corpus(
        "Speech Commands 0.01, test set",
        "http://download.tensorflow.org/data/speech_commands_test_set_v0.01.tar.gz",
        tuple(Content(f"{word}/*.wav") for word in (*_KEYWORDS, "_unknown_", "_silence_")),
    ),
    "quesst14": Corpus(
        "QUESST 2014",
        "https://speech.fit.vutbr.cz/files/quesst14Database.tgz",
        (
            Content("scoring/score-TWV-Cnxe.sh"),
            *(Content(f"scoring/language_key_{s}.lst") for s in ("dev", "eval", "utterances")),
            *(Content(f"scoring/groundtruth_quesst14_{s}") for s in ("dev", "eval")),
            Content("Audio/*.wav"),
        ),
    ),
    "librimix": Corpus(
        "Libri2Mix for diarization, as Kaldi-style directories",
        "https://github.com/ftshijt/LibriMix, scripts/prepare_diarization.py",
        tuple(
            Content(f"{name}/{file}")
            for name in _SETS
            for file in ("wav.scp", "segments", "utt2spk", "reco2dur")
        ),
        _diarization_files,
    ),
    "fluent_speech_commands": Corpus(
        "Fluent Speech Commands",
        "https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research",
        tuple(Content(f"data/{name}_data.csv") for name in ("train", "valid", "test")),
        _fluent_files,
    ),
    "snips": Corpus(
        "Audio SNIPS",
        "https://github.com/s3prl/s3prl, s3prl/downstream/docs/superb.md, section SF",
        (
            Content("all.iob.snips.txt"),
            *(Content(f"{name}/**/*.wav") for name in ("train", "valid", "test")),
        ),
    ),
    "iemocap": Corpus(
        "IEMOCAP",
        "https://sail.usc.edu/iemocap (on request)",
        tuple(
            Content(f"Session{n}/{part}")
            for n in range(1, 6)
            for part in ("sentences/wav/*/*.wav", "dialog/EmoEvaluation/*.txt")
        ),
    ),
}
