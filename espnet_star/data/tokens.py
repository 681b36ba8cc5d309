"""Token lists for ASR: characters, or SentencePiece pieces trained on the transcripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from espnet_star.data.kaldi import read_table
from espnet_star.errors import StarError

BLANK, UNKNOWN, EDGE, SPACE = "<blank>", "<unk>", "<sos/eos>", "<space>"


def write_tokens(
    text: str | Path, outdir: str | Path, vocab_size: int | None = None
) -> tuple[int, int]:
    """Train pieces or collect characters; write ``tokens.txt`` as ESPnet reads it.

    Args:
        text: Transcripts, Kaldi's ``text``.
        outdir: Gets ``tokens.txt`` and, for pieces, ``bpe.model``.
        vocab_size: Number of pieces; None takes characters.

    Returns:
        Numbers of tokens and of transcripts.

    Raises:
        StarError: If there is no transcript, or they cannot give so many pieces.
    """
    texts = list(read_table(text).values())
    if not texts:
        raise StarError(f"{text} has no transcript")
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    if vocab_size is None:
        pieces = sorted({SPACE if c == " " else c for text in texts for c in text})
    else:
        pieces = train_pieces(texts, outdir / "bpe", vocab_size)
    lines = [BLANK, UNKNOWN, *pieces, EDGE]
    (outdir / "tokens.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines), len(texts)


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
