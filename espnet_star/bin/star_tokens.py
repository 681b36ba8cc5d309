#!/usr/bin/env python3
"""Token list for ASR: characters, or SentencePiece pieces trained on the transcripts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from espnet_star.bin.command import run_tool
from espnet_star.data.kaldi import read_table
from espnet_star.errors import StarError

BLANK, UNKNOWN, EDGE, SPACE = "<blank>", "<unk>", "<sos/eos>", "<space>"


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_tokens``."""
    parser = argparse.ArgumentParser(prog="star_tokens", description=__doc__)
    parser.add_argument("--text", required=True, help="Kaldi-style text of the training set")
    parser.add_argument("--outdir", required=True, help="Gets tokens.txt and bpe.model")
    parser.add_argument(
        "--token_type",
        choices=["bpe", "char"],
        default="bpe",
        help="SentencePiece's byte pairs, or characters",
    )
    parser.add_argument("--vocab_size", type=int, default=100, help="Pieces of SentencePiece")
    return parser


def write_tokens(args: argparse.Namespace) -> None:
    """Train pieces or collect characters; write the list as ESPnet reads it."""
    texts = list(read_table(args.text).values())
    if not texts:
        raise StarError(f"{args.text} has no transcript")
    outdir = Path(args.outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    if args.token_type == "char":
        pieces = sorted({SPACE if c == " " else c for text in texts for c in text})
    else:
        pieces = train_pieces(texts, outdir / "bpe", args.vocab_size)
    lines = [BLANK, UNKNOWN, *pieces, EDGE]
    (outdir / "tokens.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{outdir}/tokens.txt: {len(lines)} tokens from {len(texts)} transcripts")


def train_pieces(texts: Iterable[str], prefix: Path, vocab_size: int) -> list[str]:
    """Train a SentencePiece model ``prefix.model`` and list its pieces.

    Raises:
        StarError: If the transcripts cannot give so many pieces.
    """
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(prefix),
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise StarError(
            f"SentencePiece cannot make {vocab_size} pieces of these transcripts "
            f"({reason[0]}); choose another --vocab_size"
        ) from error
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    return [model.id_to_piece(i) for i in range(len(model)) if not model.is_unknown(i)]


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_tokens", lambda: write_tokens(args))


if __name__ == "__main__":
    main()
