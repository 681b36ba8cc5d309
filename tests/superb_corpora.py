"""Miniature corpora in the folder layouts that SUPERB's tasks read."""

import csv
import json

import numpy as np
import soundfile

SPLITS = ("train", "dev", "test")


def tone(path, seconds=0.6, pitch=200.0):
    """A tone in noise: enough for a head to tell speakers of different pitch apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(round(pitch)).standard_normal(len(times))
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * pitch * times) + 0.02 * noise), 16000)


def voxceleb1(root, home):
    """Three speakers, and s3prl's cached list of splits under a home folder."""
    lines = []
    for speaker in (10001, 10002, 10280):
        part = "test" if speaker == 10280 else "dev"
        for split, video in enumerate("abc", start=1):
            for take in (1, 2):
                name = f"id{speaker}/{video * 3}/{take:05d}.wav"
                tone(root / part / "wav" / name, pitch=150 + 100 * (speaker % 7))
                lines.append(f"{split} {name}")
    cache = home / ".cache" / "s3prl"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "iden_split.txt").write_text("\n".join(lines) + "\n")
    return root


def iemocap(root, home):
    """Five sessions of five emotions, and s3prl's cached splits of the first fold."""
    items = {}
    for session in range(1, 6):
        folder, scene = root / f"Session{session}", f"Ses0{session}F_impro01"
        items[session], lines = [], []
        for index, emotion in enumerate(("neu", "hap", "ang", "sad", "exc")):
            name = f"{scene}_F{index:03d}"
            wav = folder / "sentences" / "wav" / scene / f"{name}.wav"
            tone(wav, pitch=200 + 50 * index)
            lines.append(f"[6.29 - 8.23]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]")
            items[session].append({"path": str(wav.relative_to(root)), "label": emotion})
        labels = folder / "dialog" / "EmoEvaluation" / f"{scene}.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text("\n".join(lines) + "\n")
    cache = home / ".cache" / "s3prl" / "data"
    cache.mkdir(parents=True, exist_ok=True)
    for kind, sessions in (("train", range(2, 6)), ("test", [1])):
        content = {"meta_data": [item for session in sessions for item in items[session]]}
        (cache / f"test_session1_{kind}_metadata.json").write_text(json.dumps(content))
    return root


def librispeech(root):
    (root / "SPEAKERS.TXT").parent.mkdir(parents=True, exist_ok=True)
    (root / "SPEAKERS.TXT").write_text("14 | F | train-clean-100 | 25.03 | A\n")
    for split in ("train-clean-100", "dev-clean", "test-clean"):
        tone(root / split / "14" / "208" / "14-208-0000.flac")
        (root / split / "14" / "208" / "14-208.trans.txt").write_text("14-208-0000 HELLO\n")
    return root


def fluent(root):
    for split in ("train", "valid", "test"):
        path = root / "data" / f"{split}_data.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["", "path", "speakerId", "transcription"])
            writer.writerow([0, f"wavs/speakers/s/{split}.wav", "s", "on"])
        tone(root / "wavs" / "speakers" / "s" / f"{split}.wav")
    return root


def librimix(root):
    for split in SPLITS:
        (root / split).mkdir(parents=True)
        wav = root / "wav" / f"{split}.wav"
        tone(wav)
        tables = {
            "wav.scp": f"r {wav}",
            "segments": "u r 0 0.5",
            "utt2spk": "u s",
            "reco2dur": "r 0.6",
        }
        for name, line in tables.items():
            (root / split / name).write_text(line + "\n")
    return root


def quesst14(root):
    for name in ("dev", "eval", "utterances"):
        path = root / "scoring" / f"language_key_{name}.lst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("quesst14Database/Audio/a.wav nnenglish\n")
    for name in ("dev", "eval"):
        (root / "scoring" / f"groundtruth_quesst14_{name}").mkdir()
    (root / "scoring" / "score-TWV-Cnxe.sh").write_text("#!/bin/sh\n")
    tone(root / "Audio" / "a.wav")
    return root


def words(root, names):
    for name in names:
        tone(root / name / "a.wav")
    return root


def snips(root):
    for split in ("train", "valid", "test"):
        tone(root / split / f"Ivy-snips-{split}-0.wav")
    (root / "all.iob.snips.txt").write_text("")
    return root


def all_of_them(root, home):
    """Every corpus, by its name in configurations."""
    keywords = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
    return {
        "librispeech": librispeech(root / "LibriSpeech"),
        "speech_commands": words(root / "commands", (*keywords, "_background_noise_")),
        "speech_commands_test": words(root / "test", (*keywords, "_unknown_", "_silence_")),
        "quesst14": quesst14(root / "quesst14Database"),
        "voxceleb1": voxceleb1(root / "VoxCeleb1", home),
        "librimix": librimix(root / "mix"),
        "fluent_speech_commands": fluent(root / "fluent"),
        "snips": snips(root / "SNIPS"),
        "iemocap": iemocap(root / "IEMOCAP", home),
    }
