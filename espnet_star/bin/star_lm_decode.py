#!/usr/bin/env python3
"""Decode a CTC model of asr_train: greedily, or through a lexicon and an n-gram as SUPERB does."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from espnet_star.bin.command import positive, run_tool
from espnet_star.downstream.ctc_decoding import SearchOptions
from espnet_star.tasks.ctc_inference import Decoding, decode
from espnet_star.tasks.preflight import explained


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_lm_decode``, named as those of ``asr_inference``."""
    parser = argparse.ArgumentParser(
        prog="star_lm_decode",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--asr_train_config", required=True, help="config.yaml that asr_train has written"
    )
    parser.add_argument(
        "--asr_model_file", required=True, help="Its model, e.g. valid.loss.best.pth"
    )
    parser.add_argument(
        "--data_path_and_name_and_type",
        required=True,
        metavar="PATH,speech,sound",
        help="Audio to decode, e.g. dump/raw/test/wav.scp,speech,sound",
    )
    parser.add_argument("--output_dir", required=True, help="Gets 1best_recog/text and the like")
    parser.add_argument("--ngpu", type=int, default=0, help="0 is the CPU, 1 a GPU")
    parser.add_argument("--batch_size", type=positive, default=8, help="Utterances at a time")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that read audio")
    parser.add_argument(
        "--lm_file",
        default=None,
        help="n-gram: ARPA, ARPA.gz or KenLM's binary; without it the best token of each frame",
    )
    parser.add_argument(
        "--lexicon",
        default=None,
        help="Words of the n-gram, one a line, with a spelling (HELLO H E L L O |) or without",
    )
    defaults = SearchOptions()
    for name, kind, meaning in (
        ("beam_size", positive, "Hypotheses kept after each frame"),
        ("beam_threshold", float, "Drop those so much worse than the best"),
        ("lm_weight", float, "Weight of the n-gram's log10-probability"),
        ("word_score", float, "Added for each word"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=meaning)
    return parser


def decode_all(args: argparse.Namespace) -> None:
    """Decode, and say how much."""
    names = ("beam_size", "beam_threshold", "lm_weight", "word_score")
    job = Decoding(
        config=args.asr_train_config,
        model_file=args.asr_model_file,
        data=args.data_path_and_name_and_type,
        output_dir=args.output_dir,
        lm_file=args.lm_file,
        lexicon=args.lexicon,
        search=SearchOptions(**{name: getattr(args, name) for name in names}),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        ngpu=args.ngpu,
    )
    print(f"{args.output_dir}: {decode(job)} utterances decoded")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    run_tool("star_lm_decode", lambda: explained(args, lambda: decode_all(args)))


if __name__ == "__main__":
    main()
