"""Score recognized text (WER, CER) and predicted speakers (accuracy)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table

WORST = 5
LISTED = 50


def _import_jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise DataError(
            "jiwer is needed for WER and CER; install it with: pip install espnet_star[recipes]"
        ) from None
    return jiwer


class Pair(NamedTuple):
    """References and hypotheses of the same utterances.

    Attributes:
        references: Reference of each utterance.
        hypotheses: Hypothesis of each utterance, ``""`` where it is missing.
        missing: Utterances without hypothesis.
        extra: Hypotheses without reference, which are left out.
    """

    references: dict[str, str]
    hypotheses: dict[str, str]
    missing: list[str]
    extra: list[str]

    def warnings(self) -> list[str]:
        """Sentences about keys that disagree."""
        found = []
        if self.missing:
            found.append(f"{len(self.missing)} utterances have no hypothesis: {some(self.missing)}")
        if self.extra:
            found.append(f"{len(self.extra)} hypotheses have no reference: {some(self.extra)}")
        return found

    def listing(self) -> dict[str, Any]:
        """Number and first names of keys that disagree, for the result."""
        return {
            "missing": len(self.missing),
            "missing_utterances": self.missing[:LISTED],
            "extra": len(self.extra),
            "extra_utterances": self.extra[:LISTED],
        }


def read_pair(ref: str | Path, hyp: str | Path) -> Pair:
    """Read references and hypotheses and compare their keys.

    Args:
        ref: Table of references.
        hyp: Table of hypotheses; empty ones are allowed.

    Raises:
        DataError: If a file is malformed, there is no reference, or no key in common.
    """
    references, found = read_table(ref, allow_empty=True), read_table(hyp, allow_empty=True)
    if not references:
        raise DataError(f"{ref}: no references; expected lines 'utterance reference'")
    if not references.keys() & found.keys():
        raise DataError(
            f"{ref} and {hyp} have no utterance in common (references: {some(references)}; "
            f"hypotheses: {some(found) or 'none'}); are they of the same test set?"
        )
    return Pair(
        references,
        {key: found.get(key, "") for key in references},
        missing=sorted(references.keys() - found.keys()),
        extra=sorted(found.keys() - references.keys()),
    )


def _counts(output: Any) -> dict[str, int]:
    return {
        "reference": output.hits + output.substitutions + output.deletions,
        "hits": output.hits,
        "substitutions": output.substitutions,
        "deletions": output.deletions,
        "insertions": output.insertions,
    }


def _rate(counts: dict[str, int]) -> float:
    errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
    return errors / counts["reference"]


def _errors(chunks: Sequence[Any]) -> int:
    return sum(
        max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
        for c in chunks
        if c.type != "equal"
    )


def score_asr(ref: str | Path, hyp: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Word and character error rates over all utterances.

    Characters include the spaces between words, as in ESPnet's own CER. A missing
    hypothesis counts as empty: all its words are deletions.

    Args:
        ref: ``text`` of the test set.
        hyp: ``text`` of the recognizer.

    Returns:
        Result (rates as fractions, counts, worst utterances) and warnings.

    Raises:
        DataError: As `read_pair`, or if every reference is empty.
    """
    jiwer = _import_jiwer()
    pair = read_pair(ref, hyp)
    references, hypotheses = pair.references, pair.hypotheses
    # One space between words on both sides, or CER would count layout.
    wanted = [" ".join(text.split()) for text in references.values()]
    got = [" ".join(text.split()) for text in hypotheses.values()]
    if not any(wanted):
        raise DataError(f"{ref}: every reference is empty; expected 'utterance words ...'")
    words, characters = jiwer.process_words(wanted, got), jiwer.process_characters(wanted, got)
    result = {
        "task": "asr",
        "utterances": len(references),
        "wer": _rate(_counts(words)),
        "cer": _rate(_counts(characters)),
        "words": _counts(words),
        "characters": _counts(characters),
        **pair.listing(),
        "worst": _worst(list(references), wanted, got, words.alignments),
    }
    return result, pair.warnings()


def _worst(
    keys: list[str], wanted: list[str], got: list[str], alignments: Sequence[Any]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "utterance": key,
            "errors": _errors(chunks),
            "words": len(ref.split()),
            "ref": ref,
            "hyp": hyp,
        }
        for key, ref, hyp, chunks in zip(keys, wanted, got, alignments, strict=True)
    ]
    rows = [row for row in rows if row["errors"]]
    # By rate, then by number, then by key: the same list on every run.
    rows.sort(
        key=lambda row: (-row["errors"] / max(row["words"], 1), -row["errors"], row["utterance"])
    )
    return rows[:WORST]


def score_sid(ref: str | Path, hyp: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Accuracy of predicted speakers (or of any one label an utterance).

    Args:
        ref: ``utt2spk`` of the test set.
        hyp: ``text`` of the classifier.

    Returns:
        Result (accuracy over utterances, mean over speakers of each one's accuracy,
        most confused pairs) and warnings. A missing prediction counts as wrong.

    Raises:
        DataError: As `read_pair`.
    """
    pair = read_pair(ref, hyp)
    references, hypotheses = pair.references, pair.hypotheses
    total = Counter(references.values())
    correct = Counter(label for key, label in references.items() if hypotheses[key] == label)
    confused = Counter(
        (label, hypotheses[key] or "(none)")
        for key, label in references.items()
        if hypotheses[key] != label
    )
    pairs = sorted(confused.items(), key=lambda item: (-item[1], item[0]))[:WORST]
    result = {
        "task": "sid",
        "utterances": len(references),
        "speakers": len(total),
        "correct": sum(correct.values()),
        "accuracy": sum(correct.values()) / len(references),
        "macro_accuracy": sum(correct[label] / total[label] for label in total) / len(total),
        "chance": max(total.values()) / len(references),
        **pair.listing(),
        "confused": [{"ref": a, "hyp": b, "count": count} for (a, b), count in pairs],
    }
    return result, pair.warnings()
