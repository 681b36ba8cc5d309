"""Check a data directory before hours of training are spent on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.alignment import check_head
from espnet_star.data.checks import Report, check_datadir, histogram_lines
from espnet_star.data.errors import DataError, some
from espnet_star.data.shard_index import has_shards
from espnet_star.terminal.units import pluralize, speech


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data check``."""
    parser = argparse.ArgumentParser(
        prog="star_data check",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data_dir", required=True, help="Directory with wav.scp, or directory or URL of shards"
    )
    parser.add_argument(
        "--need", nargs="*", default=[], help="Files that must be there: text utt2spk label ..."
    )
    parser.add_argument("--fs", type=int, default=16000, help="Sampling rate in Hz")
    parser.add_argument(
        "--train_speakers",
        default=None,
        help="Training directory (or its utt2spk) that must hold every speaker of --data_dir",
    )
    parser.add_argument(
        "--token_list", default=None, help="Token list that must cover the transcripts"
    )
    parser.add_argument(
        "--bpemodel", default=None, help="SentencePiece model of the tokens; characters without it"
    )
    parser.add_argument(
        "--ctc_config",
        default=None,
        help="Configuration of an ASR training: name utterances with more symbols than its CTC "
        "has frames, and refuse a set in which all are so",
    )
    parser.add_argument(
        "--source",
        default=None,
        help="Directory it was prepared from, of which no utterance may have been dropped",
    )
    parser.add_argument(
        "--full", type=str2bool, default=False, help="Decode every file, not a sample"
    )
    parser.add_argument(
        "--histogram", type=str2bool, default=True, help="Print a histogram of lengths too"
    )
    return parser


def report(found: Report, folder: str, histogram: bool) -> None:
    """Print size and, if asked, a histogram of lengths."""
    speakers = "" if found.speakers is None else f", {pluralize(found.speakers, 'speaker')}"
    print(
        f"{folder}: {pluralize(found.utterances, 'utterance')}, {speech(3600 * found.hours)}"
        f"{speakers}; {pluralize(found.opened, 'audio file')} decoded, no problem found"
    )
    for line in histogram_lines(found.bins) if histogram else []:
        print(line)
    if found.notes:
        print(f"  to look at: {some(found.notes, limit=3)}")


def check(args: argparse.Namespace) -> Report:
    """Check a directory of files, or shards.

    Raises:
        DataError: If something is wrong, or an option has no meaning for shards.
    """
    if has_shards(args.data_dir):
        if args.need or args.train_speakers or args.token_list or args.source or args.ctc_config:
            raise DataError(
                "--need, --train_speakers, --token_list, --ctc_config and --source are not there "
                "for shards"
            )
        # Imported here: torch takes a while, and files need none.
        from espnet_star.data.shard_checks import check_shards

        return check_shards(args.data_dir, args.fs, args.full)
    return check_datadir(
        args.data_dir,
        need=args.need,
        fs=args.fs,
        train_speakers=args.train_speakers,
        token_list=args.token_list,
        full=args.full,
        source=args.source,
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)

    def work() -> None:
        report(check(args), args.data_dir, args.histogram)
        if args.ctc_config:
            for line in check_head(args.data_dir, args.ctc_config, args.bpemodel):
                print(line)

    run_tool("star_data check", work)


if __name__ == "__main__":
    main()
