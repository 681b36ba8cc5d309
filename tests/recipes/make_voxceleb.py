#!/usr/bin/env python3
"""Make a miniature VoxCeleb1, as its archives unpack into dev/ and test/.

Beside the sound it has the official lists: vox1_meta.csv, iden_split.txt (speaker
identification), veri_test.txt and veri_test2.txt (verification, original and cleaned).
Names and videos are made up; who speaks is the source's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from clips import Clip, draw, read_clips, write_audio

from espnet_star.bin.command import run_tool

# VoxCeleb1 has speakers id10001 to id11251, of which id10270 to id10309 are the test's.
DEV = [f"id{10001 + number}" for number in range(10)]
TEST = [f"id{10270 + number}" for number in range(4)]
# Clips of a speaker by video, and what iden_split.txt says of them: 1 train, 2 valid, 3 test.
VIDEOS = ((1, 1, 1), (2, 1), (3,))
SHORTEST, LONGEST = 4.0, 6.0  # VoxCeleb1 has nothing shorter than 3.9 s
META = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"


def video_id(speaker: str, number: int) -> str:
    """Eleven characters as YouTube has them, equal on every machine; some begin with "-"."""
    digest = hashlib.sha256(f"{speaker}/{number}".encode()).digest()
    name = base64.urlsafe_b64encode(digest).decode()[:11]
    return f"-{name[1:]}" if number == len(VIDEOS) - 1 else name


def trials(files: dict[str, list[str]]) -> list[str]:
    """Lines ``1 FILE FILE`` of one speaker and ``0 FILE FILE`` of two, in turn.

    Args:
        files: Files of each test speaker, as ``idNNNNN/VIDEO/NNNNN.wav``.
    """
    names, lines = list(files), []
    for place, name in enumerate(names):
        own = files[name]
        others = [file for other in names[place + 1 :] + names[:place] for file in files[other]]
        for index, file in enumerate(own):
            for step in (1, 2):
                lines.append(f"1 {file} {own[(index + step) % len(own)]}")
                lines.append(f"0 {file} {others[(7 * index + 3 * step) % len(others)]}")
    return lines


def make(speakers: dict[str, list[Clip]], outdir: Path, merged: bool = False) -> dict[str, int]:
    """Write the corpus.

    Args:
        speakers: Clips by speaker, most clips first.
        outdir: Root of the corpus.
        merged: Unpack both archives into one ``wav`` folder, as lhotse does, and not
            into ``dev/wav`` and ``test/wav``, as most recipes do.

    Returns:
        Number of utterances of dev and test, of classes 1, 2 and 3, and of trials.

    Raises:
        DataError: If the source has too few speakers or clips.
    """
    ids = DEV + TEST
    size = sum(map(len, VIDEOS))
    drawn = draw(speakers, [size] * len(ids), "a miniature VoxCeleb1")
    meta, split, files = [META], [], {}
    counts = {"dev": 0, "test": 0}
    for number, (speaker, (name, clips)) in enumerate(zip(ids, drawn, strict=True)):
        part = "dev" if speaker in DEV else "test"
        meta.append(f"{speaker}\t{name.title()}\t{'mf'[number % 2]}\tUSA\t{part}")
        rest = iter(clips)
        files[speaker] = []
        for video, classes in enumerate(VIDEOS):
            for index, label in enumerate(classes, 1):
                file = f"{speaker}/{video_id(speaker, video)}/{index:05d}.wav"
                write_audio(next(rest), outdir / ("wav" if merged else f"{part}/wav") / file)
                files[speaker].append(file)
                split.append(f"{label} {file}")
                counts[part] += 1
    pairs = trials({speaker: files[speaker] for speaker in TEST})
    lists = {
        "vox1_meta.csv": meta,
        "iden_split.txt": sorted(split),
        "veri_test.txt": pairs,
        "veri_test2.txt": pairs[:-2],  # cleaned: without pairs whose label was wrong
    }
    for file, lines in lists.items():
        (outdir / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for label in "123":
        counts[label] = sum(line[0] == label for line in split)
    return counts | {"trials": len(pairs)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datadirs", nargs="+", required=True, help="with text and utt2spk")
    parser.add_argument("--root", default=".", help="where paths in wav.scp start from")
    parser.add_argument("--output_dir", type=Path, required=True, help="root of the corpus")
    parser.add_argument("--merged", action="store_true", help="wav/, not dev/wav/ and test/wav/")
    args = parser.parse_args(argv)

    def work() -> None:
        clips = read_clips(args.datadirs, args.root, SHORTEST, LONGEST)
        counts = make(clips, args.output_dir, args.merged)
        print(f"{args.output_dir}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))

    run_tool(Path(sys.argv[0]).name, work)


if __name__ == "__main__":
    main()
