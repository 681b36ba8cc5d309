#!/usr/bin/env python3
"""Make Kaldi-style directories of a folder of audio, a Kaldi directory or a lhotse manifest."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial

from espnet_star.bin.command import positive, run_tool, str2bool
from espnet_star.data.corpus import SPEAKERS, read_folder, read_kaldi
from espnet_star.data.corpus_manifest import read_manifest
from espnet_star.data.errors import DataError, some
from espnet_star.data.import_corpus import Imported, ImportOptions, import_corpus
from espnet_star.units import pluralize, speech


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_import_corpus``."""
    parser = argparse.ArgumentParser(
        prog="star_import_corpus",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--audio_folder", help="Folder with audio files that libsndfile reads, also in folders"
    )
    source.add_argument("--kaldi", help="Kaldi directory: wav.scp, segments, utt2spk, text")
    source.add_argument("--manifest", help="Recordings or cuts of lhotse, e.g. .jsonl.gz")
    parser.add_argument("--supervisions", help="Supervisions of lhotse for the recordings")
    parser.add_argument("--outdir", default="data", help="Gets the sets, and skipped.txt")
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
        help="With --audio_folder: the folder that is the speaker, the one that holds the file "
        "or the first below --audio_folder",
    )
    parser.add_argument(
        "--run_pipes",
        type=str2bool,
        default=False,
        help="Run commands of wav.scp or of the manifest, and store their audio in outdir/audio "
        "(trusted files only)",
    )
    parser.add_argument(
        "--allow_mismatch",
        type=str2bool,
        default=False,
        help="With --kaldi: drop utterances that one of the tables lacks",
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


def report(result: Imported, outdir: str) -> None:
    """Print the sets, and what was left out and why."""
    for name, utterances in result.sets.items():
        seconds = sum(u.seconds for u in utterances)
        speakers = {u.speaker for u in utterances if u.speaker}
        known = f", {pluralize(len(speakers), 'speaker')}" if speakers else ""
        size = f"{pluralize(len(utterances), 'utterance')}, {speech(seconds)}"
        print(f"{outdir}/{name}: {size}{known}")
    # "unreadable: ..." and "same audio as ..." carry details.
    kinds = {k: why.split(":")[0].split(" as ")[0] for k, why in result.skipped.items()}
    for kind, count in Counter(kinds.values()).most_common():
        examples = some((key for key in sorted(kinds) if kinds[key] == kind), limit=3)
        print(f"  {count} left out, {kind}: {examples}")
    if result.skipped:
        print(f"  all reasons: {outdir}/skipped.txt")
    if result.ignored:
        endings = some(
            f"{n} .{e}" if e else f"{n} without ending" for e, n in result.ignored.items()
        )
        print(f"  files that are no audio: {endings}")
    for note in result.notes:
        print(f"  {note}")


def work(args: argparse.Namespace) -> None:
    """Import.

    Raises:
        DataError: If an option has no meaning for the source, or the source is unusable.
    """
    if args.supervisions and not args.manifest:
        raise DataError("--supervisions needs --manifest")
    if args.speakers != "none" and not args.audio_folder:
        raise DataError("--speakers needs --audio_folder; other sources name their speakers")
    if args.audio_folder:
        read = partial(read_folder, args.audio_folder, speakers=args.speakers)
    elif args.kaldi:
        read = partial(
            read_kaldi, args.kaldi, run_pipes=args.run_pipes, allow_mismatch=args.allow_mismatch
        )
    else:
        read = partial(
            read_manifest, args.manifest, supervisions=args.supervisions, run_pipes=args.run_pipes
        )
    options = ImportOptions(
        train_set=args.train_set,
        valid_set=args.valid_set,
        valid_hours=args.valid_hours,
        valid_utterances=args.valid_utterances,
        keep_duplicates=args.keep_duplicates,
        need_text=args.need_text,
        force=args.force,
    )
    report(import_corpus(read, args.outdir, options, args.nj), args.outdir)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_import_corpus", lambda: work(args))


if __name__ == "__main__":
    main()
