#!/usr/bin/env python3
"""Make a miniature LibriSpeech, folder for folder as openslr.org/12 unpacks.

The words, speakers and sound are those of the source; numbers, titles and the readers'
sex, which nothing computes with, are made up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clips import Clip, draw, read_clips, write_audio

from espnet_star.bin.command import run_tool

# Speakers of each part and clips of each speaker: 22 speakers, 104 utterances.
PARTS: dict[str, tuple[int, int]] = {
    "train-clean-100": (6, 6),
    "train-clean-360": (4, 4),
    "train-other-500": (4, 4),
    "dev-clean": (2, 5),
    "dev-other": (2, 4),
    "test-clean": (2, 5),
    "test-other": (2, 4),
}
CHAPTERS = 2
SHORTEST, LONGEST = 1.5, 5.0
TABLES = {
    "SPEAKERS.TXT": ";ID  |SEX| SUBSET           |MINUTES| NAME",
    "CHAPTERS.TXT": ";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE "
    "| PROJECT TITLE",
    "BOOKS.TXT": ";ID   | TITLE | AUTHOR/S",
    "README.TXT": "A miniature in the layout of LibriSpeech, made to rehearse a recipe.",
    "LICENSE.TXT": "The sound has the license of the corpus that it was made from.",
}


def spoken(words: str) -> str:
    """Words in LibriSpeech's spelling: upper case, apostrophes as the only punctuation."""
    kept = "".join(letter for letter in words.upper() if letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")
    return " ".join(kept.split())


def write_chapter(folder: Path, clips: Sequence[Clip]) -> float:
    """Write ``SPEAKER/CHAPTER``: FLAC files and their transcripts.

    Args:
        folder: The chapter's; its last two names are the speaker's and its own number.
        clips: Utterances, numbered from 0000.

    Returns:
        Length in seconds.
    """
    stem = f"{folder.parent.name}-{folder.name}"
    seconds, lines = 0.0, []
    for number, clip in enumerate(clips):
        name = f"{stem}-{number:04d}"
        seconds += write_audio(clip, folder / f"{name}.flac")
        lines.append(f"{name} {spoken(clip.words)}\n")
    (folder / f"{stem}.trans.txt").write_text("".join(lines), encoding="ascii")
    return seconds


def make(speakers: dict[str, list[Clip]], outdir: Path) -> dict[str, int]:
    """Write ``outdir/LibriSpeech``.

    Args:
        speakers: Clips by speaker, most clips first.
        outdir: Folder that holds the corpus, as LibriSpeech's archives are unpacked.

    Returns:
        Number of utterances by part.

    Raises:
        DataError: If the source has too few speakers or clips.
    """
    places = [(part, size) for part, (count, size) in PARTS.items() for _ in range(count)]
    drawn = draw(speakers, [size for _, size in places], "a miniature LibriSpeech")
    root = outdir / "LibriSpeech"
    rows = {name: [header] for name, header in TABLES.items()}
    counts = dict.fromkeys(PARTS, 0)
    for number, ((part, _), (name, clips)) in enumerate(zip(places, drawn, strict=True)):
        reader, minutes = 19 + 37 * number, 0.0
        for index in range(CHAPTERS):
            chapter, book = 100000 + 211 * number + index, 1000 + number
            length = (
                write_chapter(root / part / str(reader) / str(chapter), clips[index::CHAPTERS]) / 60
            )
            minutes += length
            rows["CHAPTERS.TXT"].append(
                f"{chapter:<6} | {reader:<4} | {length:<5.2f} | {part:<16} | 1 | {book} "
                f"| Chapter {index + 1} | {name.title()}"
            )
        rows["BOOKS.TXT"].append(f"{1000 + number} | {name.title()} | Unknown")
        rows["SPEAKERS.TXT"].append(
            f"{reader:<4} | {'FM'[number % 2]} | {part:<16} | {minutes:<5.2f} | {name.title()}"
        )
        counts[part] += len(clips)
    for table, lines in rows.items():
        (root / table).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return counts


def get_parser() -> argparse.ArgumentParser:
    """Options, which the makers of miniature corpora share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datadirs", nargs="+", required=True, help="with text and utt2spk")
    parser.add_argument("--root", default=".", help="where paths in wav.scp start from")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets a folder LibriSpeech")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = get_parser().parse_args(argv)

    def work() -> None:
        counts = make(read_clips(args.datadirs, args.root, SHORTEST, LONGEST), args.output_dir)
        print(f"{args.output_dir}/LibriSpeech: " + ", ".join(f"{n} {p}" for p, n in counts.items()))

    run_tool(Path(sys.argv[0]).name, work)


if __name__ == "__main__":
    main()
