"""Write Kaldi-style directories of VoxCeleb1 for identification, verification, distillation.

lhotse's ``prepare_voxceleb`` is not used: it wants ``vox1_meta.csv`` and a merged ``wav``,
compares every recording with a list of all (hours for 153 516 of them), knows no
identification split, and only warns of trials whose audio is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from voxceleb_lists import Corpus, Trial, read_split, read_trials, scan, speaker
from voxceleb_sets import (
    DEV_SPEAKERS,
    DEV_UTTERANCES,
    PARTIAL,
    check_audio,
    check_closed,
    check_empty,
    check_pairs,
    check_split,
    check_trials,
    verification,
)

from espnet_star.bin.command import positive, run_tool, str2bool
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_lines, write_table

TRIALS = {"vox1_o_cleaned": "veri_test2.txt", "vox1_o": "veri_test.txt"}


def get_parser() -> argparse.ArgumentParser:
    """Options of the preparation."""
    parser = argparse.ArgumentParser(prog="prepare_voxceleb", description=__doc__)
    parser.add_argument("--voxceleb1", type=Path, required=True, help="Folder of the corpus")
    parser.add_argument("--lists", type=Path, required=True, help="Folder of the official lists")
    parser.add_argument("--data_dir", type=Path, required=True, help="Folder to write sets in")
    parser.add_argument("--valid_speakers", type=int, default=0, help="Speakers to hold out")
    parser.add_argument("--valid_trials", type=positive, default=2000, help="Pairs to validate on")
    parser.add_argument(
        "--allow_partial", type=str2bool, default=False, help="Use the part that is there"
    )
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Read everything, check everything, then write."""
    if args.valid_speakers < 0:
        raise DataError(f"--valid_speakers must be 0 or more, got {args.valid_speakers}")
    corpus = scan(args.voxceleb1)
    split = read_split(args.lists / "iden_split.txt")
    trials = {name: read_trials(args.lists / file) for name, file in TRIALS.items()}
    check_empty(corpus)
    if args.allow_partial:
        split, trials = _present(corpus, split, trials)
    else:
        check_split(split, str(args.lists / "iden_split.txt"))
        check_trials(trials)
        check_audio(corpus, [n for names in split.values() for n in names], "iden_split.txt")
        for name, pairs in trials.items():
            check_audio(corpus, _utterances(pairs), TRIALS[name])
    check_closed(split)
    for name, pairs in trials.items():
        check_pairs(name, pairs)

    tested = {speaker(name) for pairs in trials.values() for name in _utterances(pairs)}
    listed = {name for names in split.values() for name in names}
    sv = verification(
        listed, tested, trials["vox1_o_cleaned"], args.valid_speakers, args.valid_trials
    )
    if not args.allow_partial:
        _check_dev(listed, tested)
    for part, names in split.items():
        _write(args.data_dir / f"sid_{part}", corpus, names)
    _write(args.data_dir / "sv_train", corpus, sv.train)
    _write(args.data_dir / "sv_valid", corpus, _utterances(sv.valid_trials))
    _write_trials(args.data_dir / "sv_valid" / "trials", sv.valid_trials)
    _write(args.data_dir / "sv_test", corpus, _utterances([t for p in trials.values() for t in p]))
    for name, pairs in trials.items():
        _write_trials(args.data_dir / "sv_test" / name, pairs)
    # No utterance that identification or verification is tested on.
    for part, target in (("train", "distill_train"), ("valid", "distill_valid")):
        _write(args.data_dir / target, corpus, [n for n in split[part] if speaker(n) not in tested])


def _present(
    corpus: Corpus, split: dict[str, list[str]], trials: dict[str, list[Trial]]
) -> tuple[dict[str, list[str]], dict[str, list[Trial]]]:
    """What of the lists is there, said aloud."""
    audio = corpus.audio
    kept_split = {part: [n for n in names if n in audio] for part, names in split.items()}
    kept = {
        name: [p for p in pairs if p.first in audio and p.second in audio]
        for name, pairs in trials.items()
    }
    for label, before, after in [
        *((f"iden_split.txt {part}", split[part], kept_split[part]) for part in split),
        *((TRIALS[name], trials[name], kept[name]) for name in trials),
    ]:
        if len(after) < len(before):
            print(f"partial corpus: {len(after)} of {len(before)} entries of {label} are there")
    return kept_split, kept


def _check_dev(listed: Collection[str], tested: Collection[str]) -> None:
    dev = [name for name in listed if speaker(name) not in tested]
    speakers = len({speaker(name) for name in dev})
    if (len(dev), speakers) != (DEV_UTTERANCES, DEV_SPEAKERS):
        raise DataError(
            f"verification would train on {len(dev)} utterances of {speakers} speakers, expected "
            f"{DEV_UTTERANCES} of {DEV_SPEAKERS}; the lists are not of one corpus ({PARTIAL})"
        )


def _utterances(trials: Collection[Trial]) -> set[str]:
    return {name for pair in trials for name in (pair.first, pair.second)}


def _write(directory: Path, corpus: Corpus, names: Collection[str]) -> None:
    if not names:
        raise DataError(f"{directory}: no utterance is left for it")
    directory.mkdir(parents=True, exist_ok=True)
    write_table(directory / "wav.scp", {name: corpus.audio[name] for name in names})
    write_table(directory / "utt2spk", {name: speaker(name) for name in names})
    speakers = len({speaker(name) for name in names})
    print(f"{directory}: {len(names)} utterances of {speakers} speakers")


def _write_trials(path: Path, trials: Collection[Trial]) -> None:
    write_lines(path, (f"{pair.label} {pair.first} {pair.second}" for pair in trials))
    print(f"{path}: {len(trials)} trials, {sum(pair.label for pair in trials)} of one speaker")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("prepare_voxceleb", lambda: prepare(args))


if __name__ == "__main__":
    main()
