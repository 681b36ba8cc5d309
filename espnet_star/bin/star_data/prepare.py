"""Prepare a Kaldi-style data directory: 16 kHz mono audio, every drop accounted for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.audio import CLIPPED, AudioOptions
from espnet_star.data.errors import some
from espnet_star.data.prepare import DETAILS, PrepareOptions, Summary, left_out, prepare
from espnet_star.units import pluralize, speech

# Of what was done to the audio, what a user may want to look into.
TOLD = ("clipped", "mixed down")


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data prepare``."""
    parser = argparse.ArgumentParser(
        prog="star_data prepare",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--source",
        required=True,
        help="Directory with wav.scp and, if there, segments, text, utt2spk, label",
    )
    parser.add_argument("--output_dir", required=True, help="Directory to write")
    parser.add_argument("--fs", type=int, default=16000, help="Sampling rate in Hz")
    parser.add_argument(
        "--audio_format", choices=("flac", "wav"), default="flac", help="Format of the audio files"
    )
    parser.add_argument(
        "--min_duration", type=float, default=0.1, help="Drop shorter utterances, in seconds"
    )
    parser.add_argument(
        "--max_duration", type=float, default=30.0, help="Drop longer utterances, in seconds"
    )
    parser.add_argument("--nj", type=int, default=2, help="Processes")
    parser.add_argument(
        "--max_hours",
        type=float,
        default=None,
        help="Keep a random subset of at most this length, the same on every machine",
    )
    parser.add_argument(
        "--channel_seed",
        type=int,
        default=None,
        help="Pass each utterance through a random equaliser and gain drawn from this seed",
    )
    parser.add_argument(
        "--allow_mismatch",
        type=str2bool,
        default=False,
        help="Drop utterances that wav.scp, text, utt2spk or label lacks",
    )
    parser.add_argument(
        "--run_pipes",
        type=str2bool,
        default=False,
        help="Run the commands of entries like 'sph2pipe -f wav a.sph |' (trusted files only)",
    )
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Repeat a finished preparation"
    )
    return parser


def report(summary: Summary, folder: str) -> None:
    """Print what was kept, what was done to the audio and why utterances were dropped."""
    if summary.up_to_date:
        print(
            f"{folder} is up to date: {pluralize(summary.kept, 'utterance')}, "
            f"{speech(3600 * summary.hours)}"
        )
        return
    notes = [f"{summary.notes[name]} {name}" for name in TOLD if name in summary.notes]
    # Clipping is common, and counted above; what else was noted deserves a name here.
    named = [
        f"{key} ({told})"
        for key, told in sorted(summary.details.items())
        if not told.startswith(CLIPPED)
    ]
    if named:
        notes.append(f"to look at: {some(named, limit=3)}")
    if summary.details:
        notes[-1] += f", see {folder}/{DETAILS}"
    dropped = left_out(summary.skipped)
    if dropped:
        notes.append(f"left out: {dropped}, see {folder}/skipped.txt")
    size = f"{pluralize(summary.kept, 'utterance')}, {speech(3600 * summary.hours)}"
    print("; ".join([f"{folder}: {size}", *notes]))


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    audio = AudioOptions(
        fs=args.fs,
        audio_format=args.audio_format,
        min_duration=args.min_duration,
        max_duration=args.max_duration,
        channel_seed=args.channel_seed,
    )
    options = PrepareOptions(
        srcdir=args.source,
        dstdir=args.output_dir,
        audio=audio,
        max_hours=args.max_hours,
        allow_mismatch=args.allow_mismatch,
        run_pipes=args.run_pipes,
    )
    run_tool(
        "star_data prepare",
        lambda: report(prepare(options, nj=args.nj, force=args.force), args.output_dir),
    )


if __name__ == "__main__":
    main()
