"""Lists of data as ESPnet takes them: which utterances each holds, and whether they agree."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table

# ESPnet's types whose lists have lines 'utterance value'. Others have readers of their own.
SOUND = ("sound", "multi_columns_sound", "variable_columns_sound")
ARK = "kaldi_ark"
COLUMNS = (*SOUND, ARK, "npy", "text", "text_int", "csv_int", "text_float", "csv_float")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataList:
    """One list of a training or decoding.

    Attributes:
        path: Its file.
        name: What the model calls its data, e.g. ``speech``.
        type: ESPnet's type, e.g. ``sound``.
        table: Value of each utterance, in the order of the file.
    """

    path: str
    name: str
    type: str
    table: dict[str, str]


def read_lists(option: str, triples: Sequence[Sequence[str]]) -> list[DataList]:
    """Read the lists of an option, those without lines of utterances aside.

    Args:
        option: Its name, for messages.
        triples: Path, name and type of each.

    Raises:
        DataError: If an entry is no triple, or a list is missing, empty, malformed or names
            an utterance twice.
    """
    found = []
    for triple in triples:
        if not isinstance(triple, tuple | list) or len(triple) != 3:
            raise DataError(f"--{option} must be PATH,NAME,TYPE, got {triple!r}")
        path, name, kind = triple
        if kind in COLUMNS:
            table = read_table(path, allow_empty=kind not in (*SOUND, ARK))
            if not table:
                raise DataError(f"{path} is empty; expected lines 'utterance value' (--{option})")
            found.append(DataList(path, name, kind, table))
        elif not Path(path).exists():
            raise DataError(f"{path}: no such file (--{option})")
    return found


def check_keys(source: str, keys: Iterable[str], lists: Sequence[DataList]) -> None:
    """Refuse utterances to train on that a list lacks; mention those that stay out.

    Args:
        source: File that chooses the utterances: a shape file, or the first list.
        keys: Its utterances.
        lists: Data of these.

    Raises:
        DataError: Naming the list and some utterances.
    """
    wanted = set(keys)
    for entry in lists:
        lacking = sorted(wanted - entry.table.keys())
        if lacking:
            raise DataError(
                f"{entry.path} lacks {len(lacking)} of {len(wanted)} utterances of {source}: "
                f"{some(lacking)}; make both from the same data"
            )
    if lists and (spare := sorted(lists[0].table.keys() - wanted)):
        logger.warning(
            "%s: %d utterances are not in %s and stay out: %s",
            lists[0].path,
            len(spare),
            source,
            some(spare),
        )


def check_order(keys: Iterable[str], lists: Sequence[DataList]) -> None:
    """Refuse lists that ESPnet cannot read side by side, line by line.

    Args:
        keys: Utterances that are asked for.
        lists: Read in step, as decoding and statistics do.

    Raises:
        DataError: Naming the first line that differs, or an utterance that none has.
    """
    if not lists:
        return
    first = list(lists[0].table)
    place = {key: number for number, key in enumerate(first)}
    last, former = -1, ""
    for key in keys:
        if key not in place:
            raise DataError(f"{lists[0].path} lacks utterance {key}, which is asked for")
        if place[key] <= last:
            raise DataError(
                f"{lists[0].path}: {key} stands before {former}, but is asked for after it; "
                "sort both files alike"
            )
        last, former = place[key], key
    for other in lists[1:]:
        names = list(other.table)
        for number, key in enumerate(first[: last + 1]):
            if number >= len(names) or names[number] != key:
                found = names[number] if number < len(names) else "its end"
                raise DataError(
                    f"{other.path}:{number + 1}: expected utterance {key} as in "
                    f"{lists[0].path}, found {found}; lists must hold the same utterances in "
                    "the same order"
                )
