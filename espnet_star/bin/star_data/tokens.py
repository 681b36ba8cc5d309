"""Token list for ASR: characters, or SentencePiece pieces trained on the transcripts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool
from espnet_star.data.tokens import write_tokens


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_data tokens``."""
    parser = argparse.ArgumentParser(prog="star_data tokens", description=__doc__)
    parser.add_argument("--text", required=True, help="Kaldi-style text of the training set")
    parser.add_argument("--output_dir", required=True, help="Gets tokens.txt and bpe.model")
    parser.add_argument(
        "--token_type",
        choices=["bpe", "char"],
        default="bpe",
        help="SentencePiece's byte pairs, or characters",
    )
    parser.add_argument("--vocab_size", type=int, default=100, help="Pieces of SentencePiece")
    return parser


def write(args: argparse.Namespace) -> None:
    """Write the list, and say how long it is."""
    size = None if args.token_type == "char" else args.vocab_size
    tokens, transcripts = write_tokens(args.text, args.output_dir, size)
    print(f"{args.output_dir}/tokens.txt: {tokens} tokens from {transcripts} transcripts")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_data tokens", lambda: write(args))


if __name__ == "__main__":
    main()
