"""A miniature LibriSpeech in the corpus's own layout, of synthetic sound."""

import shutil
import tarfile

import soundfile
from librispeech_tree import UTTERANCES


def write_part(corpus, part, make_speech, speakers=2, utterances=2):
    """``speakers`` of one chapter each; returns the first one."""
    first = 100 * (1 + list(UTTERANCES).index(part))
    for speaker in range(first, first + speakers):
        chapter = corpus / part / str(speaker) / str(speaker + 5000)
        chapter.mkdir(parents=True)
        lines = []
        for index in range(utterances):
            name = f"{speaker}-{speaker + 5000}-{index:04d}"
            sound = make_speech(speaker + index, 8000 + 320 * index)
            soundfile.write(chapter / f"{name}.flac", sound, 16000, subtype="PCM_16")
            lines.append(f"{name} HELLO WORLD IT'S {'AB'[index % 2]}\n")
        (chapter / f"{speaker}-{speaker + 5000}.trans.txt").write_text("".join(lines))
    return first


def write_corpus(folder, make_speech, parts=tuple(UTTERANCES)):
    corpus = folder / "LibriSpeech"
    corpus.mkdir(parents=True)
    (corpus / "SPEAKERS.TXT").write_text(";ID  |SEX| SUBSET           |MINUTES| NAME\n")
    for part in parts:
        write_part(corpus, part, make_speech)
    return corpus


def write_archive(corpus, part, folder):
    """``PART.tar.gz`` as OpenSLR has it, under ``folder/12``."""
    (folder / "12").mkdir(parents=True, exist_ok=True)
    path = folder / "12" / f"{part}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(corpus / part, arcname=f"LibriSpeech/{part}")
    return path


def copy_corpus(corpus, folder):
    return shutil.copytree(corpus, folder / "LibriSpeech")
