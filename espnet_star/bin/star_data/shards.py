"""Write shards for training at constant memory, from disk or object storage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from espnet_star.bin.command import positive, run_tool
from espnet_star.data.errors import DataError
from espnet_star.data.shard_foreign import index_shar
from espnet_star.data.shard_writer import ShardOptions, write_shards
from espnet_star.terminal.units import speech


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data shards``."""
    parser = argparse.ArgumentParser(
        prog="star_data shards",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data_dir", default=None, help="Prepared directory with wav.scp and utt2num_samples"
    )
    parser.add_argument(
        "--shar",
        default=None,
        help="Instead of --data_dir: directory of shards that lhotse wrote, to be indexed only",
    )
    parser.add_argument(
        "--output_dir",
        required=True,
        help="Directory to write: shards.json and, with --data_dir, the folder shar",
    )
    parser.add_argument(
        "--shard_size", type=positive, default=1000, help="Utterances of a shard, about"
    )
    parser.add_argument(
        "--shard_seconds",
        type=float,
        default=None,
        help="Seconds of a shard, about, in place of --shard_size",
    )
    parser.add_argument(
        "--min_shards",
        type=positive,
        default=32,
        help="Write at least so many: each data loading process of each rank needs one",
    )
    parser.add_argument(
        "--audio_format", choices=("flac", "wav"), default="flac", help="Format of the audio"
    )
    parser.add_argument("--fs", type=positive, default=16000, help="Sampling rate in Hz")
    parser.add_argument("--seed", type=int, default=0, help="Of the order of utterances")
    parser.add_argument("--nj", type=positive, default=2, help="Processes")
    return parser


def report(content: dict[str, Any], folder: str) -> None:
    """Print what the shards hold."""
    longest = content["longest"]
    state = " (up to date)" if content["up_to_date"] else ""
    print(
        f"{folder}: {content['utterances']} utterances, {speech(3600 * content['hours'])} in "
        f"{len(content['shards'])} shards{state}; longest {longest['utterance']} with "
        f"{longest['samples'] / content['fs']:.1f} s"
    )


def work(args: argparse.Namespace) -> None:
    """Write or index shards.

    Raises:
        DataError: On unusable data, or if not one of two sources is given.
    """
    if (args.data_dir is None) == (args.shar is None):
        raise DataError("give one of --data_dir and --shar")
    if args.shard_seconds is not None and not args.shard_seconds > 0:
        raise DataError(f"--shard_seconds must be positive, got {args.shard_seconds:g}")
    if args.shar is not None:
        report(index_shar(args.shar, args.output_dir, args.nj), args.output_dir)
        return
    options = ShardOptions(
        size=args.shard_size,
        seconds=args.shard_seconds,
        min_shards=args.min_shards,
        audio_format=args.audio_format,
        fs=args.fs,
        seed=args.seed,
    )
    report(write_shards(args.data_dir, args.output_dir, options, args.nj), args.output_dir)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_data shards", lambda: work(args))


if __name__ == "__main__":
    main()
