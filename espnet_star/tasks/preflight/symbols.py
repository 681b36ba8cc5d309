"""Token lists and labels: what a model can say, against what its data asks it to."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table
from espnet_star.errors import StarError
from espnet_star.tasks.preflight.lists import DataList

UNKNOWN = "<unk>"
# Types whose tokens ESPnet turns into numbers by the token list.
LISTED = ("bpe", "char", "word", "phn")


def check_tokens(args: argparse.Namespace) -> list[str] | None:
    """Look at ``--token_list`` and ``--bpemodel``.

    Args:
        args: Options of a training.

    Returns:
        The tokens, None where the task has no such list.

    Raises:
        StarError: If a file is missing or empty, or a token is there twice or lacking.
    """
    given = getattr(args, "token_list", None)
    if given is None:
        return None
    tokens = _read_tokens(given) if isinstance(given, str) else [str(token) for token in given]
    name = given if isinstance(given, str) else "token_list"
    kind = getattr(args, "token_type", None)
    if not tokens:
        raise StarError(f"{name} is empty; expected a token a line, {UNKNOWN} among them")
    if getattr(args, "use_preprocessor", False) and kind in LISTED:
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        if twice:
            raise StarError(f"{name}: {some(map(repr, twice))} are there twice; keep one of them")
        if UNKNOWN not in tokens:
            raise StarError(f"{name}: {UNKNOWN} is not there; ESPnet needs it, add a line with it")
        _check_blank(args, name, tokens)
        _check_pieces(kind, getattr(args, "bpemodel", None))
    return tokens


def _check_blank(args: argparse.Namespace, name: str, tokens: Sequence[str]) -> None:
    """ESPnet takes the first token for CTC's blank in silence where there is none."""
    conf = getattr(args, "model_conf", None) or {}
    blank = conf.get("sym_blank", "<blank>")
    used = hasattr(args, "ctc_conf") and conf.get("ctc_weight") != 0.0
    if used and blank not in tokens and not tokens[0].startswith("<"):
        raise StarError(
            f"{name}: {blank} is not there, so that CTC would take the first token, {tokens[0]!r}, "
            f"for its blank and never say it; make {blank} the first line"
        )


def _check_pieces(kind: str, model: object) -> None:
    if kind == "bpe" and not (isinstance(model, str) and Path(model).is_file()):
        raise StarError(
            f"--bpemodel {model}: no such file; --token_type bpe needs the model that the token "
            "list was made with (star_data tokens, or spm_train)"
        )


def _read_tokens(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise StarError(f"--token_list {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise StarError(f"--token_list {path}: not UTF-8 ({error.reason})") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    # As ESPnet does: a token may be a blank.
    return [line[:1] + line[1:].rstrip() for line in lines]


def check_labels(lists: Sequence[DataList], name: str, known: Iterable[str], source: str) -> None:
    """Refuse labels that the list of labels lacks.

    Args:
        lists: Data of one set.
        name: Of the list with labels, e.g. ``label``; several may stand in a line.
        known: Labels that there are.
        source: Their file or option, for messages.

    Raises:
        DataError: Naming list, labels and an utterance of each.
    """
    labels = set(known) - {UNKNOWN}
    for entry in lists:
        if entry.name != name:
            continue
        first: dict[str, str] = {}
        for key, value in entry.table.items():
            for label in value.split():
                if label not in labels:
                    first.setdefault(label, key)
        if first:
            examples = some(f"{label!r} of {key}" for label, key in sorted(first.items()))
            raise DataError(
                f"{entry.path}: {len(first)} labels are not among the {len(labels)} of {source}: "
                f"{examples}; leave these utterances out, or make the list from all sets"
            )


def read_speakers(path: str) -> list[str]:
    """Speakers of a ``spk2utt`` that a training numbers.

    Raises:
        DataError: If it is missing or malformed.
    """
    if not path:
        raise DataError("--spk2utt is not given; give the training set's, which numbers speakers")
    return list(read_table(path))
