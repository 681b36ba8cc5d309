"""Before training: transcripts with more symbols than CTC will have frames for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_counts, read_table
from espnet_star.files.yaml_files import read_yaml

FIELD, HOP = 400, 320  # of a student's frame, in samples at 16 kHz
# What ESPnet's encoders make of the frames by their input_layer; conv2d is their default.
SUBSAMPLING = {"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8}
SUBSAMPLED = ("transformer", "conformer", "branchformer", "e_branchformer")
Tokenize = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Alignment:
    """What CTC can do with a set.

    Attributes:
        total: Utterances with a transcript.
        lost: Those without an alignment: name to frames and the frames they need.
        joined: Frames of the student that are one of CTC's.
    """

    total: int
    lost: dict[str, tuple[int, int]]
    joined: int

    def lines(self, datadir: str | Path) -> list[str]:
        """What to tell; empty where all is well."""
        if not self.lost:
            return []
        worst = sorted(self.lost.items(), key=lambda item: item[1][0] - item[1][1])
        shown = some(f"{name} ({has} frames, {needs} needed)" for name, (has, needs) in worst)
        return [
            f"{datadir}: CTC cannot align {len(self.lost)} of {self.total} utterances at "
            f"{50 / self.joined:g} frames/s and learns nothing from them: {shown}"
        ]


def check_alignment(
    text: Mapping[str, str], samples: Mapping[str, int], tokenize: Tokenize, joined: int
) -> Alignment:
    """Hold symbols against frames.

    Args:
        text: Transcripts.
        samples: Length of each utterance at 16 kHz.
        tokenize: Transcript to symbols.
        joined: Frames of the student that are one of CTC's; the last one may be of fewer.
    """
    lost = {}
    for name, words in text.items():
        if name not in samples:
            continue
        frames = -(-max(0, (samples[name] - FIELD) // HOP + 1) // joined)
        tokens = tokenize(words)
        needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
        if frames < needed:
            lost[name] = (frames, needed)
    return Alignment(len(text), lost, joined)


def check_head(
    datadir: str | Path, config: str | Path, bpemodel: str | Path | None = None
) -> list[str]:
    """Which transcripts of a prepared directory the CTC of a head cannot align.

    Args:
        datadir: Has ``text`` and ``utt2num_samples``.
        config: YAML file of ``asr_train``.
        bpemodel: SentencePiece model of the tokens; characters without it.

    Returns:
        Lines to tell; none where all is well.

    Raises:
        StarError: If it can align none, or a file cannot be read.
    """
    joined = joined_frames(config)
    if joined is None:
        return [f"{config}: no CTC, or an encoder whose frame rate is not known ahead"]
    directory = Path(datadir)
    text, samples = read_table(directory / "text"), read_counts(directory / "utt2num_samples")
    found = check_alignment(text, samples, tokenizer(bpemodel), joined)
    lines = found.lines(directory)
    if found.total and len(found.lost) == found.total:
        raise DataError(
            f"{lines[0]}; lower stack or subsampling in encoder_conf, take longer tokens "
            "(token_type bpe), and check that text belongs to wav.scp"
        )
    return lines


def tokenizer(bpemodel: str | Path | None) -> Tokenize:
    """Characters, or the pieces of a SentencePiece model.

    Raises:
        DataError: If the model cannot be read.
    """
    if bpemodel is None:
        return list
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(bpemodel))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{bpemodel} is no SentencePiece model ({error})") from error
    return lambda words: pieces.encode(words, out_type=str)


def joined_frames(path: str | Path) -> int | None:
    """Frames of the student that are one of CTC's, from the configuration of a head.

    Args:
        path: YAML file of ``asr_train``.

    Returns:
        1 or more; None where there is no CTC, or the encoder's subsampling is not known.

    Raises:
        DataError: If the file cannot be read.
    """
    config = read_yaml(path)
    if float((config.get("model_conf") or {}).get("ctc_weight", 0.5)) == 0.0:
        return None
    return _joined(config.get("encoder", "rnn"), config.get("encoder_conf") or {})


def _joined(encoder: str, conf: Mapping[str, Any]) -> int | None:
    if encoder == "star":
        return 1
    if encoder == "blstm":
        return int(conf.get("stack", 1))
    if encoder in SUBSAMPLED:
        return SUBSAMPLING.get(str(conf.get("input_layer", "conv2d")), 1)
    return None
