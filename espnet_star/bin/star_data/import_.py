"""Make Kaldi-style directories of a folder of audio, a Kaldi directory or a lhotse manifest."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from espnet_star.bin.command import positive, run_tool, str2bool
from espnet_star.data.corpus import SPEAKERS, Corpus, read_folder, read_kaldi
from espnet_star.data.corpus_manifest import read_manifest
from espnet_star.data.errors import DataError, some
from espnet_star.data.import_corpus import Imported, ImportOptions, import_corpus
from espnet_star.terminal.units import pluralize, speech

FORMATS: dict[str, Callable[..., Corpus]] = {
    "folder": read_folder,
    "kaldi": read_kaldi,
    "lhotse": read_manifest,
}


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data import``."""
    parser = argparse.ArgumentParser(
        prog="star_data import",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--source",
        required=True,
        help="Folder with audio files that libsndfile reads, also in folders; Kaldi directory "
        "(wav.scp, segments, utt2spk, text); or recordings or cuts of lhotse, e.g. .jsonl.gz",
    )
    parser.add_argument(
        "--format",
        choices=["auto", *FORMATS],
        default="auto",
        help="What --source is; auto: a file is a manifest, a folder with wav.scp Kaldi's",
    )
    parser.add_argument("--supervisions", help="Supervisions of lhotse for the recordings")
    parser.add_argument("--output_dir", default="data", help="Gets the sets, and skipped.txt")
    parser.add_argument("--train_set", default="train", help="Name of the training set")
    parser.add_argument("--valid_set", default="valid", help="Name of the valid set")
    parser.add_argument(
        "--valid_hours",
        type=float,
        help="Hold out about so many hours, chosen by a hash: whole speakers where known",
    )
    parser.add_argument(
        "--valid_utterances", type=positive, help="The same in utterances instead of hours"
    )
    parser.add_argument(
        "--speakers",
        choices=SPEAKERS,
        default="none",
        help="Of a folder of audio files: the folder that is the speaker, the one that holds the "
        "file or the first below --source",
    )
    parser.add_argument(
        "--run_pipes",
        type=str2bool,
        default=False,
        help="Run commands of wav.scp or of the manifest, and store their audio in audio of "
        "--output_dir (trusted files only)",
    )
    parser.add_argument(
        "--allow_mismatch",
        type=str2bool,
        default=False,
        help="Of a Kaldi directory: drop utterances that one of the tables lacks",
    )
    parser.add_argument(
        "--keep_duplicates", type=str2bool, default=False, help="Keep files of the same content"
    )
    parser.add_argument(
        "--need_text", type=str2bool, default=False, help="Leave out what has no transcript"
    )
    parser.add_argument("--nj", type=positive, default=8, help="Files read at a time")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace sets that are there already"
    )
    return parser


def report(result: Imported, folder: str) -> None:
    """Print the sets, and what was left out and why."""
    for name, utterances in result.sets.items():
        seconds = sum(u.seconds for u in utterances)
        speakers = {u.speaker for u in utterances if u.speaker}
        known = f", {pluralize(len(speakers), 'speaker')}" if speakers else ""
        size = f"{pluralize(len(utterances), 'utterance')}, {speech(seconds)}"
        print(f"{folder}/{name}: {size}{known}")
    # "unreadable: ..." and "same audio as ..." carry details.
    kinds = {k: why.split(":")[0].split(" as ")[0] for k, why in result.skipped.items()}
    for kind, count in Counter(kinds.values()).most_common():
        examples = some((key for key in sorted(kinds) if kinds[key] == kind), limit=3)
        print(f"  {count} left out, {kind}: {examples}")
    if result.skipped:
        print(f"  all reasons: {folder}/skipped.txt")
    if result.ignored:
        endings = some(
            f"{n} .{e}" if e else f"{n} without ending" for e, n in result.ignored.items()
        )
        print(f"  files that are no audio: {endings}")
    for note in result.notes:
        print(f"  {note}")


def format_of(source: str) -> str:
    """What a source is, by its files.

    Raises:
        DataError: If there is no such file or folder.
    """
    place = Path(source)
    if not place.exists():
        raise DataError(f"{source}: no such file or directory")
    if not place.is_dir():
        return "lhotse"
    return "kaldi" if (place / "wav.scp").exists() else "folder"


def work(args: argparse.Namespace) -> None:
    """Import.

    Raises:
        DataError: If an option has no meaning for the source, or the source is unusable.
    """
    kind = format_of(args.source) if args.format == "auto" else args.format
    if args.supervisions and kind != "lhotse":
        raise DataError("--supervisions is for recordings of lhotse")
    if args.speakers != "none" and kind != "folder":
        raise DataError("--speakers is for a folder of audio; other sources name their speakers")
    options: dict[str, Any] = {
        "folder": {"speakers": args.speakers},
        "kaldi": {"run_pipes": args.run_pipes, "allow_mismatch": args.allow_mismatch},
        "lhotse": {"run_pipes": args.run_pipes, "supervisions": args.supervisions},
    }
    read = partial(FORMATS[kind], args.source, **options[kind])
    how = ImportOptions(
        train_set=args.train_set,
        valid_set=args.valid_set,
        valid_hours=args.valid_hours,
        valid_utterances=args.valid_utterances,
        keep_duplicates=args.keep_duplicates,
        need_text=args.need_text,
        force=args.force,
    )
    report(import_corpus(read, args.output_dir, how, args.nj), args.output_dir)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_data import", lambda: work(args))


if __name__ == "__main__":
    main()
