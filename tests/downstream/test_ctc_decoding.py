"""Decoding of CTC posteriors, against an exhaustive search that shares nothing with it."""

import gzip
import itertools
import math

import pytest
import torch

from espnet_star.downstream.ctc_decoding import (
    SearchOptions,
    WordSearch,
    collapse,
    greedy,
    read_lexicon,
)
from espnet_star.errors import StarError

TOKENS = ["<blank>", "<unk>", "<space>", "A", "C", "D", "T", "<sos/eos>"]
WORDS = ["CAT", "CAD", "A", "TAD"]
# log10 probabilities; CAD after A is rare.
UNIGRAMS = {"CAT": -0.8, "CAD": -1.2, "A": -0.5, "TAD": -1.0, "</s>": -0.7}
BIGRAMS = {("<s>", "A"): -0.2, ("A", "CAT"): -0.1, ("A", "CAD"): -2.5, ("CAT", "</s>"): -0.3}
BACKOFF = -0.4


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    pytest.importorskip("flashlight.lib.text", reason="pip install espnet_star[lm]")
    lines = [
        "\\data\\",
        f"ngram 1={len(UNIGRAMS) + 2}",
        f"ngram 2={len(BIGRAMS)}",
        "",
        "\\1-grams:",
    ]
    lines += [f"-1.5\t<unk>\t{BACKOFF}", f"-99\t<s>\t{BACKOFF}"]
    lines += [f"{p}\t{word}\t{0 if word == '</s>' else BACKOFF}" for word, p in UNIGRAMS.items()]
    lines += ["", "\\2-grams:", *(f"{p}\t{a} {b}" for (a, b), p in BIGRAMS.items()), "", "\\end\\"]
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return path


def spoken(labels, *doubts):
    """Posteriors of a path; ``doubts`` are (frame, label, probability beside the path's)."""
    probs = torch.full((len(labels), len(TOKENS)), 1e-3)
    for frame, label in enumerate(labels):
        probs[frame, TOKENS.index(label)] = 1.0
    for frame, label, probability in doubts:
        probs[frame, TOKENS.index(label)] = probability
    return (probs / probs.sum(dim=1, keepdim=True)).log()


A_CAD = ["A", "<space>", "C", "<blank>", "A", "D", "<blank>"]


def test_greedy_takes_the_best_path():
    found = greedy(spoken(["<blank>", "C", "C", "<blank>", "C", "A", "A", "<blank>"]))
    assert [TOKENS[i] for i in found.tokens] == ["C", "C", "A"]
    assert collapse([]) == [] and collapse([0, 0]) == []


def test_the_ngram_puts_right_what_greedy_gets_wrong(arpa, lexicon):
    """Fails if the n-gram has no say, or the last word, which no space follows, is lost."""
    log_probs = spoken(A_CAD, (5, "T", 0.7))
    assert [TOKENS[i] for i in greedy(log_probs).tokens] == ["A", "<space>", "C", "A", "D"]
    found = WordSearch(TOKENS, lexicon, arpa)(log_probs)
    assert found.words == ["A", "CAT"]
    assert [TOKENS[i] for i in found.tokens] == ["A", "<space>", "C", "A", "T"]
    alone = WordSearch(TOKENS, lexicon, arpa, SearchOptions(lm_weight=0.0))(log_probs)
    assert alone.words == ["A", "CAD"]


def ngram(words):
    total, before = 0.0, "<s>"
    for word in [*words, "</s>"]:
        if (before, word) in BIGRAMS:
            total += BIGRAMS[before, word]
        else:
            total += BACKOFF + UNIGRAMS[word]
        before = word
    return total


def best_path(log_probs, labels):
    """Score of the best alignment of labels to frames, by the textbook's recursion."""
    states = [0, *itertools.chain.from_iterable((label, 0) for label in labels)]
    scores = [log_probs[0, s].item() if i < 2 else -math.inf for i, s in enumerate(states)]
    for frame in log_probs[1:]:
        new = []
        for i, state in enumerate(states):
            skip = i > 1 and state != 0 and state != states[i - 2]
            came = max(
                scores[i], scores[i - 1] if i else -math.inf, scores[i - 2] if skip else -math.inf
            )
            new.append(came + frame[state].item())
        scores = new
    return max(scores[-2:])


@pytest.mark.parametrize("seed", range(4))
def test_search_finds_what_trying_every_sentence_finds(arpa, lexicon, seed):
    """Fails if a weight is applied wrongly, or n-gram, lexicon and posteriors do not meet."""
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(9, len(TOKENS))).log_softmax(dim=1)
    options = SearchOptions(beam_size=5000, beam_threshold=1e6, lm_weight=1.7, word_score=0.8)
    # Spellings end in a space: the frame that closes the last word of an utterance.
    end = torch.full((1, len(TOKENS)), -1e4)
    end[0, 2] = 0.0
    framed = torch.cat([log_probs, end])

    def total(words):
        ways = []
        for spaces in itertools.product((0, 1), repeat=len(words)):  # one more before a word
            pairs = zip(spaces, words, strict=True)
            spelled = [c for n, w in pairs for c in (*["<space>"] * n, *w, "<space>")]
            ways.append(best_path(framed, [TOKENS.index(c) for c in spelled]))
        return max(ways) + 1.7 * ngram(words) + 0.8 * len(words)

    sentences = [s for n in (1, 2, 3) for s in itertools.product(WORDS, repeat=n)]
    expected = max(sentences, key=total)
    found = WordSearch(TOKENS, lexicon, arpa, options)(log_probs)
    assert found.words == list(expected)
    assert found.score == pytest.approx(total(expected), abs=1e-3)


def test_compressed_lm_and_spelled_lexicon(arpa, tmp_path):
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    words = tmp_path / "librispeech_lexicon.lst"
    words.write_text("CAT\tC A T |\nA A |\n\nCAD C A D |\n")
    found = WordSearch(TOKENS, words, packed)(spoken(A_CAD, (5, "T", 0.7)))
    assert found.words == ["A", "CAT"]


def test_words_that_cannot_be_spelled_are_counted(tmp_path, caplog):
    path = tmp_path / "words.txt"
    path.write_text("CAT\nCAB\n")
    assert read_lexicon(path, TOKENS) == {"CAT": [[4, 3, 6, 2]]}
    assert "1 words left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "tokens", "message"),
    [
        ("cat\ndog\n", TOKENS, "none of its 2 words can be spelled"),
        ("CAT K AE1 T\n", TOKENS, "not phones"),
        ("CAT\n", ["<blank>", "<unk>", "▁C", "AT"], "train with --token_type char"),
        (None, TOKENS, "the lexicon cannot be read"),
    ],
)
def test_a_lexicon_of_no_use_is_refused(tmp_path, content, tokens, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StarError, match=message):
        read_lexicon(path, tokens)


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("x\n", "KenLM cannot")])
def test_an_lm_of_no_use_is_refused(arpa, lexicon, tmp_path, content, message):
    path = tmp_path / "bad.arpa"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StarError, match=message):
        WordSearch(TOKENS, lexicon, path)
