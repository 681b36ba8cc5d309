#!/usr/bin/env python3
"""Make a miniature of openslr.org/11: a 4-gram, a lexicon and a vocabulary.

The 4-gram is counted on the given transcripts and smoothed as Witten and Bell do, in
ARPA format; it is a language model of a few hundred words, with probabilities that sum
to one. Pronunciations spell the word, one phone a letter: no dictionary is at hand.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from make_librispeech import spoken

from espnet_star.bin.command import run_tool
from espnet_star.data.errors import DataError

ORDER = 4
BOS, EOS, UNK = "<s>", "</s>", "<unk>"
NEVER = -99.0  # what ARPA files write for the logarithm of zero
# One phone of the CMU dictionary for each letter, A to Z.
PHONES = dict(
    pair.split(":")
    for pair in (
        *("A:AE1", "B:B", "C:K", "D:D", "E:EH1", "F:F", "G:G", "H:HH", "I:IH1", "J:JH", "K:K"),
        *("L:L", "M:M", "N:N", "O:AA1", "P:P", "Q:K", "R:R", "S:S", "T:T", "U:AH1", "V:V"),
        *("W:W", "X:Z", "Y:Y", "Z:Z"),
    )
)


class WittenBell:
    """N-gram probabilities, interpolated down to a uniform distribution.

    ``p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h))`` where ``T(h)`` is the number
    of different words seen after ``h`` and ``h'`` is ``h`` without its first word
    (Witten and Bell, 1991). What is left for unseen words is ``T(h) / (c(h) + T(h))``,
    the back-off weight of an ARPA file.

    Args:
        sentences: Words of each sentence, without begin and end.
        order: Longest n-gram.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], order: int = ORDER) -> None:
        self.order = order
        self.counts: dict[tuple[str, ...], Counter[str]] = {}
        for sentence in sentences:
            words = [BOS, *sentence, EOS]
            for end in range(1, len(words)):
                for start in range(max(0, end - order + 1), end + 1):
                    history = tuple(words[start:end])
                    self.counts.setdefault(history, Counter())[words[end]] += 1
        self.vocabulary = sorted({*self.counts.get((), ()), UNK})

    def probability(self, word: str, history: tuple[str, ...]) -> float:
        """Probability of a word after a history of at most ``order - 1`` words."""
        shorter = self.probability(word, history[1:]) if history else 1 / len(self.vocabulary)
        seen = self.counts.get(history)
        if seen is None:
            return shorter
        kinds, total = len(seen), seen.total()
        return (seen[word] + kinds * shorter) / (total + kinds)

    def backoff(self, history: tuple[str, ...]) -> float:
        """Share of a history's probability that unseen words get; 1 for an unseen history."""
        seen = self.counts.get(history)
        return 1.0 if seen is None else len(seen) / (seen.total() + len(seen))

    def ngrams(self, order: int) -> list[tuple[str, ...]]:
        """N-grams of an order that an ARPA file lists, sorted."""
        if order == 1:
            return sorted((word,) for word in (BOS, *self.vocabulary))
        return sorted(
            (*history, word)
            for history, seen in self.counts.items()
            if len(history) == order - 1
            for word in seen
        )

    def arpa(self) -> Iterable[str]:
        """Lines of an ARPA file."""
        listed = {order: self.ngrams(order) for order in range(1, self.order + 1)}
        yield "\\data\\"
        yield from (f"ngram {order}={len(ngrams)}" for order, ngrams in listed.items())
        for order, ngrams in listed.items():
            yield ""
            yield f"\\{order}-grams:"
            for ngram in ngrams:
                *history, word = ngram
                known = word != BOS
                log = math.log10(self.probability(word, tuple(history))) if known else NEVER
                line = f"{log:.6f}\t{' '.join(ngram)}"
                if order < self.order and ngram in self.counts:
                    line += f"\t{math.log10(self.backoff(ngram)):.6f}"
                yield line
        yield ""
        yield "\\end\\"


def read_sentences(corpus: Path) -> list[list[str]]:
    """Words of every transcript below a LibriSpeech folder.

    Raises:
        DataError: If there is none.
    """
    files = sorted(corpus.rglob("*.trans.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    sentences = [spoken(line.split(maxsplit=1)[1]).split() for line in lines]
    if not sentences:
        raise DataError(f"{corpus}: no *.trans.txt below it; expected a LibriSpeech folder")
    return sentences


def make(sentences: Sequence[Sequence[str]], outdir: Path) -> int:
    """Write ``4-gram.arpa.gz``, ``librispeech-lexicon.txt`` and ``librispeech-vocab.txt``.

    Returns:
        Size of the vocabulary.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    words = sorted({word for sentence in sentences for word in sentence})
    with gzip.open(outdir / "4-gram.arpa.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in WittenBell(sentences).arpa())
    lexicon = (f"{word}\t{' '.join(PHONES[x] for x in word if x != chr(39))}\n" for word in words)
    (outdir / "librispeech-lexicon.txt").write_text("".join(lexicon), encoding="utf-8")
    vocabulary = "".join(f"{word}\n" for word in words)
    (outdir / "librispeech-vocab.txt").write_text(vocabulary, encoding="utf-8")
    return len(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="a LibriSpeech folder")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(argv)

    def work() -> None:
        words = make(read_sentences(args.corpus), args.output_dir)
        print(f"{args.output_dir}: 4-gram of {words} words")

    run_tool(Path(sys.argv[0]).name, work)


if __name__ == "__main__":
    main()
