"""From CTC posteriors to tokens and words: the best of each frame, or a lexicon and an n-gram."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from espnet_star.data.kaldi import split_lines
from espnet_star.errors import StarError, first_line

BLANK_ID = 0
SPACE, UNKNOWN = "<space>", "<unk>"
# What may never be said, in the natural logarithm of the posteriors.
IMPOSSIBLE = -1e4


class Decoded(NamedTuple):
    """One utterance: indices of its tokens, its words where words were searched, the score."""

    tokens: list[int]
    words: list[str] | None
    score: float


@dataclass(frozen=True)
class SearchOptions:
    """Search through a lexicon and an n-gram; the defaults are SUPERB's.

    Source: ``decoder_args`` in s3prl's downstream/asr/config.yaml.

    Attributes:
        beam_size: Hypotheses kept after each frame.
        beam_threshold: Those that are so much worse than the best are dropped as well.
        lm_weight: Weight of the n-gram's log10-probability.
        word_score: Added for each word.
    """

    beam_size: int = 5
    beam_threshold: float = 25.0
    lm_weight: float = 2.0
    word_score: float = -1.0


def collapse(path: Sequence[int]) -> list[int]:
    """Tokens of a frame-wise path: repetitions count once, blanks not at all."""
    return [token for token, _ in groupby(path) if token != BLANK_ID]


def greedy(log_probs: torch.Tensor) -> Decoded:
    """Tokens of the best path.

    Args:
        log_probs: Logarithms of the posteriors ``(N, V)`` of one utterance.
    """
    best, path = log_probs.max(dim=-1)
    return Decoded(collapse(path.tolist()), None, float(best.sum()))


def read_lexicon(path: str | Path, tokens: Sequence[str]) -> dict[str, list[list[int]]]:
    """Spellings of words as indices of a model's tokens.

    Args:
        path: A word a line, spelled by its characters, or a word and its spelling
            (``HELLO H E L L O |``), as fairseq's lexicon has it.
        tokens: The model's characters.

    Returns:
        Spellings of each word, every one ending in the space between words.

    Raises:
        StarError: If the file cannot be read, or the model can spell none of it.
    """
    index = {token: number for number, token in enumerate(tokens)}
    if SPACE not in index:
        raise StarError(
            f"the model has no {SPACE} among its {len(tokens)} tokens; words are searched by "
            "characters, train with --token_type char"
        )
    try:
        lines = split_lines(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StarError(f"{path}: the lexicon cannot be read ({first_line(error)})") from error
    lexicon: dict[str, list[list[int]]] = {}
    left_out = 0
    for line in filter(str.strip, lines):
        word, *spelling = line.split()
        letters = [SPACE if letter == "|" else letter for letter in spelling or word]
        if letters[-1] != SPACE:
            letters.append(SPACE)
        if all(letter in index for letter in letters):
            lexicon.setdefault(word, []).append([index[letter] for letter in letters])
        else:
            left_out += 1
    if not lexicon:
        raise StarError(
            f"{path}: none of its {left_out} words can be spelled with the model's tokens; "
            "expected words in the letters of the transcripts (not phones, not another case)"
        )
    if left_out:
        logging.warning("%s: %d words left out, the model cannot spell them", path, left_out)
    return lexicon


class WordSearch:
    """Beam search for words of a lexicon under an n-gram, by flashlight-text (extra ``lm``).

    Args:
        tokens: The model's characters, the blank first.
        lexicon: File of words, see `read_lexicon`.
        lm_file: n-gram as ARPA, ARPA.gz or KenLM's binary.
        options: Beam and weights.

    Raises:
        StarError: If a file cannot be used, or flashlight-text is missing.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        lexicon: str | Path,
        lm_file: str | Path,
        options: SearchOptions | None = None,
    ) -> None:
        flashlight = _import_flashlight()
        if not Path(lm_file).is_file():
            raise StarError(f"{lm_file}: no such file; expected an n-gram, ARPA or KenLM's binary")
        options = options or SearchOptions()
        spellings = read_lexicon(lexicon, tokens)
        self.tokens = tokens
        self.space = list(tokens).index(SPACE)
        self.words = flashlight.Dictionary()
        for word in (UNKNOWN, *spellings):
            if not self.words.contains(word):
                self.words.add_entry(word)
        unknown = self.words.get_index(UNKNOWN)
        self.words.set_default_index(unknown)
        lm = _load_lm(flashlight, lm_file, self.words)
        trie = _spelling_tree(flashlight, spellings, lm, self.words, len(tokens), self.space)
        search = flashlight.LexiconDecoderOptions(
            beam_size=options.beam_size,
            beam_size_token=len(tokens),
            beam_threshold=options.beam_threshold,
            lm_weight=options.lm_weight,
            word_score=options.word_score,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=False,
            criterion_type=flashlight.CriterionType.CTC,
        )
        self._decoder = flashlight.LexiconDecoder(
            search, trie, lm, self.space, BLANK_ID, unknown, [], False
        )
        # The decoder refers to them without owning them.
        self._kept = (lm, trie)

    def __call__(self, log_probs: torch.Tensor) -> Decoded:
        """Words of one utterance.

        Args:
            log_probs: Logarithms of the posteriors ``(N, V)``.
        """
        # Spellings end in a space, which ESPnet's transcripts lack after the last word:
        # a frame that is nothing else closes it.
        end = torch.full_like(log_probs[:1], IMPOSSIBLE)
        end[0, self.space] = 0.0
        emissions = torch.cat([log_probs, end]).float().cpu().contiguous()
        found = self._decoder.decode(emissions.data_ptr(), *emissions.shape)
        if not found:
            return Decoded([], [], -math.inf)
        best = found[0]
        words = [self.words.get_entry(number) for number in best.words if number >= 0]
        # It begins and ends in spaces of the decoder's own.
        tokens = collapse([number for number in best.tokens if number >= 0])
        inner = [place for place, token in enumerate(tokens) if token != self.space]
        tokens = tokens[inner[0] : inner[-1] + 1] if inner else []
        return Decoded(tokens, words, float(best.score))


def _import_flashlight() -> Any:
    try:
        from flashlight.lib.text import decoder
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError:
        raise StarError(
            "flashlight-text is needed to decode with an n-gram; install it with: pip install "
            "espnet_star[lm] (it has no wheels for Python 3.13 yet)"
        ) from None

    names = ("Trie", "SmearingMode", "CriterionType", "LexiconDecoder", "LexiconDecoderOptions")
    return SimpleNamespace(
        KenLM=KenLM, Dictionary=Dictionary, **{name: getattr(decoder, name) for name in names}
    )


def _load_lm(flashlight: Any, path: str | Path, words: Any) -> Any:
    if not Path(path).is_file():
        raise StarError(
            f"{path}: no such file; expected an n-gram (ARPA, ARPA.gz or KenLM's binary)"
        )
    try:
        return flashlight.KenLM(str(path), words)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StarError(
            f"{path}: KenLM cannot read it ({reason}); expected an ARPA file, ARPA.gz or KenLM's "
            "binary, whole"
        ) from error


def _spelling_tree(
    flashlight: Any,
    spellings: dict[str, list[list[int]]],
    lm: Any,
    words: Any,
    size: int,
    space: int,
) -> Any:
    trie = flashlight.Trie(size, space)
    start = lm.start(False)
    for word, ways in spellings.items():
        number = words.get_index(word)
        _, score = lm.score(start, number)
        for way in ways:
            trie.insert(way, number, score)
    # Hope of the best word below each node, so that beams compare unfinished words fairly.
    trie.smear(flashlight.SmearingMode.MAX)
    return trie
