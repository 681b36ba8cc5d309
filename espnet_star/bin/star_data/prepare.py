"""Prepare a Kaldi-style data directory: 16 kHz mono audio, every drop accounted for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.bin.limits import add_limits, limited, named, of_set
from espnet_star.data.audio import CLIPPED, AudioOptions
from espnet_star.data.checks import check_complete
from espnet_star.data.errors import DataError, some
from espnet_star.data.prepare import DETAILS, PrepareOptions, Summary, left_out, prepare
from espnet_star.terminal.units import pluralize, speech

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
    parser.add_argument(
        "--sets",
        nargs="*",
        default=None,
        metavar="NAME",
        help="Prepare SOURCE/NAME to OUTPUT_DIR/NAME for each of these instead",
    )
    parser.add_argument("--fs", type=int, default=16000, help="Sampling rate in Hz")
    parser.add_argument(
        "--audio_format", choices=("flac", "wav"), default="flac", help="Format of the audio files"
    )
    add_limits(parser)
    parser.add_argument("--nj", type=int, default=2, help="Processes")
    parser.add_argument(
        "--channel_seed",
        type=int,
        default=None,
        help="Pass each utterance through a random equalizer and gain drawn from this seed",
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


def work(args: argparse.Namespace) -> None:
    """Prepare one directory, or each of several sets.

    Raises:
        DataError: If an option names a set that is not there, or one that must stay whole
            has lost an utterance; see `prepare` for the rest.
    """
    if args.sets is None:
        prepare_set(args, Path(args.source), Path(args.output_dir))
        return
    source = Path(args.source)
    absent = sorted(name for name in named(args) if not (source / name).is_dir())
    if absent:
        raise DataError(f"limits for {some(absent)}, but {source} has no such directory")
    for name in dict.fromkeys(args.sets):
        prepare_set(args, source / name, Path(args.output_dir) / name)


def prepare_set(args: argparse.Namespace, source: Path, target: Path) -> None:
    """Prepare a directory, within the limits for a set of its name."""
    audio = AudioOptions(
        fs=args.fs,
        audio_format=args.audio_format,
        channel_seed=args.channel_seed,
    )
    options = PrepareOptions(
        srcdir=str(source),
        dstdir=str(target),
        audio=limited(args, source.name, audio),
        max_hours=of_set(args.max_hours, source.name),
        allow_mismatch=args.allow_mismatch,
        run_pipes=args.run_pipes,
    )
    report(prepare(options, nj=args.nj, force=args.force), str(target))
    if source.name in args.whole:
        for problem in check_complete(target, source):
            raise DataError(problem)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_data prepare", lambda: work(args))


if __name__ == "__main__":
    main()
