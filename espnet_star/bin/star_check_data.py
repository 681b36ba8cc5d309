#!/usr/bin/env python3
"""Check a data directory before hours of training are spent on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.alignment import check_alignment, joined_frames, tokeniser
from espnet_star.data.checks import Report, check_datadir, histogram_lines
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_counts, read_table
from espnet_star.data.shard_index import has_shards


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_check_data``."""
    parser = argparse.ArgumentParser(
        prog="star_check_data",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--datadir", required=True, help="Directory with wav.scp, or directory or URL of shards"
    )
    parser.add_argument(
        "--need", nargs="*", default=[], help="Files that must be there: text utt2spk label ..."
    )
    parser.add_argument("--fs", type=int, default=16000, help="Sampling rate in Hz")
    parser.add_argument(
        "--train_speakers",
        default=None,
        help="Training directory (or its utt2spk) that must hold every speaker of --datadir",
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
    return parser


def report(found: Report, datadir: str) -> None:
    """Print size and histogram of lengths."""
    speakers = "" if found.speakers is None else f", {found.speakers} speakers"
    print(
        f"{datadir}: {found.utterances} utterances, {found.hours:.2f} hours{speakers}; "
        f"{found.opened} audio files decoded, no problem found"
    )
    for line in histogram_lines(found.bins):
        print(line)


def alignment(args: argparse.Namespace) -> None:
    """Print which transcripts CTC cannot align, for ``--ctc_config``.

    Raises:
        DataError: If it can align none, or a file cannot be read.
    """
    joined = joined_frames(args.ctc_config)
    if joined is None:
        print(f"{args.ctc_config}: no CTC, or an encoder whose frame rate is not known ahead")
        return
    directory = Path(args.datadir)
    found = check_alignment(
        read_table(directory / "text"),
        read_counts(directory / "utt2num_samples"),
        tokeniser(args.bpemodel),
        joined,
    )
    lines = found.lines(directory)
    if found.total and len(found.lost) == found.total:
        raise DataError(
            f"{lines[0]}; lower stack or subsampling in encoder_conf, take longer tokens "
            "(token_type bpe), and check that text belongs to wav.scp"
        )
    for line in lines:
        print(line)


def check(args: argparse.Namespace) -> Report:
    """Check a directory of files, or shards.

    Raises:
        DataError: If something is wrong, or an option has no meaning for shards.
    """
    if has_shards(args.datadir):
        if args.need or args.train_speakers or args.token_list or args.source or args.ctc_config:
            raise DataError(
                "--need, --train_speakers, --token_list, --ctc_config and --source are not there "
                "for shards"
            )
        # Imported here: torch takes a while, and files need none.
        from espnet_star.data.shard_checks import check_shards

        return check_shards(args.datadir, args.fs, args.full)
    return check_datadir(
        args.datadir,
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
        report(check(args), args.datadir)
        if args.ctc_config:
            alignment(args)

    run_tool("star_check_data", work)


if __name__ == "__main__":
    main()
