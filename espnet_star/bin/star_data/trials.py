"""Turn a list of speaker verification trials into the tables that ESPnet validates on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.data.trials import check_named, read_trials, write_pairs


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data trials``."""
    parser = argparse.ArgumentParser(prog="star_data trials", description=__doc__)
    parser.add_argument(
        "--trials",
        required=True,
        help="Lines '1 utterance utterance': 1 for one speaker, 0 for two",
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        help="Prepared directory with these utterances; trial.scp, trial2.scp, trial_label and "
        "trial_shape are written there",
    )
    parser.add_argument(
        "--dry_run",
        type=str2bool,
        default=False,
        help="Only check that every utterance is there, write nothing",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Check, write, and say how many trials there are."""
    trials = read_trials(args.trials)
    targets = sum(trial.label for trial in trials)
    if args.dry_run:
        check_named(trials, read_wav_scp(f"{args.data_dir}/wav.scp"), args.trials, args.data_dir)
    else:
        write_pairs(trials, args.data_dir, args.trials)
    print(
        f"{args.trials}: {len(trials)} trials, {targets} of one speaker and "
        f"{len(trials) - targets} of two, all in {args.data_dir}"
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_data trials", lambda: run(args))


if __name__ == "__main__":
    main()
